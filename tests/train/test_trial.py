"""Remedies tried on a small run: equal conditions, and a row that says honestly what came of it."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from bptt.diagnose import Diagnosis, Finding
from bptt.errors import UnknownName
from bptt.report.trials import trials_table
from bptt.train import configure, fit, trial, try_remedies
from bptt.train.measured import Measured, Measuring, sequence_losses
from bptt.train.problem import open_problem
from bptt.train.trial import Trial, _judge

EMPTY = Diagnosis("a run", {})


def small(**options):
    return configure("adding:10", **{"cell": "rnn", "hidden": 8, "batch": 8} | options)


@pytest.fixture(scope="module")
def trials():
    names = ["gated-cell", "identity", "orthogonal", "omega"]
    return try_remedies(small(seed=1), EMPTY, iterations=30, remedies=names)


def test_each_row_is_the_training_that_the_changed_configuration_gives(trials):
    for row in (trials.base, trials.rows[0], trials.rows[1]):
        alone = fit(small(seed=1, iterations=30).replace(**row.changes))
        assert row.measured.loss == pytest.approx(alone.validation.loss, rel=1e-6)
        assert row.measured.horizons == alone.probe["horizon"]
        assert row.parameters == sum(value.size for value in alone.network.params.values())
    assert trials.iterations == 30
    assert trials.T == 10
    assert trials.baseline == pytest.approx(1 / 6)


def test_a_remedy_that_is_there_already_is_a_row_that_says_so(trials):
    row = next(row for row in trials.rows if row.remedy == "orthogonal")
    assert row.measured is None
    assert row.helped is False
    assert row.words == "not tried: it needs another start than the orthogonal one"


def test_a_training_that_diverges_is_a_row():
    names = ["gated-cell", "identity"]
    wild = small(optimiser="sgd", learning_rate=1e4, clip_norm=0, options={"nonlinearity": "relu"})
    found = try_remedies(wild, EMPTY, iterations=20, remedies=names)
    assert found.base.diverged is not None
    assert found.base.words == f"diverged at iteration {found.base.diverged}"
    assert found.base.measured is None
    text = shown(found)
    assert f"diverged at {found.base.diverged}" in text
    assert "nan" not in text


def test_without_a_finding_nothing_is_trained():
    found = try_remedies(small(), EMPTY)
    assert found.base is None
    assert found.rows == []
    assert "No finding names a remedy" in shown(found)


def test_the_findings_choose_at_most_four():
    finding = Finding("BP101", "vanishing", "warning", "layer0", "…", remedies=("omega", "gated-cell"))
    found = try_remedies(small(), Diagnosis("a run", {}, findings=[finding]), iterations=2)
    assert [row.remedy for row in found.rows] == ["omega", "gated-cell"]


def test_an_unknown_remedy_is_refused_before_anything_is_trained():
    with pytest.raises(UnknownName, match="remedy: got 'pills'"):
        try_remedies(small(), EMPTY, iterations=10**9, remedies=["pills"])


def test_the_sequences_have_the_validation_loss_as_their_mean(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log. " * 40)
    for config in (small(iterations=3), configure(path, hidden=8, batch=4, steps=8, iterations=3)):
        result = fit(config)
        losses = sequence_losses(result.network, open_problem(config))
        assert losses.mean() == pytest.approx(result.validation.loss, rel=1e-5)
        assert len(losses) > 1


def test_windows_of_another_length_are_measured_on_the_same_steps(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log. " * 60)
    config = configure(path, cell="gru", hidden=8, batch=4, steps=8)
    found = try_remedies(config, EMPTY, iterations=5, remedies=["larger-K"])
    assert found.T == 16
    assert found.rows[0].changes == {"steps": 16, "batch": 2}
    assert found.base.measured.horizon <= 16


def test_a_text_too_short_for_longer_windows_is_a_row(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat. " * 6)
    config = configure(path, cell="gru", hidden=4, batch=1, steps=12)
    found = try_remedies(config, EMPTY, iterations=2, remedies=["larger-K", "chrono"])
    assert found.rows[0].words.startswith("not tried: ")
    assert found.rows[1].measured is not None
    assert found.T == 12


def test_ctrl_c_shows_what_was_measured_before(monkeypatch):
    real, count = trial.fit, iter(range(9))

    def fit_twice(config, **options):
        done = real(config, **options)
        done.interrupted = next(count) == 1
        return done

    monkeypatch.setattr(trial, "fit", fit_twice)
    found = try_remedies(small(), EMPTY, iterations=2, remedies=["gated-cell", "identity"])
    assert found.interrupted
    assert found.base.measured is not None
    assert found.rows == []
    assert "stopped before the last" in shown(found)


def test_without_a_number_as_many_updates_are_made_as_fit_into_the_time(monkeypatch):
    monkeypatch.setattr(trial, "_pace", lambda run, bar: 0.25)
    monkeypatch.setattr(trial, "fit", lambda config, **options: fit(config.replace(iterations=2)))
    assert try_remedies(small(), EMPTY, remedies=["gated-cell"]).iterations == 100  # 60 s / (2 × 0.25 s), in fifties
    monkeypatch.setattr(trial, "_pace", lambda run, bar: 0.01)
    assert try_remedies(small(), EMPTY, remedies=["gated-cell"]).iterations == 1000
    monkeypatch.setattr(trial, "_pace", lambda run, bar: 9.0)
    assert try_remedies(small(), EMPTY, remedies=["gated-cell"]).iterations == 50


def test_a_terminal_is_told_what_is_tried():
    screen = Console(force_terminal=True, width=80, record=True, file=io.StringIO())
    try_remedies(small(), EMPTY, iterations=3, remedies=["gated-cell"], progress=screen)
    assert "trying" in screen.file.getvalue()


def measured(horizon, losses):
    losses = np.asarray(losses, float)
    return Measured(horizon, {"layer0.W_hh": horizon}, -0.1, 7.0, float(losses.mean()), losses)


@pytest.fixture(scope="module")
def measuring():
    config = configure("adding:100", cell="rnn", hidden=4)
    return Measuring(open_problem(config), config, 100)


NOISE = np.random.default_rng(0).standard_normal(200)


@pytest.mark.parametrize(
    ("before", "now", "helped", "words"),
    [
        ((40, 0.171 + 0.01 * NOISE), (90, 0.05 + 0.01 * NOISE), True, "helped: loss 0.17"),
        ((40, 0.171 + 0.01 * NOISE), (41, 0.05 + 0.01 * NOISE), False, "did not help (no longer reach): loss 0.17"),
        ((40, 0.1 + 0.01 * NOISE), (90, 0.0995 + 0.01 * NOISE), False, "did not help (loss not clearly lower)"),
        ((40, 0.1 + 0.2 * NOISE), (90, 0.09 - 0.2 * NOISE), False, "did not help (loss not clear"),  # by chance
        ((40, 0.19 + 0.01 * NOISE), (90, 0.17 + 0.01 * NOISE), False, "did not help (no better than a guess)"),
        ((100, 0.1 + 0.01 * NOISE), (100, 0.05 + 0.01 * NOISE), True, "helped"),  # all there is, before and after
        ((98, 0.1 + 0.01 * NOISE), (91, 0.05 + 0.01 * NOISE), True, "helped"),
        ((98, 0.1 + 0.01 * NOISE), (89, 0.05 + 0.01 * NOISE), False, "did not help (no longer reach)"),
        ((94, 0.1 + 0.01 * NOISE), (95, 0.05 + 0.01 * NOISE), False, "did not help (no longer reach)"),
    ],
)
def test_only_a_longer_reach_and_a_lower_loss_count_as_help(measuring, before, now, helped, words):
    base = Trial("unchanged", "", {}, measured=measured(*before))
    row = _judge(base, Trial("omega", "", {"omega": 1}, measured=measured(*now)), measuring)
    assert row.helped is helped
    assert row.words.startswith(words)
    assert f"reaches {before[0]} → {now[0]} of 100 steps" in row.words


def test_where_the_unchanged_training_diverged_it_is_enough_to_learn(measuring):
    base = Trial("unchanged", "", {}, diverged=7)
    good = _judge(base, Trial("clip", "", {"clip_norm": 1}, measured=measured(9, [0.1, 0.1])), measuring)
    bad = _judge(base, Trial("clip", "", {"clip_norm": 1}, measured=measured(9, [0.2, 0.2])), measuring)
    assert (good.helped, bad.helped) == (True, False)
    assert "no better than a guess" in bad.words


def shown(trials, width=140):
    screen = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with screen.file:
        screen.print(trials_table(trials))
        return screen.export_text()


def test_the_table_has_a_row_for_each_and_the_changes_in_words(trials):
    text = shown(trials)
    for word in ("unchanged", "gated-cell", "cell lstm", "nonlinearity relu", "omega 0.5", "30 iterations each"):
        assert word in text
    narrow = shown(trials, 78)
    assert max(map(len, narrow.splitlines())) <= 78
    assert "cell lstm" in narrow.replace("\n", " ")
    assert shown(trials.to_dict()) == text


def test_the_table_is_json(trials):
    back = json.loads(json.dumps(trials.to_dict()))
    assert [row["remedy"] for row in back["rows"]] == ["gated-cell", "identity", "orthogonal", "omega"]
    assert back["base"]["horizon"] == trials.base.measured.horizon

"""Runs and ledgers against each other: what is found, what is said, what is refused."""

import json
import shutil

import numpy as np
import pytest

import bptt
from bptt.cli.main import run
from bptt.errors import BpttError
from bptt.train import comparison, configure, fit
from bptt.train.metrics import read_metrics
from bptt.train.subjects import Subject

TASK = "echo:2:5:2"


def train(folder, **options):
    folder.parent.mkdir(parents=True, exist_ok=True)
    fit(configure(TASK, **{"hidden": 3, "batch": 2, "iterations": 3} | options), folder=folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for seed in range(4):
        train(root / "rnn" / f"s{seed}", cell="rnn", seed=seed)
        train(root / "lstm" / f"s{seed}", cell="lstm", seed=seed)
    train(root / "none" / "s9", cell="lstm", seed=9, probe_every=0)
    return root


def last(folder, kind):
    return [event for event in read_metrics(folder) if event["kind"] == kind][-1]


def measure(found, name):
    return next(one for one in found.measures if one.name == name)


def test_numbers_are_those_with_which_each_run_ended(runs):
    found = bptt.compare(runs / "rnn", runs / "lstm")
    losses = [last(runs / "lstm" / f"s{seed}", "end")["validation"] for seed in range(4)]
    loss = measure(found, "validation loss")
    assert list(loss.b.values) == losses
    assert (loss.b.median, loss.b.low, loss.b.high) == (np.median(losses), min(losses), max(losses))
    assert loss.b.quartiles == tuple(np.quantile(losses, [0.25, 0.75]))
    assert loss.ratio == loss.b.median / loss.a.median
    assert loss.interval[0] <= loss.ratio <= loss.interval[1]
    reach = [last(runs / "rnn" / f"s{seed}", "probe")["horizon"]["layer0.W_hh"] for seed in range(4)]
    assert list(measure(found, "horizon layer0.W_hh").a.values) == reach
    names = {"validation score", "state gain layer0", "coherence layer0.W_hh", "gradient norm", "residual"}
    assert names <= {one.name for one in found.measures}
    assert found.seeds_a == found.seeds_b == (0, 1, 2, 3)
    assert found.differs == {"cell": (("rnn",), ("lstm",))}


def test_runs_of_one_seed_are_paired_only_where_the_data_are_the_same(runs, tmp_path):
    found = bptt.compare(runs / "rnn", runs / "lstm")
    assert found.paired
    assert {one.test for one in found.measures} == {"Wilcoxon"}
    assert "4 pairs with the same seed and data" in found.notes[0]
    assert "cannot be below 0.125" in found.notes[0]
    fewer = bptt.compare(f"{runs}/rnn/s0, {runs}/rnn/s1", str(runs / "lstm" / "s*"))
    assert not fewer.paired
    assert fewer.measures[0].smallest_p == pytest.approx(2 / 15)
    assert "2 against 4 independent runs" in fewer.notes[0]
    for seed in range(2):
        fit(configure("echo:2:7:2", hidden=3, batch=2, iterations=1, seed=seed), folder=tmp_path / f"s{seed}")
    other = bptt.compare([runs / "rnn" / "s0", runs / "rnn" / "s1"], tmp_path)
    assert not other.paired
    assert other.notes[0].startswith("The data differ")


def test_one_run_each_has_no_significance(runs, capsys):
    found = bptt.compare(runs / "rnn" / "s0", runs / "lstm" / "s1")
    assert {(one.p, one.interval, one.test) for one in found.measures} == {(None, None, "")}
    assert run(["compare", str(runs / "rnn" / "s0"), str(runs / "lstm" / "s1")]) == 0
    said = capsys.readouterr().out
    assert "One run each: no significance." in said
    assert "cell rnn → lstm; all else equal but the seeds" in " ".join(said.split())


def test_a_table_and_a_document_say_the_same(runs, capsys):
    sides = [str(runs / "rnn"), str(runs / "lstm")]
    assert run(["compare", *sides, "--metric", "horizon", "--metric", "loss"]) == 0
    table = capsys.readouterr().out
    assert run(["compare", *sides, "--metric", "horizon", "--metric", "loss", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["measures"]] == ["validation loss", "horizon layer0.W_hh"]
    for one in document["measures"]:
        assert one["name"].split()[0] in table
        assert f"{one['p']:.3g}" in table
    assert "IQR" in table
    assert document["differs"] == {"cell": [["rnn"], ["lstm"]]}
    assert run(["compare", *sides, "--metric", "horizont"]) == 2
    assert "Did you mean 'horizon layer0.W_hh'?" in capsys.readouterr().err


def test_what_one_side_lacks_is_said_and_not_compared(runs):
    found = bptt.compare(runs / "rnn", runs / "none")
    assert [one.name for one in found.measures] == ["validation loss", "validation score"]
    assert any("On one side only" in note for note in found.notes)


def test_a_number_that_is_not_finite_is_not_compared(runs, tmp_path):
    copies = shutil.copytree(runs / "rnn", tmp_path / "rnn")
    path = copies / "s1" / "metrics.jsonl"
    *lines, end = path.read_text().splitlines()
    path.write_text("\n".join([*lines, json.dumps(json.loads(end) | {"validation": float("nan")})]) + "\n")
    found = bptt.compare(copies, runs / "lstm")
    loss = measure(found, "validation loss")
    assert (loss.a.n, loss.b.n, loss.smallest_p) == (3, 4, 0.25)
    assert any(note.startswith("Not every run has validation loss") for note in found.notes)


def test_ledgers_are_compared_too(runs):
    paths = [sorted((runs / cell / "s0" / "ledgers").glob("*"))[-1] for cell in ("rnn", "lstm")]
    found = bptt.compare(*paths)
    ledger = bptt.Ledger.load(paths[1])
    assert measure(found, "loss").b.values == (ledger.loss,)
    assert measure(found, "horizon layer0.W_hh").b.values == (ledger.meta["horizon"]["layer0.W_hh"],)
    assert measure(found, "coherence layer0.W_hh").b.median == ledger.coherence("W_hh")
    probe = last(runs / "lstm" / "s0", "probe")
    assert measure(found, "state gain layer0").b.median == pytest.approx(probe["state_gain"]["layer0"], rel=1e-5)
    total = np.sqrt(sum(value**2 for value in probe["gradient_norms"].values()))
    assert measure(found, "gradient norm").b.median == pytest.approx(total)


def refused(*sides):
    with pytest.raises(BpttError) as error:
        bptt.compare(*sides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_input_is_one_clear_line(runs, tmp_path):
    one = runs / "rnn" / "s0"
    assert "no such file or folder" in refused(one, tmp_path / "nothing")
    assert "no run (no config.json)" in refused(one, tmp_path)
    assert "nothing, expected a run folder" in refused(one, " , ")
    assert "no run folder and no ledger file that fits" in refused(one, str(tmp_path / "*"))
    ledger = next((one / "ledgers").glob("*"))
    assert "got a run and a ledger, expected two of a kind" in refused(one, ledger)
    assert "got runs and ledgers together" in refused([one, ledger], one)
    assert "got it twice" in refused([one, one], ledger)
    assert "got a checkpoint" in refused(one, next((one / "checkpoints").glob("*")))


def test_a_run_that_has_not_ended_or_is_being_trained_is_refused(runs, tmp_path):
    from bptt.train.folder import RunFolder

    copy = shutil.copytree(runs / "rnn" / "s0", tmp_path / "copy")
    with RunFolder(copy, resume=True):
        assert "a run that is being trained" in refused(copy, runs / "lstm")
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    (copy / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert "a run that has not ended (iteration 3 of 3)" in refused(copy, runs / "lstm")
    end = json.loads(lines[-1])
    del end["validation"]
    (copy / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(end)]) + "\n")
    assert "an end without a validation loss" in refused(copy, runs / "lstm")


def test_pairs_are_held_against_each_other_by_their_differences(monkeypatch):
    """Ranks 1 to 5 with the signs + − + − +, in whatever order the seeds come."""
    first, changes = [5.0, 9.0, 2.0, 7.0, 4.0], [0.1, -0.2, 0.3, -0.4, 0.5]

    def subjects(values, order):
        return [Subject(str(seed), "run", seed, {}, "data", {"loss": values[seed]}) for seed in order]

    sides = {"a": subjects(first, range(5))}
    sides["b"] = subjects([one + change for one, change in zip(first, changes, strict=True)], [3, 1, 4, 0, 2])
    monkeypatch.setattr(comparison, "find", sides.__getitem__)
    (measure,) = comparison.compare("a", "b").measures
    assert measure.test == "Wilcoxon"
    assert measure.p == 26 / 32  # 1 + 3 + 5 = 9, where 7.5 is the middle: 13 of 32 signs give 9 and more

"""The loop learns, carries the state between windows, and writes a run that says everything again."""

import json
import math

import numpy as np
import pytest

from bptt.engine import evaluate, gradient
from bptt.errors import DataError, FileError, InputError, NotFiniteError, UnknownName
from bptt.ledger import Ledger
from bptt.train import Config, configure, fit, load_model, read_metrics
from bptt.train.loop import make_network
from bptt.train.problem import open_problem

TEXT = "the cat sat on the mat and the dog sat on the log. " * 60


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def small(data, **options):
    defaults = {"hidden": 12, "batch": 4, "iterations": 6, "probe_every": 3, "sample_every": 3, "validate_every": 2}
    if data is None or ":" not in str(data):
        defaults["steps"] = 8
    return configure(data, **defaults | {"checkpoint_every": 2} | options)


def of_kind(events, kind):
    return [event for event in events if event["kind"] == kind]


def test_a_text_is_learnt_far_below_its_unigram_entropy(text):
    result = fit(small(text, iterations=200, hidden=32, steps=16, learning_rate=0.01))
    assert result.validation.loss < 0.3 * result.baselines["unigram entropy"]


def test_the_state_is_carried_over_and_starts_again_with_the_text(text):
    config = small(text, iterations=100, probe_every=0, dtype="float64", optimiser="sgd", learning_rate=1e-12)
    problem = open_problem(config)
    assert config.iterations > len(problem.train)
    network, states, expected = make_network(problem, config), None, []
    for i in range(config.iterations):
        if problem.train.starts_over(i):
            states = None
        losses, states = evaluate(network, problem.train.window(i), problem.loss, states)
        expected.append(losses.sum())
    found = [event["loss"] for event in of_kind(fit(config).events, "train")]
    np.testing.assert_allclose(found, expected, rtol=1e-8)  # the weights stand still, so only the state can matter


def test_a_plain_run_is_the_textbook_written_out(text):
    config = small(text, dtype="float64", optimiser="sgd", learning_rate=0.1, clip_norm=0)
    problem = open_problem(config)
    network, states = make_network(problem, config), None
    for i in range(config.iterations):
        done = gradient(network, problem.train.window(i), problem.loss, states=states)
        states = done.states
        for name, dW in done.gradients.items():
            network.params[name] = network.params[name] - 0.1 * dW
    found = fit(config).network
    for name, value in network.params.items():
        np.testing.assert_allclose(found.params[name], value, rtol=1e-12, atol=1e-15)


def test_looking_changes_no_number_of_the_training(text):
    often = fit(small(text, probe_every=1, sample_every=1, validate_every=1))
    never = fit(small(text, probe_every=0, sample_every=0, validate_every=0))
    assert of_kind(often.events, "train") == of_kind(never.events, "train")
    assert all((often.network.params[name] == value).all() for name, value in never.network.params.items())


def test_a_task_gets_fresh_batches_and_is_validated_on_others():
    result = fit(small("echo:2:10:4", iterations=4))
    losses = [event["loss"] for event in of_kind(result.events, "train")]
    assert len(set(losses)) == 4
    assert result.validation.score == pytest.approx(0.25, abs=0.15)
    problem = open_problem(result.config)
    drawn = problem.batch(0, np.random.default_rng([result.config.seed, 0]), 200)
    assert (problem.validation.batch(0).x != drawn.x).any()


def test_a_series_is_predicted_better_than_by_its_last_value(tmp_path):
    path = tmp_path / "wave.csv"
    path.write_text("day,height\n" + "".join(f"{n},{5 + 3 * math.sin(n / 3):.6f}\n" for n in range(900)))
    result = fit(small(path, columns=["height"], iterations=300, steps=16, learning_rate=0.01))
    assert result.validation.loss < 0.5 * result.baselines["same as the step before"]
    assert result.baselines["variance"] == pytest.approx(1, abs=0.3)


def test_a_run_folder_holds_what_the_documentation_says(text, tmp_path):
    run = tmp_path / "run"
    result = fit(small(text), folder=run)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "config.json", "ledgers", "lock", "metrics.jsonl",
    ]  # fmt: skip
    assert sorted(path.stem for path in (run / "ledgers").iterdir()) == [f"iteration-00000{n}" for n in (0, 3, 6)]
    assert sorted(path.stem for path in (run / "checkpoints").iterdir()) == [f"iteration-00000{n}" for n in (4, 6)]
    assert Config.from_json((run / "config.json").read_text()) == result.config
    assert read_metrics(run) == json.loads(json.dumps(result.events))


def test_the_probe_ledger_balances_and_carries_its_horizon(text, tmp_path):
    fit(small(text, dtype="float64"), folder=tmp_path / "run")
    probe = of_kind(read_metrics(tmp_path / "run"), "probe")
    ledger = Ledger.load(tmp_path / "run" / "ledgers" / "iteration-000003.safetensors")
    assert ledger.residual < 1e-12
    assert ledger.map("W_hh").shape == (8, 8)
    assert ledger.meta["horizon"] == probe[1]["horizon"]
    assert ledger.meta["iteration"] == 3
    assert probe[0]["check"] < 1e-12
    bias = probe[1]["truncation_bias"]["layer0.W_hh"]
    horizon = probe[1]["horizon"]["layer0.W_hh"]
    assert all(b <= 0.01 for b in bias[horizon - 1 :])
    assert horizon == 1 or bias[horizon - 2] > 0.01


def test_the_update_of_a_probed_iteration_is_attributed_in_full(text):
    result = fit(small(text, dtype="float64"))
    updates = of_kind(result.events, "update")
    assert updates[-1]["iteration"] == result.config.iterations  # the last too, also where no probe is due
    for event in updates:
        part = event["parameters"]["layer0.W_hh"]
        assert sum(part["shares"]) + part["carried"] + part["decay"] == pytest.approx(1, abs=1e-9)


def test_the_saved_model_is_the_trained_one_and_needs_no_data(text, tmp_path):
    result = fit(small(text), folder=tmp_path / "run")
    text.unlink()
    saved = load_model(tmp_path / "run")
    assert all((saved.network.params[name] == value).all() for name, value in result.network.params.items())
    assert saved.facts["vocabulary"] == sorted(set(TEXT))


def test_the_same_seed_gives_the_same_run_and_another_does_not(text):
    one, two, other = (fit(small(text, seed=seed)).events for seed in (0, 0, 1))
    assert one == two
    assert one != other


@pytest.mark.parametrize("plan", ["chunked:3", "windowed:3", "checkpointed:3"])
def test_every_plan_trains(text, plan):
    assert fit(small(text, plan=plan)).iteration == 6


@pytest.mark.parametrize("options", [{"cell": "rnn"}, {"cell": "gru", "options": {"reset": "before"}}, {"layers": 2}])
def test_every_cell_trains_and_comes_back(text, tmp_path, options):
    result = fit(small(text, **options), folder=tmp_path / "run")
    saved = load_model(tmp_path / "run")
    assert saved.network.describe() == result.network.describe()


def test_both_directions_train_on_a_task(tmp_path):
    fit(small("echo:2:10:4", bidirectional=True), folder=tmp_path / "run")
    assert load_model(tmp_path / "run").network.bidirectional


def test_both_directions_are_refused_where_they_would_see_the_target(text):
    with pytest.raises(InputError, match="targets that it can look at"):
        small(text, bidirectional=True)


@pytest.mark.parametrize("optimiser", [{"optimiser": "sgd", "learning_rate": 1e30}, {"learning_rate": 1e39}])
def test_an_explosion_names_the_iteration_and_keeps_the_checkpoint(text, tmp_path, optimiser):
    config = small(text, cell="rnn", options={"nonlinearity": "relu"}, clip_norm=0, **optimiser)
    with pytest.raises(NotFiniteError, match=r"iteration \d+, .*lower learning rate.*checkpoint of iteration \d"):
        fit(config, folder=tmp_path / "run")
    saved = load_model(tmp_path / "run")
    assert all(np.isfinite(value).all() for value in saved.network.params.values())


def test_no_iterations_only_look(text):
    result = fit(small(text, iterations=0))
    assert result.iteration == 0
    assert result.validation.loss > 2


def test_a_folder_in_use_by_something_else_is_left_alone(text, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    with pytest.raises(FileError, match="not empty"):
        fit(small(text), folder=tmp_path / "run")
    assert (tmp_path / "run" / "precious").read_text() == "mine"


def test_a_short_series_gets_windows_that_fit_unless_they_were_asked_for(tmp_path):
    np.save(tmp_path / "short.npy", np.arange(100.0))
    config = configure(tmp_path / "short.npy", iterations=2)
    assert (config.steps, config.batch) == (9, 8)
    assert fit(config).iteration == 2
    with pytest.raises(DataError, match="validation part"):
        fit(configure(tmp_path / "short.npy", steps=32))


def test_unknown_and_wrong_fields_are_named():
    with pytest.raises(DataError, match="hiden"):
        Config.from_json('{"hiden": 3}')
    with pytest.raises(DataError, match="int"):
        Config.from_json('{"hidden": "many"}')
    with pytest.raises(UnknownName, match="Did you mean 'hidden'"):
        configure(None, hiden=3)
    for bad in ({"batch": 0}, {"steps": -1}, {"validation": 1.0}, {"plan": "chunked"}, {"dtype": "float16"}):
        with pytest.raises(InputError):
            Config(**bad)


def test_a_config_comes_back_from_json():
    config = Config(hidden=7, cell="gru", options={"reset": "before"}, clip_norm=None, columns=["a"])
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ("ading:100", UnknownName, "Did you mean 'adding'"),
        ("nowhere/book.txt", FileError, "no such file"),
        ("book.txt", FileError, "no such file"),
        ("adding:x", DataError, "adding:steps"),
    ],
)
def test_what_is_neither_file_nor_task_is_refused(data, error, words):
    with pytest.raises(error, match=words):
        configure(data)

"""Runs and checkpoints, examined: on the batch that training would have seen next, and without a trace on the disk."""

import json
import shutil

import numpy as np
import pytest

from bptt.diagnose import Diagnosis
from bptt.engine import gradient
from bptt.errors import DamagedFile, FileError, InputError
from bptt.ledger import Ledger
from bptt.train import configure, fit
from bptt.train.config import Config
from bptt.train.examination import _windows, draw, examine, open_saved
from bptt.train.folder import RunFolder
from bptt.train.history import effective_plan, newest_ledger, read_history
from bptt.train.problem import open_problem
from bptt.train.saved import Checkpoint

TEXT = "the cat sat on the mat and the dog sat on the log. " * 60
EVERY = {"probe_every": 3, "checkpoint_every": 2, "sample_every": 0, "validate_every": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A text, a series and a task, trained for six iterations each."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cats.txt").write_text(TEXT)
    np.save(folder / "wave.npy", np.sin(np.arange(400) / 3))
    text = configure(folder / "cats.txt", hidden=6, steps=8, batch=4, iterations=6, **EVERY)
    fit(text, folder=folder / "text")
    fit(configure(folder / "wave.npy", hidden=4, steps=1, batch=2, iterations=6, **EVERY), folder=folder / "series")
    fit(configure("adding:9", cell="rnn", hidden=6, batch=40, iterations=6, jacobian_every=2, **EVERY),
        folder=folder / "task")  # fmt: skip
    return folder


@pytest.fixture
def runs(made, tmp_path):
    """A copy of them that a test may spoil. The text that the run names stays where it was."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def asked(monkeypatch):
    """What `diagnose` is asked, in place of its answer."""
    calls = []

    def stand_in(subject, batch=None, loss=None, **options):
        calls.append({"subject": subject, "batch": batch, "loss": loss, **options})
        return Diagnosis(options["source"], options["facts"], history=options["history"], notes=["a note of its own"])

    monkeypatch.setattr("bptt.diagnose.diagnose", stand_in)
    return calls


def files(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# ---- the batch -------------------------------------------------------------------------------------------------------


def test_a_task_is_examined_on_the_very_batch_that_training_would_draw_next(made):
    config = configure("adding:9", cell="rnn", hidden=6, batch=40, iterations=7, jacobian_every=2, **EVERY)
    seen = fit(config).events
    loss_of_7 = [e["loss"] for e in seen if e["kind"] == "train"][6]
    checkpoint = open_saved(made / "task").checkpoint
    problem = open_problem(checkpoint.config)
    batch, states = draw(problem, checkpoint, most=40)
    assert states is None
    ours = gradient(checkpoint.network, batch, problem.loss, engine=checkpoint.config.engine).loss
    assert ours == pytest.approx(loss_of_7, rel=1e-6)


def test_a_stream_goes_on_where_training_stopped_with_the_state_that_was_carried(made):
    """The first window's loss is that of the next iteration; the following windows are walked as one sequence."""
    checkpoint = open_saved(made / "text").checkpoint
    problem = open_problem(checkpoint.config)
    batch, states = draw(problem, checkpoint)
    assert batch.x.shape == (200, 4)
    np.testing.assert_array_equal(batch.x[:8], problem.train.window(6).x)
    np.testing.assert_array_equal(batch.x[192:], problem.train.window(30).x)
    np.testing.assert_array_equal(batch.targets[:-1], batch.x[1:])
    config = checkpoint.config.replace(iterations=7)
    next_loss = [e["loss"] for e in fit(config).events if e["kind"] == "train"][6]
    first = problem.train.window(6)
    ours = gradient(checkpoint.network, first, problem.loss, states=states, engine=config.engine).loss
    assert ours == pytest.approx(next_loss, rel=1e-6)


def test_near_the_end_of_a_stream_the_batch_begins_again_without_a_state(made):
    checkpoint = open_saved(made / "text").checkpoint
    problem = open_problem(checkpoint.config)
    checkpoint.iteration = 2 * len(problem.train) - 1  # a single window is left
    batch, states = draw(problem, checkpoint)
    np.testing.assert_array_equal(batch.x[:8], problem.train.window(0).x)
    assert states is None
    checkpoint.iteration = len(problem.train) - 3
    batch, states = draw(problem, checkpoint)
    assert len(batch.x) == 24
    assert states is not None


def test_no_more_sequences_than_asked_for_and_their_own_states(made):
    checkpoint = open_saved(made / "text").checkpoint
    problem = open_problem(checkpoint.config)
    whole, few = draw(problem, checkpoint), draw(problem, checkpoint, most=3)
    assert few.batch.x.shape == (200, 3)
    for ours, theirs in zip(few.states["layer0."], whole.states["layer0."], strict=True):
        np.testing.assert_array_equal(ours, theirs[:3])
    masked = draw(open_problem(open_saved(made / "task").checkpoint.config), open_saved(made / "task").checkpoint, 5)
    assert masked.batch.mask.shape == (9, 5)


@pytest.mark.parametrize("steps", [1, 7, 64, 99, 100, 199, 256, 257, 5000])
def test_several_windows_but_not_too_many_steps(steps):
    count = _windows(steps)
    assert count >= 1
    assert count == 1 or count * steps <= 512
    assert count > 1 or steps > 256


# ---- what is asked ---------------------------------------------------------------------------------------------------


def test_the_diagnosis_hears_of_the_run(made, asked):
    found = examine(made / "text", samples=5, seed=7, select=("BP1",), thresholds={"x": 1.0}, command="again")
    asked = asked[0]
    assert asked["subject"].describe() == "LSTM, D=14, H=6, O=14, 602 parameters"
    assert (asked["samples"], asked["seed"], asked["select"], asked["thresholds"]) == (5, 7, ("BP1",), {"x": 1.0})
    assert asked["plan"] == asked["history"].plan == "chunked:8"
    facts = found.facts
    assert {key: facts[key] for key in ("iteration", "T", "B", "dtype", "command")} == {
        "iteration": 6, "T": 200, "B": 4, "dtype": "float32", "command": "again"
    }  # fmt: skip
    assert facts["plan"] == "full, in windows of 8 steps"
    assert facts["data"].startswith("cats.txt: 3,060 characters")
    assert facts["loss"] == "cross_entropy, mean, all steps"
    assert found.notes == ["a note of its own"]
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("settings", "plan"),
    [
        ({"steps": 64}, "chunked:64"),
        ({"steps": 64, "plan": "checkpointed"}, "chunked:64"),
        ({"steps": 64, "plan": "chunked:20"}, "chunked:20"),
        ({"steps": 64, "plan": "windowed:64"}, "windowed:64"),
        ({"steps": 64, "plan": "windowed:65"}, "chunked:64"),
        ({"steps": 9, "plan": "windowed:3", "kind": "task", "data": "adding:9"}, "windowed:3"),
        ({"steps": 9, "kind": "task", "data": "adding:9"}, "full"),
    ],
)
def test_what_a_training_really_walks_back(settings, plan):
    assert effective_plan(Config(**settings)) == plan


def test_nothing_on_the_disk_is_touched_and_a_run_that_trains_can_be_examined(runs, asked):
    before = files(runs)
    with RunFolder(runs / "task", resume=True):  # locked by a training
        examine(runs / "task")
    examine(runs / "text")
    assert files(runs) == before


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(runs, asked):
    (runs / "task" / "checkpoints" / "iteration-000006.safetensors").write_bytes(b"junk" * 20)
    assert examine(runs / "task").facts["iteration"] == 4
    (runs / "task" / "checkpoints" / "iteration-000004.safetensors").write_bytes(b"junk" * 20)
    with pytest.raises(DamagedFile, match=r"iteration-000006\.safetensors"):
        examine(runs / "task")


def test_a_checkpoint_by_itself_has_no_history_and_one_of_a_run_that_up_to_it(runs, asked):
    path = runs / "task" / "checkpoints" / "iteration-000004.safetensors"
    lone = runs / "lone.safetensors"
    shutil.copy(path, lone)
    assert examine(lone).history is None
    history = examine(path).history
    assert history.train[:, 0].tolist() == [1, 2, 3, 4]
    assert history.probes.tolist() == [0, 3]


def test_an_engine_that_is_not_installed_gives_way_and_is_told_of(runs, asked, monkeypatch):
    checkpoint = open_saved(runs / "task").checkpoint
    checkpoint.config = checkpoint.config.replace(engine="compiled")
    checkpoint.save(runs / "c.safetensors")
    monkeypatch.setattr("bptt.engine.passes._missing", lambda: "no numba")
    found = examine(runs / "c.safetensors")
    assert asked[0]["engine"] == "reference"
    assert "the reference ran" in found.notes[0]
    assert examine(runs / "c.safetensors", engine="reference").notes == ["a note of its own"]


@pytest.mark.parametrize("batch", [0, 2.5, True])
def test_a_batch_that_cannot_be_is_refused(made, batch):
    with pytest.raises(InputError, match="batch: got"):
        examine(made / "task", batch=batch)


# ---- where something is missing --------------------------------------------------------------------------------------


def changed(path, checkpoint_of, data):
    """A checkpoint that names other data, in a copy of its run."""
    config = checkpoint_of.config.replace(data=str(data))
    for found in (path / "checkpoints").iterdir():
        saved = Checkpoint.load(found)
        saved.config = config
        saved.save(found)


def test_without_its_data_a_run_is_examined_by_its_newest_ledger(runs, asked):
    changed(runs / "text", open_saved(runs / "text").checkpoint, runs / "gone.txt")
    found = examine(runs / "text")
    assert isinstance(asked[0]["subject"], Ledger)
    assert asked[0]["subject"].meta["iteration"] == 6
    assert "the newest ledger was examined and not the network" in found.notes[0]
    assert "no such file" in found.notes[0]
    assert found.facts["data"] == "gone.txt"
    assert found.history.train.shape == (6, 2)
    assert found.history.baseline is None


def test_other_data_under_the_same_name_is_no_data_of_this_run(runs, asked):
    (runs / "cats.txt").write_text("another text of another cat. " * 90)
    changed(runs / "text", open_saved(runs / "text").checkpoint, runs / "cats.txt")
    found = examine(runs / "text")
    assert isinstance(asked[0]["subject"], Ledger)
    assert found.notes[0].startswith("the data, cats.txt, is not what this run was trained on")


def test_without_data_and_without_a_ledger_it_is_one_line(runs):
    changed(runs / "text", open_saved(runs / "text").checkpoint, runs / "gone.txt")
    shutil.rmtree(runs / "text" / "ledgers")
    with pytest.raises(FileError, match=r"a run whose data, gone\.txt, is gone or changed, and no ledger"):
        examine(runs / "text")
    lone = shutil.copy(runs / "text" / "checkpoints" / "iteration-000006.safetensors", runs / "lone.safetensors")
    with pytest.raises(FileError, match="a checkpoint whose data"):
        examine(lone)


def test_a_folder_that_is_no_run_and_a_file_that_is_no_checkpoint(runs):
    with pytest.raises(FileError, match=r"got no run \(no config\.json\)"):
        examine(runs)
    with pytest.raises(DamagedFile, match="got a ledger, expected a checkpoint"):
        examine(runs / "task" / "ledgers" / "iteration-000003.safetensors")
    with pytest.raises(FileError, match="no such file"):
        examine(runs / "nothing.safetensors")


# ---- history ---------------------------------------------------------------------------------------------------------


def events(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["text", "series", "task"])
def test_the_history_is_what_the_run_wrote(made, name):
    config = open_saved(made / name).checkpoint.config
    history, notes = read_history(made / name, config, baseline=0.5)
    assert notes == []
    train = [e for e in events(made / name) if e["kind"] == "train"]
    assert history.train.tolist() == [[e["iteration"], e["loss"]] for e in train]
    assert history.norms.tolist() == [e["gradient_norm"] for e in train]
    assert history.clipped.tolist() == [e["clipped"] for e in train]
    assert history.validation[:, 0].tolist() == [4, 6]
    assert history.probes.tolist() == [0, 3, 6]
    assert (history.carries, history.clip_norm, history.baseline) == (name != "task", 1.0, 0.5)
    for row, iteration in enumerate((0, 3, 6)):
        ledger = Ledger.load(made / name / "ledgers" / f"iteration-{iteration:06d}.safetensors")
        C = ledger.map("layer0.W_hh")
        by_hand = [sum(C[k, k - lag] for k in range(lag, len(C))) for lag in history.lags]
        np.testing.assert_allclose(history.profiles["layer0.W_hh"][row], by_hand, rtol=1e-6, atol=1e-12)
    newest = [e for e in events(made / name) if e["kind"] == "update"][-1]
    for parameter, facts in newest["parameters"].items():
        assert history.updates[parameter] == {"iteration": 6, **facts}
    probes = [e for e in events(made / name) if e["kind"] == "probe"]
    assert history.horizons["layer0.W_hh"].tolist() == [[e["iteration"], e["horizon"]["layer0.W_hh"]] for e in probes]


def test_exponents_are_there_where_the_run_sampled_them(made):
    task, text = (read_history(made / n, open_saved(made / n).checkpoint.config).history for n in ("task", "text"))
    found = [e for e in events(made / "task") if e["kind"] == "jacobian"]
    assert task.exponents.tolist() == [[e["iteration"], e["exponent"], e["error"]] for e in found]
    assert text.exponents is None


def test_a_line_that_was_being_written_is_left_out_and_a_damaged_log_is_noted(runs):
    path, config = runs / "task", open_saved(runs / "task").checkpoint.config
    log = (path / "metrics.jsonl").read_bytes()
    (path / "metrics.jsonl").write_bytes(log + b'{"kind": "train", "iter')
    assert len(read_history(path, config).history.train) == 6
    (path / "metrics.jsonl").write_bytes(b"no JSON\n" + log)
    history, notes = read_history(path, config)
    assert "no history" in notes[0]
    assert history.train.shape == (0, 2)
    assert len(history.probes) == 3
    (path / "metrics.jsonl").write_bytes(b'{"a": 1}\n[1]\n' + log)
    assert "lines without kind or iteration" in read_history(path, config).notes[0]
    (path / "metrics.jsonl").unlink()
    assert "no history" in read_history(path, config).notes[0]


def test_losses_that_are_no_numbers_are_left_out(runs):
    with open(runs / "task" / "metrics.jsonl", "a") as log:
        log.write('{"kind": "train", "iteration": 7, "loss": NaN, "gradient_norm": 1.0, "clipped": false}\n')
        log.write('{"kind": "validation", "iteration": 7, "loss": Infinity, "score": null}\n')
        log.write('{"kind": "jacobian", "iteration": 7, "exponent": null, "error": null}\n')
    history = read_history(runs / "task", open_saved(runs / "task").checkpoint.config).history
    assert history.train[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isfinite(history.validation).all()
    assert history.exponents[:, 0].tolist() == [2, 4, 6]


def test_a_damaged_ledger_is_left_out_and_named(runs):
    path = runs / "task" / "ledgers" / "iteration-000006.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    history, notes = read_history(runs / "task", open_saved(runs / "task").checkpoint.config)
    assert history.probes.tolist() == [0, 3]
    assert notes == ["iteration-000006.safetensors could not be read"]
    assert newest_ledger(runs / "task").meta["iteration"] == 3


def test_of_many_ledgers_some_are_opened_first_and_last_among_them(runs, monkeypatch):
    monkeypatch.setattr("bptt.train.history.LEDGERS", 2)
    assert read_history(runs / "task", open_saved(runs / "task").checkpoint.config).history.probes.tolist() == [0, 6]


def test_a_run_without_iterations_and_probes_can_be_examined(tmp_path, asked):
    fit(configure("adding:5", hidden=3, batch=2, iterations=0, probe_every=0), folder=tmp_path / "run")
    history = examine(tmp_path / "run").history
    assert history.train.shape == (0, 2)
    assert history.norms.shape == history.clipped.shape == history.probes.shape == history.lags.shape == (0,)
    assert history.profiles == {}

"""Training on either engine: the same curve, a run that knows its engine, and threads that change no byte."""

import json

import numpy as np
import pytest

from bptt.engine import passes
from bptt.engine.compiled import losses, measure, threads, totals, walk
from bptt.errors import MissingExtra
from bptt.train import configure, fit
from bptt.train.folder import read_config

TEXT = "the cat sat on the mat and the dog sat on the log. " * 60


def config_of(tmp_path, **options):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    settings = {"hidden": 16, "steps": 8, "batch": 20, "cell": "lstm", "iterations": 12}
    every = {"probe_every": 5, "sample_every": 6, "validate_every": 4, "checkpoint_every": 4}
    return configure(path, **settings | every | options)


def curve(events):
    return np.array([event["loss"] for event in events if event["kind"] == "train"])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_both_engines_learn_the_same(tmp_path, cell):
    slow, fast = (
        fit(config_of(tmp_path, cell=cell, dtype="float64", engine=engine)).events
        for engine in ("reference", "compiled")
    )
    assert len(curve(slow)) == 12
    np.testing.assert_allclose(curve(fast), curve(slow), rtol=1e-10)


def test_the_number_of_threads_changes_no_byte_of_a_run(tmp_path, monkeypatch):
    for module in (threads, walk, totals, measure, losses):
        monkeypatch.setattr(module, "WORTH", 0)
    divided, whole = [], threads.parts
    monkeypatch.setattr(walk, "parts", lambda *given: divided.append(whole(*given)) or divided[-1])
    logs = []
    for count in ("1", "3"):
        monkeypatch.setenv("BPTT_THREADS", count)
        folder = tmp_path / f"run {count}"
        fit(config_of(tmp_path, engine="compiled"), folder=folder)
        logs.append((folder / "metrics.jsonl").read_bytes())
        assert any(len(parts) > 1 for parts in divided) == (count == "3")
    assert logs[0] == logs[1]


@pytest.mark.parametrize("asked", ["auto", "compiled", "reference"])
def test_a_run_notes_its_engine_and_goes_on_with_it(tmp_path, asked):
    runs = {"auto": "compiled"}.get(asked, asked)
    config = config_of(tmp_path, engine=asked, iterations=8)
    fit(config, folder=tmp_path / "run")
    assert read_config(tmp_path / "run").engine == runs
    whole = fit(config.replace(iterations=12), folder=tmp_path / "whole").events
    more = fit(None, folder=tmp_path / "run", resume=True, iterations=12).events
    assert np.array_equal(curve(more), curve(whole)[-len(curve(more)) :])


def test_a_run_of_the_compiled_engine_does_not_go_on_without_it(tmp_path, monkeypatch):
    fit(config_of(tmp_path), folder=tmp_path / "run")
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    monkeypatch.setattr(passes, "_missing", lambda: "no numba")
    with pytest.raises(MissingExtra, match="engine 'compiled'"):
        fit(None, folder=tmp_path / "run", resume=True, iterations=20)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == before

"""The largest exponent while a network learns: noted, right, and without a trace in the training."""

import math

import numpy as np
import pytest

from bptt.diagnose.exponents import exponents
from bptt.errors import InputError
from bptt.train import configure, fit, read_metrics
from bptt.train.config import Config
from bptt.train.jacobian import JacobianSample
from bptt.train.loop import make_network
from bptt.train.probe import probe_batch
from bptt.train.problem import open_problem

OPTIONS = {"cell": "gru", "hidden": 8, "batch": 4, "iterations": 20, "probe_every": 0, "checkpoint_every": 5}


def config(**options):
    return configure("adding:30", **OPTIONS | options)


def samples(folder):
    return [event for event in read_metrics(folder) if event["kind"] == "jacobian"]


def test_a_run_notes_the_exponent_every_so_often_and_at_the_end(tmp_path):
    fit(config(jacobian_every=8), folder=tmp_path / "run")
    found = samples(tmp_path / "run")
    assert [event["iteration"] for event in found] == [8, 16, 20]
    for event in found:
        assert math.isfinite(event["exponent"])
        assert event["error"] >= 0


def test_sampling_changes_no_number_of_the_training(tmp_path):
    plain, sampled = fit(config()), fit(config(jacobian_every=3))
    for name, value in plain.network.params.items():
        assert (sampled.network.params[name] == value).all()
    assert [event for event in sampled.events if event["kind"] != "jacobian"] == plain.events


def test_a_resumed_run_has_the_samples_of_an_unbroken_one(tmp_path):
    whole = config(jacobian_every=3, engine="reference")
    fit(whole, folder=tmp_path / "whole")
    fit(whole.replace(iterations=10), folder=tmp_path / "parts")
    fit(folder=tmp_path / "parts", resume=True, iterations=20)
    after = [event for event in samples(tmp_path / "parts") if event["iteration"] > 10]
    assert after == [event for event in samples(tmp_path / "whole") if event["iteration"] > 10]


def test_the_number_is_that_of_the_first_sequences_of_the_probe():
    settings = config(jacobian_every=1, dtype="float64")
    problem = open_problem(settings)
    network, batch = make_network(problem, settings), probe_batch(problem, settings)
    few = batch._replace(x=batch.x[:, :2], targets=batch.targets[:, :2], mask=None)
    found = JacobianSample(problem, settings).look(network)
    assert found["exponent"] == pytest.approx(exponents(network, few).largest, abs=3 / 23)  # 30 steps, 7 not counted


def test_networks_without_a_number_say_null(tmp_path):
    settings = config(jacobian_every=1, cell="rnn")
    problem = open_problem(settings)
    network = make_network(problem, settings)
    network.params["layer0.W_hh"][:] = 0
    sample = JacobianSample(problem, settings)
    assert sample.look(network) == {"exponent": None, "error": None}
    network.params["layer0.W_hh"][:] = np.nan
    assert sample.look(network) == {"exponent": None, "error": None}


def test_both_directions_are_sampled_too(tmp_path):
    fit(config(jacobian_every=5, bidirectional=True), folder=tmp_path / "run")
    assert all(math.isfinite(event["exponent"]) for event in samples(tmp_path / "run"))


def test_the_setting_is_checked_and_old_runs_have_none():
    with pytest.raises(InputError, match="jacobian every: got -1, expected a whole number of at least 0"):
        Config(jacobian_every=-1)
    assert Config.from_json('{"hidden": 4}').jacobian_every == 0

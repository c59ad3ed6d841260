"""The tanh RNN does not learn to add over 100 steps and the remedy is found; the example runs, on a small scale."""

import importlib.util
from pathlib import Path

from bptt.diagnose import Diagnosis
from bptt.diagnose.remedies import REMEDIES
from bptt.train import configure, try_remedies

EXAMPLE = Path(__file__).parents[2] / "examples" / "remedies.py"


def test_adding_over_100_steps_is_helped_by_a_gated_cell_with_a_longer_reach_and_a_lower_loss():
    config = configure("adding:100", cell="rnn")
    found = try_remedies(config, Diagnosis("a run", {}), iterations=400, remedies=["gated-cell"])
    before, now = found.base.measured, found.rows[0].measured
    assert found.helped == found.rows
    assert before.loss > 0.95 / 6
    assert now.loss < 0.08
    assert before.horizon < 50
    assert now.horizon > 80
    assert now.slope > before.slope


def test_the_example_tries_every_remedy_that_there_is():
    spec = importlib.util.spec_from_file_location("example_remedies", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = example.main(steps=24, iterations=4, seeds=(0,))
    tried = {row["remedy"] for trials in found.values() for one in trials for row in one["rows"]}
    assert tried == set(REMEDIES)
    rows = [row for trials in found.values() for one in trials for row in one["rows"]]
    assert all(row["loss"] is not None for row in rows), [row["words"] for row in rows]

"""No false alarm: models of many kinds with nothing wrong give no finding, and reach as far as their values do."""

import importlib.util
from pathlib import Path

import pytest
import torch

import bptt
from bptt.trace.torch.factory import given, load

FILE = Path(__file__).parent / "audited" / "healthy_models.py"
spec = importlib.util.spec_from_file_location("healthy_models_to_audit", FILE)
healthy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(healthy)


@pytest.mark.parametrize("make", healthy.MODELS, ids=lambda make: make.__name__)
def test_nothing_is_found_where_nothing_is_wrong(make):
    torch.manual_seed(1)
    made = given(make())
    found = bptt.audit(made.model, made.batch, made.losses, step=made.step)
    assert found.ok, str(found)
    assert found.reach == found.values_reach >= 3, str(found)
    assert max(row.error for row in found.rows if row.verdict == "right") < 1e-6


def test_there_are_twenty_of_them():
    assert len(healthy.MODELS) >= 20
    assert load(f"{FILE}:fused_rnn").batch.shape == (6, 2, 3)

"""The check that comes with every compiled ledger: rounding where the gradient is right, and large where it is not.

It is a random direction (Freivalds 1977), drawn anew for nobody: the same for every run, so that it repeats itself.
"""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given

from bptt.engine import record
from bptt.engine.compiled import totals
from oracles.bridge import call, recorded
from oracles.problems import CELLS, make_problem, problems

PLANS = ("full", "chunked", "windowed")
ROUNDING = {np.float32: 1e-5, np.float64: 1e-13}  # of the sum's terms; worst of 1,000 problems: 1.6e-6, 2.1e-15


def with_gradients(change, problem, dtype=np.float64, **options):
    """The ledger of an engine that adds up to something else: name → dW becomes change(name, dW)."""
    right = totals.Totals.gradients

    def wrong(self):
        return {name: change(name, value).astype(value.dtype) for name, value in right(self).items()}

    with mock.patch.object(totals.Totals, "gradients", wrong):
        return recorded(problem, dtype, engine="compiled", **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(problem=problems(cuts=PLANS, max_B=16, max_H=20, max_D=20, scales=(0.3,)))
def test_a_right_gradient_has_a_residual_of_rounding(dtype, problem):
    ledger = recorded(problem, dtype, engine="compiled", keep="norms")
    assert ledger.residuals.keys() == problem.params.keys()
    for name, residual in ledger.residuals.items():
        terms, dW = np.linalg.norm(ledger.sequence_norms(name)), np.linalg.norm(ledger.gradient(name))
        assert residual * dW <= ROUNDING[dtype] * terms, name


def assert_seen(change, problem):
    """The residual is a random measure of the error, not a bound: about as large, and rarely much smaller."""
    right, lossy = recorded(problem, keep="factors"), with_gradients(change, problem, keep="norms")
    ratios = []
    for name in right.names:
        wrong = lossy.gradient(name)
        wrong_by = np.linalg.norm(wrong - right.gradient(name)) / np.linalg.norm(wrong)
        if wrong_by > 1e-12:
            ratios.append(lossy.residuals[name] / wrong_by)
            assert 1e-4 < ratios[-1] < 10, name
    return ratios


@pytest.mark.parametrize("B", [1, 3, 14])
@pytest.mark.parametrize("outputs", [1, 2, 3, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_a_lost_step_is_seen_in_every_parameter(cell, outputs, B):
    loss = "cross_entropy" if outputs > 1 else "squared_error"
    problem = make_problem(cell, T=5, B=B, D=3, H=4, O=outputs, scale=0.4, loss=loss)
    right = recorded(problem, keep="factors")
    assert len(assert_seen(lambda name, dW: dW - right.step_gradient(name, 4), problem)) >= 2, "dead units have no say"


@pytest.mark.parametrize("cell", CELLS)
def test_one_wrong_column_or_row_is_seen(cell):
    for at in (np.s_[..., -1], np.s_[0]):

        def change(name, dW, at=at):
            dW = dW.copy()
            dW[at] *= 1.001
            return dW

        assert len(assert_seen(change, make_problem(cell, T=4, B=2, D=3, H=4, O=3, scale=0.4))) >= 3


@pytest.mark.parametrize("keep", ["norms", "factors", "full"])
@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1, 1e100, 1e200])
def test_a_tiny_or_huge_gradient_is_checked_as_any_other_whatever_is_kept(scale, keep):
    problem = make_problem("lstm", T=4, B=3, scale=0.4, loss="squared_error", reduction="sum", mask="weights")
    problem.mask[:] = scale
    assert 0 < recorded(problem, engine="compiled", keep=keep).residual < 1e-14
    half = with_gradients(lambda name, dW: dW / 2, problem, keep=keep)
    assert all(0.01 < residual < 10 for residual in half.residuals.values())


def test_ids_are_checked_too():
    problem = make_problem("gru after", T=6, B=4, D=5, ids=True)
    assert recorded(problem, engine="compiled", keep="norms").residual < 1e-14

    def change(name, dW):
        return np.roll(dW, 1, 0) if name == "layer0.W_xh" else dW

    assert with_gradients(change, problem, keep="norms").residuals["layer0.W_xh"] > 1e-2


def test_the_check_repeats_itself_and_does_not_depend_on_threads():
    arguments, named = call(make_problem("lstm", T=70, B=20), np.float32)
    one, two = (record(*arguments, engine="compiled", threads=n, keep="norms", **named).residuals for n in (1, 2))
    assert one == two

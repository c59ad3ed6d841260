"""Losses: values and derivatives against the oracle, and what each step counts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.errors import InputError, UnknownName
from bptt.model import Batch, Loss
from bptt.model.losses import KINDS
from oracles.equations import LOSS, loss_weights
from oracles.problems import problems


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 99), st.integers(1, 4))
def test_values_and_derivatives_are_those_of_the_formula(kind, seed, O):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((2, 3, O))
    targets = rng.integers(0, O, (2, 3)) if kind == "cross_entropy" else rng.standard_normal((2, 3, O))
    values, dl = KINDS[kind](y, targets)
    for at in np.ndindex(2, 3):
        assert values[at] == pytest.approx(LOSS[kind](y[at][None], targets[at])[0], rel=1e-14, abs=1e-15)
        moved = y[at][None] + 1e-30j * np.eye(O)
        assert dl[at] == pytest.approx(LOSS[kind](moved, targets[at]).imag / 1e-30, rel=1e-13, abs=1e-15)


@given(problems())
def test_weights_say_what_each_step_counts(problem):
    loss = Loss(problem.loss, problem.reduction, problem.steps)
    batch = Batch(problem.x, problem.targets, problem.lengths, problem.mask)
    assert loss.weights(batch, problem.width) == pytest.approx(np.array(loss_weights(problem)), rel=1e-14, abs=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions_are_pytorchs(reduction):
    rng = np.random.default_rng(0)
    y, classes, values = rng.standard_normal((3, 2, 4)), rng.integers(0, 4, (3, 2)), rng.standard_normal((3, 2, 4))
    x = np.zeros((3, 2, 1))
    ours = []
    for kind, targets in (("cross_entropy", classes), ("squared_error", values)):
        loss = Loss(kind, reduction)
        ours.append(loss.evaluate(y, targets, loss.weights(Batch(x, targets), 4)).per_step.sum())
    flat = torch.tensor(y).reshape(-1, 4)
    theirs = [
        torch.nn.functional.cross_entropy(flat, torch.tensor(classes).flatten(), reduction=reduction).item(),
        torch.nn.functional.mse_loss(torch.tensor(y), torch.tensor(values), reduction=reduction).item(),
    ]
    assert ours == pytest.approx(theirs, rel=1e-14)


def test_logits_of_a_thousand_do_not_overflow():
    values, dl = KINDS["cross_entropy"](np.array([[[1000.0, 0.0], [-1000.0, 0.0]]]), np.array([[0, 0]]))
    assert values.tolist() == [[0.0, 1000.0]]
    assert dl.tolist() == [[[0.0, 0.0], [-1.0, 1.0]]]


def test_what_a_mask_may_not_hold_is_named():
    batch = Batch(np.zeros((2, 2, 1)), np.zeros((2, 2), int))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="mask: got values below 0 or not finite, expected weights of 0 or more"):
            Loss().weights(batch._replace(mask=np.array([[1, 1], [1, bad]])), 2)
    with pytest.raises(InputError, match="loss: got every step masked, expected at least one step that counts"):
        Loss().weights(batch._replace(mask=np.zeros((2, 2))), 2)
    late = np.array([[1.0, 1.0], [0.0, 0.0]])
    with pytest.raises(InputError, match="every step masked"):
        Loss(steps="last").weights(batch._replace(mask=late), 2)


def test_a_mask_scales_out_of_a_mean():
    batch = Batch(np.zeros((2, 1, 1)), np.zeros((2, 1), int), mask=np.array([[2.0], [6.0]]))
    assert Loss().weights(batch, 3).tolist() == [[0.25], [0.75]]
    assert Loss(reduction="sum").weights(batch, 3).tolist() == [[2.0], [6.0]]
    assert Loss("squared_error").weights(batch, 2).tolist() == [[0.125], [0.375]]


def test_unknown_choices_are_named_with_the_nearest():
    for given_, line in [
        ({"kind": "cross-entropy"}, r"loss: got 'cross-entropy', .* Did you mean 'cross_entropy'\?"),
        ({"reduction": "means"}, r"reduction: got 'means', .* Did you mean 'mean'\?"),
        ({"steps": "lasts"}, r"loss steps: got 'lasts', .* Did you mean 'last'\?"),
    ]:
        with pytest.raises(UnknownName, match=line):
            Loss(**given_)

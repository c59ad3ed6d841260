"""Fused layers of torch, of every sort: a traced step is the untraced one, and dW_t is the gradient of an untied copy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import bptt
from oracles.fused_cases import Built, cases

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch's own
LIMITS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 0.05}


def worst(found, wanted):
    """The largest difference of any number, relative to the largest of its kind and to the gradient as a whole."""
    scale = max(float(np.abs(np.asarray(w, dtype=np.float64)).max(initial=0)) for w in wanted)
    pairs = zip(found, wanted, strict=True)
    return max(
        float(np.abs(np.asarray(f, np.float64) - np.asarray(w, np.float64)).max(initial=0)) for f, w in pairs
    ) / (scale or 1.0)


def numbers(tensor):
    return tensor.detach().double().numpy() if tensor.dtype.is_floating_point else tensor.numpy()


def check_step(case, built, plain, traced):
    limit = LIMITS[case.dtype]
    assert plain.keys() == traced.keys()
    assert torch.equal(plain.pop("random"), traced.pop("random"))
    for name, value in plain.items():
        assert value.dtype == traced[name].dtype, name
        assert value.shape == traced[name].shape, name
    for sort in ("y", "end", "d", "losses"):
        names = [name for name in plain if name.startswith(sort) and (sort != "d" or name not in ("losses",))]
        error = worst([numbers(traced[n]) for n in names], [numbers(plain[n]) for n in names])
        assert error <= limit, (sort, error)


def check_uses(case, built, ledger, twin, losses):
    limit = LIMITS[case.dtype]
    copies = list(twin.copies.items())
    slopes = torch.autograd.grad(losses.sum(), [c for _, c in copies], retain_graph=True, allow_unused=True)
    wanted = [np.zeros(c.shape) if g is None else numbers(g) for (_, c), g in zip(copies, slopes, strict=True)]
    found = [ledger.step_gradients(f"rnn.{name}") for name, _ in copies]
    error = worst(found, wanted)
    assert error <= limit, error
    assert ledger.residual <= limit, ledger.residual
    check_states(case, built, ledger, twin, losses)


def check_states(case, built, ledger, twin, losses):
    keys = [(f"rnn.l{layer}" + ("_reverse." if way else "."), parts) for (layer, way), parts in twin.bumps.items()]
    assert sorted(ledger.states) == sorted(key for key, _ in keys)
    flat = [bump for _, parts in keys for bump in parts]
    slopes = torch.autograd.grad(losses.sum(), flat, retain_graph=True, allow_unused=True)
    wanted = [np.zeros(b.shape) if g is None else numbers(g) for b, g in zip(flat, slopes, strict=True)]
    found = [part for key, _ in keys for part in ledger.state_parts[key]]
    error = worst(found, wanted)
    assert error <= LIMITS[case.dtype], error


def hold(case):
    """Everything, for one case."""
    built = Built(case)
    plain = built.step()
    before = dict(vars(built.net.rnn))
    with bptt.trace(built.net, engine=case.engine) as trace:
        traced = built.step()
    assert dict(vars(built.net.rnn)) == before
    check_step(case, built, plain, traced)
    twin, losses = built.untied()
    check_uses(case, built, trace.ledger, twin, losses)


@settings(max_examples=60)
@given(cases())
def test_a_traced_step_is_the_untraced_one_and_each_dW_t_that_of_an_untied_copy(case):
    hold(case)


@settings(max_examples=12)
@given(cases(dtypes=("bfloat16",), engines=("torch", "compiled")))
def test_bfloat16_agrees_to_its_rounding(case):
    hold(case)


@settings(max_examples=20)
@given(cases())
def test_every_loss_alone_is_one_backward_pass_over_the_untied_layer(case):
    built = Built(case)
    plain = built.step()
    at = None if case.seed % 2 else [1 + (case.seed + 3 * k) % case.T for k in range(case.T)]
    with bptt.trace(built.net, engine=case.engine, keep="full", map=True) as trace:
        traced = built.step(lambda losses: trace.backward(losses, at=at))
    check_step(case, built, plain, traced)
    twin, losses = built.untied()
    check_uses(case, built, trace.ledger, twin, losses)
    names = list(twin.copies)
    for k in range(case.T):
        slopes = torch.autograd.grad(losses[k], list(twin.copies.values()), retain_graph=True, allow_unused=True)
        wanted = [
            np.zeros(c.shape) if g is None else numbers(g) for c, g in zip(twin.copies.values(), slopes, strict=True)
        ]
        found = [trace.ledger.contributions(f"rnn.{name}")[k] for name in names]
        scale = max(np.abs(trace.ledger.gradient(f"rnn.{name}")).max() for name in names) or 1.0
        for f, w, name in zip(found, wanted, names, strict=True):
            assert np.abs(f - w).max() <= LIMITS[case.dtype] * max(scale, np.abs(w).max())
            norms = np.sqrt((w.reshape(len(w), -1) ** 2).sum(1))
            assert np.abs(trace.ledger.map(f"rnn.{name}")[k] - norms).max() <= 3 * LIMITS[case.dtype] * max(
                scale, norms.max()
            )

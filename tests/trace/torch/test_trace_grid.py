"""Fused layers of torch, of every sort: a traced step is the untraced one, and dW_t that of an untied copy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import bptt
from oracles.fused_cases import Built, cases
from oracles.untied_torch import Untied

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


class Stacked(torch.nn.Module):
    """Two fused layers with other layers between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.below, self.between = (
            torch.nn.LSTM(2, 3, proj_size=2),
            torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3), torch.nn.Tanh()),
        )
        self.above = torch.nn.GRU(3, 2, bidirectional=True)
        self.double()

    def forward(self, x):
        return self.above(self.between(self.below(x)[0]))[0]


@pytest.mark.parametrize("engine", ["compiled", "torch"])
@pytest.mark.parametrize("keep", ["factors", "full"])
def test_losses_of_stacked_layers_are_asked_one_by_one(engine, keep):
    """Fewer losses than steps, standing at steps of their own."""
    model, T, B, at = Stacked(), 5, 2, [2, 5, 5]
    x = torch.randn(T, B, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def losses(y):
        return torch.stack([(y[1] ** 2).sum(), (y[4] * y[0]).sum(), y[3:].exp().sum()])

    with bptt.trace(model, map=True, keep=keep, engine=engine) as trace:
        trace.backward(losses(model(x)), at=at)
    ledger = trace.ledger
    assert ledger.loss_steps.tolist() == at
    below, above = Untied(model.below, T, B), Untied(model.above, T, B)
    inner, _ = below.run(list(x.unbind(1)), [torch.zeros(1, B, n, dtype=x.dtype) for n in (2, 3)], [T] * B)
    middle = model.between(torch.stack(inner, 1))
    y, _ = above.run(list(middle.unbind(1)), [torch.zeros(2, B, 2, dtype=x.dtype)], [T] * B)
    alone = losses(torch.stack(y, 1))
    assert np.abs(ledger.losses - alone.detach().numpy()).max() <= 1e-12
    for prefix, twin in (("below.", below), ("above.", above)):
        for name, copies in twin.copies.items():
            table = np.stack([torch.autograd.grad(loss, copies, retain_graph=True)[0].numpy() for loss in alone])
            scale = np.abs(table).max()
            assert np.abs(ledger.step_gradients(prefix + name) - table.sum(0)).max() <= 1e-12 * scale
            norms = np.sqrt((table.reshape(3, T, -1) ** 2).sum(-1))
            assert np.abs(ledger.map(prefix + name) - norms).max() <= 1e-12 * scale * 3
            if keep == "full":
                assert np.abs(ledger.contributions(prefix + name) - table).max() <= 1e-12 * scale


class Skipping(torch.nn.Module):
    """Two fused layers; the lower one's output goes past the upper one too, to the same loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.below, self.above = torch.nn.GRU(2, 3), torch.nn.LSTM(3, 3)
        self.double()

    def forward(self, x):
        lower = self.below(x)[0]
        return lower + self.above(lower)[0]


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_a_loss_that_reaches_a_layer_on_two_ways_is_asked_of_both(engine):
    model, T, B = Skipping(), 5, 2
    x = torch.randn(T, B, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with bptt.trace(model, map=True, keep="full", engine=engine) as trace:
        trace.backward((model(x) ** 2).sum((1, 2)))
    lower = Untied(model.below, T, B)
    inner, _ = lower.run(list(x.unbind(1)), [torch.zeros(1, B, 3, dtype=x.dtype)], [T] * B)
    middle = torch.stack(inner, 1)
    alone = ((middle + model.above(middle)[0]) ** 2).sum((1, 2))
    for name, copies in lower.copies.items():
        table = np.stack([torch.autograd.grad(loss, copies, retain_graph=True)[0].numpy() for loss in alone])
        assert np.abs(trace.ledger.contributions(f"below.{name}") - table).max() <= 1e-12 * np.abs(table).max()

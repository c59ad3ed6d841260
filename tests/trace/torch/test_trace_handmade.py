"""Models by hand, in every form that a product is written in: bit for bit the same step, and dW_t of an untied copy."""

import numpy as np
import pytest
import torch

import bptt
from oracles.handmade import MODELS, B, Copies, D, Hand, T, numbers


def losses_of(outs):
    return torch.stack([(numbers(*y.shape, seed=70 + t, dtype=y.dtype) * (y + y**2)).sum() for t, y in enumerate(outs)])


def step(model, x, backward=lambda losses: losses.sum().backward()):
    """Every number a step leaves."""
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    outs = model(x)
    backward(losses_of(outs))
    found = [*outs, *(p.grad for p in model.parameters()), *([] if x.grad is None else [x.grad])]
    return [a.detach().clone() for a in found]


def untied(model, x):
    """(name → copies), and every loss."""
    copies = Copies(model)
    return copies.of, losses_of(model.run(copies.use, x))


def slopes(loss, copies):
    found = torch.autograd.grad(loss, copies, retain_graph=True, allow_unused=True)
    return np.stack([np.zeros(c.shape) if g is None else g.numpy() for g, c in zip(found, copies, strict=True)])


def close(found, wanted, limit=1e-12):
    return found.shape == wanted.shape and np.abs(found - wanted).max() <= limit * max(np.abs(wanted).max(), 1e-300)


@pytest.mark.parametrize("name", MODELS)
def test_a_traced_step_has_the_same_bits_and_dW_t_is_that_of_an_untied_copy(name):
    model, x = Hand(name), numbers(T, B, D, seed=30)
    plain = step(model, x)
    with bptt.trace(model) as trace:
        traced = step(model, x)
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))
    ledger, (copies, losses) = trace.ledger, untied(model, x)
    assert ledger.residual <= 1e-12
    assert {n: ledger.steps(n) for n in ledger.names} == {n: len(c) for n, c in copies.items() if len(c) > 1}
    for n in ledger.names:
        wanted = slopes(losses.sum(), copies[n])
        assert close(ledger.step_gradients(n), wanted), n
        assert close(ledger.gradient(n), wanted.sum(0)), n


@pytest.mark.parametrize("name", MODELS)
def test_every_loss_alone_is_one_backward_pass_over_the_untied_model(name):
    model, x = Hand(name), numbers(T, B, D, seed=30)
    plain = step(model, x)
    with bptt.trace(model, keep="full", map=True) as trace:
        traced = step(model, x, trace.backward)
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))
    ledger, (copies, losses) = trace.ledger, untied(model, x)
    assert ledger.names
    for n in ledger.names:
        for k in range(T):
            wanted = slopes(losses[k], copies[n])
            assert close(ledger.contributions(n)[k], wanted), (n, k)
            assert close(ledger.map(n)[k], np.sqrt((wanted**2).reshape(len(wanted), -1).sum(1))), (n, k)


@pytest.mark.parametrize("name", MODELS)
def test_norms_alone_are_those_of_the_untied_copies(name):
    model, x = Hand(name, torch.float32), numbers(T, B, D, seed=30, dtype=torch.float32)
    plain = step(model, x)
    with bptt.trace(model, keep="norms") as trace:
        traced = step(model, x)
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))
    copies, losses = untied(model, x)
    for n in trace.ledger.names:
        wanted = slopes(losses.sum(), copies[n])
        assert close(trace.ledger.norms(n), np.sqrt((wanted**2).reshape(len(wanted), -1).sum(1)), 1e-5), n
    assert trace.ledger.residual <= 1e-5

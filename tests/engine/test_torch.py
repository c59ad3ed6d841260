"""PyTorch's autograd as a third opinion, float64."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.engine import Chunked, Windowed, gradient
from oracles.bridge import call, error, recorded
from oracles.equations import loss_weights
from oracles.problems import CELLS, make_problem, problems
from oracles.torch_twin import Twin

TORCH_HAS = tuple(name for name in CELLS if name not in ("gru before", "lstm peepholes", "lstm both"))


def twins(**more):
    """Problems that torch.nn can pose too: its projection is narrower than the state."""
    return problems(cells=TORCH_HAS, **more).filter(lambda p: p.options.get("projection", 0) < p.hidden)


def torch_pass(problem):
    """L_k, and a function from a scalar to its gradients under our names, by x and by the initial states."""
    twin = Twin(problem)
    x, start = twin.inputs(), twin.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks that projections take its slower path
        losses = twin.losses(twin(x, start), np.array(loss_weights(problem)))

    def gradients(of):
        wanted = [*twin.pairs().values(), x, *start]
        found = torch.autograd.grad(of, wanted, retain_graph=True, allow_unused=True)
        found = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
        count = len(twin.pairs())
        return twin.to_ours(found[:count]), found[count].numpy(), [part.numpy() for part in found[count + 1 :]]

    return losses, gradients


@given(twins())
def test_gradient_is_what_autograd_returns(engine, problem):
    losses, gradients = torch_pass(problem)
    params, dx, dstart = gradients(losses.sum())
    arguments, named = call(problem)
    done = gradient(*arguments, engine=engine, **named)
    theirs = losses.detach().numpy()
    assert np.abs(done.losses - theirs).max() < 1e-12 * max(1, theirs.max())
    scale = max(np.abs(value).max() for value in params.values())
    assert params.keys() == done.gradients.keys()
    for name, value in params.items():
        assert error(done.gradients[name], value, scale=scale) < 1e-12, name
    if problem.x.ndim == 3:
        assert error(done.dx, dx) < 1e-12
    for i, prefix in enumerate(problem.states):
        for ours, theirs in zip(done.dstates[prefix], dstart, strict=True):
            assert np.abs(ours - theirs[i]).max() < 1e-12 * max(1, np.abs(theirs).max()), prefix


@given(twins(max_T=4))
def test_loss_gradient_is_what_autograd_returns_for_one_loss(engine, problem):
    """The rows of the table, by T backward calls."""
    losses, gradients = torch_pass(problem)
    ledger = recorded(problem, engine=engine)
    for k in range(problem.T):
        params, _, _ = gradients(losses[k])
        scale = max(np.abs(value).max() for value in params.values())
        for name, value in params.items():
            assert np.abs(ledger.loss_gradient(name, k + 1) - value).max() <= 1e-12 * scale, (name, k)


@pytest.mark.parametrize("cell", TORCH_HAS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_every_module_of_torch_in_a_larger_size(engine, cell, layers, bidirectional):
    problem = make_problem(
        cell, T=11, B=5, D=4, H=7, O=3, layers=layers, bidirectional=bidirectional, lengths=(11, 3, 7, 1, 10), scale=0.4
    )
    losses, gradients = torch_pass(problem)
    params, dx, _ = gradients(losses.sum())
    arguments, named = call(problem)
    done = gradient(*arguments, engine=engine, **named)
    for name, value in params.items():
        assert error(done.gradients[name], value) < 1e-12, name
    assert error(done.dx, dx) < 1e-12


def by_hand(problem, K, windowed):
    """Truncated BPTT as one writes it in PyTorch: the state is detached, and autograd does the rest."""
    twin = Twin(problem)
    x, weights = twin.inputs().detach(), torch.tensor(np.array(loss_weights(problem)))
    targets = torch.tensor(problem.targets)
    pack = (lambda s: tuple(s)) if problem.kind == "lstm" else (lambda s: s[0])
    unpack = (lambda s: list(s)) if problem.kind == "lstm" else (lambda s: [s])

    def stretch(first, last, s):
        h, s = twin.cells(x[first:last], pack(s))
        return twin.readout(h), [part.detach() for part in unpack(s)]

    def loss_at(y, k):
        each = torch.nn.functional.cross_entropy(y, targets[k], reduction="none")
        return (weights[k] * each).sum()

    total, T = 0, problem.T
    state = [part.detach() for part in twin.start()]
    if not windowed:
        for first in range(0, T, K):
            y, state = stretch(first, min(first + K, T), state)
            total = total + sum(loss_at(y[k - first], k) for k in range(first, min(first + K, T)))
    else:
        states = [state]
        for t in range(T):
            states.append(stretch(t, t + 1, states[-1])[1])
        for k in range(T):
            first = max(0, k - K + 1)
            total = total + loss_at(stretch(first, k + 1, states[first])[0][-1], k)
    return twin.to_ours(torch.autograd.grad(total, list(twin.pairs().values())))


@given(
    st.sampled_from(["rnn tanh", "gru after", "lstm"]),
    st.integers(1, 5),
    st.integers(1, 2),
    st.integers(0, 99),
    st.sampled_from(["mean", "sum"]),
)
def test_truncated_plans_are_what_detach_does(engine, cell, K, layers, seed, reduction):
    problem = make_problem(cell, seed=seed, T=5, layers=layers, reduction=reduction)
    arguments, named = call(problem)
    for plan, windowed in ((Chunked(K), False), (Windowed(K), True)):
        ours = gradient(*arguments, engine=engine, **(named | {"plan": plan})).gradients
        for name, value in by_hand(problem, K, windowed).items():
            assert error(ours[name], value) < 1e-12, (plan, name)

"""Ledgers of other models, made by hand from a whole table C[k, t], so that brute force can answer beside them."""

import numpy as np
from hypothesis import strategies as st

from bptt.ledger import Ledger, Place, reductions
from bptt.uses import Linear, Ready

GATES = ("i", "f")
NAMES = {"linear": "cell.weight_ih", "ready": "cell.weight_hh", "ready bias": "cell.bias", "ready number": "cell.scale"}


def of_losses(kind, rng, K, T):
    """A use as K losses see it, and its table C (K, T, *shape of W): sums over the sequences, written out."""
    B, M, N = rng.integers(1, 4), rng.integers(1, 5), 2 * rng.integers(1, 4)
    if kind == "linear":
        z, delta = rng.standard_normal((T, B, M)), rng.standard_normal((K, T, B, N))
        return Linear(z, delta), (delta[..., :, None] * z[..., None, :]).sum(2)
    C = rng.standard_normal((K, T, *{"ready": (N, M), "ready bias": (N,), "ready number": ()}[kind]))
    return Ready(C), C


def ledger_of(tables, *, full=True, loss_steps=None, reverse=False, states=None):
    """The ledger of {kind: (use, C)}."""
    names = {NAMES[kind]: pair for kind, pair in tables.items()}
    K = len(next(iter(tables.values()))[1])
    key = next(iter(states), "") if states else ""
    return Ledger(
        {"network": "by hand", "keep": "full" if full else "factors", "B": 2},
        np.arange(1.0, K + 1),
        {name: C.sum((0, 1)) for name, (_, C) in names.items()},
        {name: Place(key, reverse, GATES if C.ndim > 2 else (), 0) for name, (_, C) in names.items()},
        {key: reverse} if key else {},
        states or {},
        uses={name: reductions.over_losses(use) for name, (use, _) in names.items()},
        loss_uses={name: use for name, (use, _) in names.items()} if full else {},
        maps={name: size_of(C, 2) for name, (_, C) in names.items()} if full else {},
        loss_steps=None if loss_steps is None else np.array(loss_steps),
    )


def size_of(a, lead):
    return np.sqrt(np.square(a).reshape(*a.shape[:lead], -1).sum(-1))


def close(ours, theirs):
    assert np.shape(ours) == np.shape(theirs)
    assert np.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@st.composite
def cases(draw):
    """Tables of several parameters, each with its own number of uses where the losses are not in step with them."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    T = draw(st.integers(1, 5))
    aligned = draw(st.booleans())
    K = T if aligned else draw(st.integers(1, T))
    at = None if aligned else sorted(int(step) for step in rng.integers(1, T + 1, K))
    kinds = draw(st.lists(st.sampled_from(list(NAMES)), min_size=1, max_size=4, unique=True))
    return {kind: of_losses(kind, rng, K, T) for kind in kinds}, at, draw(st.booleans())


def asked(name, C):
    """What may be asked for, and its own table: the parameter, and each of its gates, which are rows."""
    yield name, C
    if C.ndim > 2:
        half = C.shape[2] // 2
        yield f"{name}.i", C[:, :, :half]
        yield f"{name}.f", C[:, :, half:]


def different_uses(seed=0, **options):
    """A layer used at 5 steps under one loss, a readout that is used once, and a number used three times."""
    rng = np.random.default_rng(seed)
    tables = {kind: of_losses(kind, rng, 1, T) for kind, T in (("linear", 5), ("ready", 1), ("ready number", 3))}
    return ledger_of(tables, **options), {NAMES[kind]: C for kind, (_, C) in tables.items()}


def check_steps(ledger, name, C):
    steps, dW = C.sum(0), C.sum((0, 1))
    flat = steps.reshape(len(steps), -1)
    norms = np.linalg.norm(flat, axis=1)
    assert ledger.steps(name) == len(steps)
    close(ledger.gradient(name), dW)
    close(ledger.step_gradients(name), steps)
    close(ledger.step_gradient(name, len(steps)), steps[-1])
    close(ledger.norms(name), norms)
    close(ledger.coherence(name), np.linalg.norm(dW) / norms.sum())
    close(ledger.cosines(name), flat @ flat.T / np.outer(norms, norms))
    ours, theirs = ledger.shares(name) * np.square(dW).sum(), flat @ dW.ravel()
    close(ours, theirs)


def check_losses(ledger, name, C):
    K, T = C.shape[:2]
    assert ledger.K == K
    close(ledger.contributions(name), C)
    close(ledger.map(name), size_of(C, 2))
    for k in range(1, K + 1):
        close(ledger.loss_gradient(name, k), C[k - 1].sum(0))
        close(ledger.contribution(name, k, T), C[k - 1, T - 1])

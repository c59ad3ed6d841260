"""Products of many matrices, kept as Q · diag(eˡ) · U so that nothing over- or underflows and no small part is lost.

Q has orthonormal columns, l holds one logarithm for each of them, and the rows of U have a largest entry of 1. One more
factor A is a QR decomposition: (A Q) diag(eˡ) U = Q' (R diag(eˡ) U), where every row i of the bracket is divided by its
own size, and sees the others only as e^(l_m − l_i) ≤ 1, as l is kept descending.

Singular values of diag(eˡ) U come from the QR algorithm on transposes: Uᵀ = V R turns D U into D Rᵀ, whose transpose is
graded again, D' U', with U' closer to the identity by the ratio of neighbouring singular values. Where neighbours are
too close for that, their block is small in range, and NumPy's SVD finishes it. Each singular value keeps its own digits
over any range (Stewart 1995, "On graded QR decompositions of products of matrices"; Oliveira & Stewart 2000).

A column that is left with nothing but rounding once those before it are taken out stands for the singular value 0.
"""

from typing import NamedTuple

import numpy as np

from bptt.errors import NotFiniteError
from bptt.typing import Array

EPS = float(np.finfo(np.float64).eps)
CLOSE = 0.25  # neighbours whose logarithms are closer than this are left to an SVD
SETTLED = 1e-6  # of the coupling of two that are not close; a singular value feels its square
SLACK = 2.0  # by which a logarithm may exceed one before it, before they are put in order
PASSES = 60  # e^(−0.25 · 60) is 3e-7


class Graded(NamedTuple):
    """N products at once. q: (N, S, r) orthonormal columns.  logs: (N, r), -inf for 0.  u: (N, r, r)."""

    q: Array
    logs: Array
    u: Array


def begin(q: Array) -> Graded:
    """Nothing multiplied yet."""
    n, _, r = q.shape
    return Graded(q, np.zeros((n, r)), np.broadcast_to(np.eye(r), (n, r, r)))


def orthonormal(a: Array) -> tuple[Array, Array]:
    """Q (N, S, r) and log |R_ii| (N, r) of a = Q R; -inf where a column is a combination of those before it."""
    scale = largest_entry(a)
    q, r = np.linalg.qr(a / scale)
    sizes, gone = _diagonal(r)
    return q, np.where(gone, -np.inf, _log(np.where(gone, 1, sizes)) + np.log(scale[:, :, 0]))


def multiply(product: Graded, image: Array) -> Graded:
    """One more factor A from the left, given as image = A Q (N, S, r).

    Raises:
        NotFiniteError: the image is not finite.
    """
    scale = largest_entry(image, (1,))
    lost, u = ~image.any(1), product.u
    image, logs = image / scale, np.where(lost, -np.inf, product.logs + np.log(scale[:, 0]))
    if (logs[:, 1:] > logs[:, :-1] + SLACK).any():
        order = np.argsort(-logs, axis=1, kind="stable")
        image, logs, u = _columns(image, order), _take(logs, order), _rows(u, order)
    gone, at = np.isneginf(logs), np.arange(logs.shape[1])
    before = np.full(logs.shape, len(at))  # how many columns a dependent one is a combination of; no more than these
    while True:  # the first that is found gone is so; those behind it are looked at again once it stands behind them
        q, r = np.linalg.qr(image)
        found = _diagonal(r)[1] & ~gone
        if not found.any():
            break
        first = found & (found.cumsum(1) == 1)
        gone, before = gone | first, np.where(first, at, before)
        order = np.argsort(gone, axis=1, kind="stable")
        image, logs, u = _columns(image, order), _take(logs, order), _rows(u, order)
        gone, before = _take(gone, order), _take(before, order)
    r = np.where(at[:, None] >= before[:, None, :], 0, r)
    return _graded(q, r, logs, u, gone)


def _graded(q: Array, r: Array, logs: Array, u: Array, gone: Array) -> Graded:
    """R diag(eˡ) U, with the size of each row taken out of it."""
    alive = ~gone & ~np.isneginf(logs)
    finite = np.where(np.isneginf(logs), 0, logs)
    ratios = np.minimum(finite[:, None, :] - finite[:, :, None], 700)
    weights = np.where(alive[:, :, None] & ~np.isneginf(logs)[:, None, :], r * np.exp(ratios), 0)
    rows = weights @ u
    sizes = np.abs(rows).max(2)
    alive &= sizes > 0
    rows /= np.where(alive, sizes, 1)[:, :, None]
    rows[~alive] = 0
    return Graded(q, np.where(alive, finite + np.log(np.where(alive, sizes, 1)), -np.inf), rows)


def singular_logs(logs: Array, u: Array) -> Array:
    """log σ of diag(eˡ) U, (N, r), descending; -inf for 0."""
    logs, u = logs.copy(), u.copy()
    for at in range(PASSES):
        order = np.argsort(-logs, axis=1, kind="stable")
        logs, u = _take(logs, order), _rows(u, order)
        if at > 1 and _coupling(logs, u) <= SETTLED:
            break
        logs, u = _pass(logs, u)
    return np.stack([_finish(*one) for one in zip(logs, u, strict=True)])


def _pass(logs: Array, u: Array) -> tuple[Array, Array]:
    """D U → the transpose of D Rᵀ, graded again."""
    r: Array = np.asarray(np.linalg.qr(u.swapaxes(1, 2), mode="r"))
    sizes, gone = _diagonal(r)
    gone |= np.isneginf(logs)
    finite = np.where(np.isneginf(logs), 0, logs)
    ratios = np.minimum(finite[:, None, :] - finite[:, :, None], 700)
    live = ~gone[:, :, None] & ~np.isneginf(logs)[:, None, :]
    sizes = np.where(gone, 1, sizes)
    after = np.where(live, r * np.exp(np.where(live, ratios, 0)) / sizes[:, :, None], 0)
    return np.where(gone, -np.inf, finite + np.log(sizes)), after


def _coupling(logs: Array, u: Array) -> float:
    """The largest entry of U between two whose logarithms are not close."""
    finite = np.where(np.isneginf(logs), 0, logs)
    apart = _clusters(finite)[:, :, None] != _clusters(finite)[:, None, :]
    live = ~np.isneginf(logs)
    return float(np.abs(np.where(apart & live[:, :, None] & live[:, None, :], u, 0)).max(initial=0))


def _clusters(logs: Array) -> Array:
    """The number of the cluster of each, (…, r), for descending logs."""
    far = -np.diff(logs, axis=-1) > CLOSE
    return np.concatenate([np.zeros((*logs.shape[:-1], 1), int), far.cumsum(-1)], -1)


def _finish(logs: Array, u: Array) -> Array:
    """Of one product that has settled: an SVD of every cluster."""
    out = np.full(len(logs), -np.inf)
    live = np.flatnonzero(~np.isneginf(logs))
    groups = _clusters(logs[live])
    for group in range(groups[-1] + 1 if len(live) else 0):
        at = live[groups == group]
        top = logs[at[0]]
        block = np.exp(logs[at] - top)[:, None] * u[np.ix_(at, at)]
        out[at] = _log(np.linalg.svd(block, compute_uv=False)) + top
    return -np.sort(-out)


def _diagonal(r: Array) -> tuple[Array, Array]:
    """|R_ii| (N, r), and whether nothing but rounding is left of that column."""
    sizes = np.abs(np.diagonal(r, axis1=1, axis2=2))
    norms = np.sqrt(np.square(r).sum(1))
    return sizes, sizes <= 8 * r.shape[-1] * EPS * norms


def largest_entry(a: Array, axes: tuple[int, ...] = (1, 2)) -> Array:
    """The largest entry along these axes, which stay with length 1; 1 where all are 0.

    Raises:
        NotFiniteError: one that is not finite.
    """
    scale = np.abs(a).max(axes, keepdims=True)
    if not np.isfinite(scale).all():
        do = "The weights are too large for a product with them: scale them down."
        raise NotFiniteError("state Jacobian", got="overflow", expected="finite numbers", do=do)
    return np.where(scale == 0, 1, scale)


def _log(a: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(a)


def _take(a: Array, order: Array) -> Array:
    return np.take_along_axis(a, order, 1)


def _rows(a: Array, order: Array) -> Array:
    return np.take_along_axis(a, order[:, :, None], 1)


def _columns(a: Array, order: Array) -> Array:
    return np.take_along_axis(a, order[:, None, :], 2)

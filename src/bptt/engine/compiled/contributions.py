"""‖C[k, t]‖ of one step t for many losses k at once.

The losses share the inputs z of the step, so that z zᵀ is made once; and parameters share δ, so that δ_k δ_kᵀ is.

    ‖zᵀ δ_k‖² = Σ_{b,b'} (z_b·z_b')(δ_kb·δ_kb')

What cancels, or leaves the range of its type, is worked out the careful way (`bptt.ledger.norms`).
"""

import math
from collections.abc import Callable

import numpy as np

from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.threads import WORTH, run, spread
from bptt.engine.compiled.vector import dot, flush_denormals, largest, restore
from bptt.ledger.norms import norms
from bptt.typing import Array
from bptt.uses import Elementwise, Matmul, Use, Uses, with_factors


def step_norms(uses: Uses, shapes: dict[str, tuple[int, ...]], threads: int) -> dict[str, Array]:
    """Name → (K,) norms of the uses of one step, z (B, M) or ids (B,), δ (K, B, N)."""
    grams: dict[int, list[tuple[str, Array]]] = {}
    deltas, found = {}, {}
    for name, use in uses.items():
        if isinstance(use, Matmul) or (isinstance(use, Elementwise) and use.z is None):
            deltas[id(use.delta)] = use.delta
            grams.setdefault(id(use.delta), []).append((name, _gram(use)))
        else:
            found[name] = _careful(use, shapes[name])
    for key, delta in deltas.items():
        names = [name for name, _ in grams[key]]
        for name, column in zip(names, _norms(delta, [gram for _, gram in grams[key]], threads), strict=True):
            poor = column < 0
            if poor.any():
                column[poor] = _careful(with_factors(uses[name], delta=lambda d, poor=poor: d[poor]), shapes[name])
            found[name] = column
    return found


def _gram(use: Matmul | Elementwise) -> Array:
    """z zᵀ, (B, B), in float64; of ones for a bias."""
    z = use.z
    if z is None:
        return np.ones((use.delta.shape[-2],) * 2)
    if z.dtype.kind in "iu":
        return (z[:, None] == z[None, :]).astype(np.float64)
    z = z.astype(np.float64)
    return np.einsum("bm,cm->bc", z, z)


def _careful(use: Use, shape: tuple[int, ...]) -> Array:
    """The norms with an axis T = 1."""
    if not isinstance(use, Elementwise) or use.z is not None:
        use = with_factors(use, z=lambda z: z[None])
    return norms(with_factors(use, delta=lambda d: d[..., None, :, :]), shape)[:, 0]


def _norms(delta: Array, grams: list[Array], threads: int) -> Array:
    K, B, N = delta.shape
    out, stacked = np.empty((len(grams), K), delta.dtype), np.stack(grams)
    flat, cancelled = np.ascontiguousarray(delta).reshape(-1), 3e-3 if delta.itemsize < 8 else 1e-4
    some: Callable[[tuple[int, int]], None] = lambda part: _columns(flat, *part, B, N, stacked, cancelled, out)  # noqa: E731
    run(some, spread(K, threads if K * B * B * N >= WORTH else 1))
    return out


@kernel
def _columns(D, first, last, B, N, grams, cancelled, out):
    """out (parameters, K) for the losses first…last − 1; −1 where it must be worked out otherwise."""
    control = flush_denormals()
    count = grams.shape[0]
    squares, bounds, near = np.empty(count), np.empty(count), np.empty(B * N, D.dtype)
    for k in range(first, last):
        at, top = k * B * N, largest(D, k * B * N, B * N)
        if not 1e-36 < top < 1e36:
            for p in range(count):
                out[p, k] = 0 if top == 0 else -1
            continue
        A, scale = D, 1.0
        if not 1e-12 < top < 1e12:  # whose squares would leave the range: a copy near 1
            for j in range(B * N):
                near[j] = D[at + j] / top
            A, at, scale = near, 0, np.float64(top)
        squares[:], bounds[:] = 0, 0
        for b in range(B):
            own = np.float64(dot(A, at + b * N, A, at + b * N, N))
            for p in range(count):
                squares[p] += grams[p, b, b] * own
                bounds[p] += math.sqrt(grams[p, b, b] * own)
            for c in range(b):
                product = 2 * np.float64(dot(A, at + b * N, A, at + c * N, N))
                for p in range(count):
                    squares[p] += grams[p, b, c] * product
        for p in range(count):
            good = squares[p] > cancelled * bounds[p] * bounds[p]
            out[p, k] = math.sqrt(squares[p]) * scale if good else -1
    restore(control)

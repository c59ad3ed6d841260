"""What can be said of uses without ever building T full matrices.

A use is a pair of factors (z, δ), for example with dW_t = z_tᵀ δ_t (see `bptt.uses`); z is (T, B, M) or ids (T, B), and
δ is (T, B, N), or (K, T, B, N) as K losses see it. A `Ready` use has dW_t in their place.
"""

import math
from collections.abc import Callable

import numpy as np

from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Factored, Linear, Matmul, Ready, Use, with_factors

BLOCK_BYTES = 64 << 20  # largest temporary of the functions that go through many steps at once
PART_ROWS = 4096  # rows that float32 may add up by itself


def is_ids(z: Array) -> bool:
    """Whether z holds integer ids, each standing for a one-hot row."""
    return z.dtype.kind in "iu"


def total(use: Use, shape: tuple[int, ...]) -> Array:
    """Σ_t dW_t, with the shape of W: one product over all T·B rows."""
    if isinstance(use, Columns):
        widths = [part.delta.shape[-1] for part in use.parts]
        return np.hstack([total(part, (shape[0], n)) for part, n in zip(use.parts, widths, strict=True)])
    if isinstance(use, Elementwise):
        product = use.delta if use.z is None else use.z * use.delta
        product = product.reshape(-1, product.shape[-1])
        return _in_parts(len(product), product.dtype, lambda part: product[part].sum(0))
    if isinstance(use, Linear):
        return total(_turned(use), shape)
    if isinstance(use, Ready):
        terms = use.gradients.reshape(-1, *shape)
        return _in_parts(len(terms), terms.dtype, lambda part: terms[part].sum(0))
    z, rows = use.z, use.delta.reshape(-1, use.delta.shape[-1])
    if not is_ids(z):
        inputs = z.reshape(-1, z.shape[-1])
        return _in_parts(len(rows), rows.dtype, lambda part: inputs[part].T @ rows[part])
    return _sum_rows(z.ravel(), rows, shape[0])


def _turned(use: Linear) -> Matmul:
    """The same dW = δᵀ z as a product whose input is δ."""
    return Matmul(use.delta, use.z)


def flat(use: Ready, shape: tuple[int, ...]) -> Array:
    """dW_t as rows: (T, size of W), or (K, T, size of W)."""
    return use.gradients.reshape(*lead(use, shape), math.prod(shape))


def lead(use: Use, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(T,), or (K, T) of a use as K losses see it."""
    if isinstance(use, Ready):
        return use.gradients.shape[: use.gradients.ndim - len(shape)]
    return first(use).delta.shape[:-2]


def count(use: Use) -> int:
    """T, the number of steps; of a `Ready` use as it is without losses, or for one of them."""
    return len(use.gradients) if isinstance(use, Ready) else first(use).delta.shape[-3]


def dtype_of(use: Use) -> np.dtype:
    """The dtype of dW_t."""
    return use.gradients.dtype if isinstance(use, Ready) else first(use).delta.dtype


def _in_parts(rows: int, dtype: np.dtype, of: Callable[[slice], Array]) -> Array:
    """The sum of `of` over parts of the rows: float32 loses a digit over 10,000 of them, so parts add up in float64."""
    if dtype.itemsize >= 8 or rows <= PART_ROWS:
        return of(slice(None))
    sums = of(slice(0, PART_ROWS)).astype(np.float64)
    for at in range(PART_ROWS, rows, PART_ROWS):
        sums += of(slice(at, at + PART_ROWS))
    return sums.astype(dtype)


def matrices(use: Use, shape: tuple[int, ...]) -> Array:
    """dW_t for every step, (T, *shape), or (K, T, *shape): full arrays, so ask for few steps of large weights."""
    if isinstance(use, Columns):
        widths = [part.delta.shape[-1] for part in use.parts]
        return np.concatenate([matrices(part, (shape[0], n)) for part, n in zip(use.parts, widths, strict=True)], -1)
    if isinstance(use, Elementwise):
        return (use.delta if use.z is None else use.z * use.delta).sum(-2)
    if isinstance(use, Ready):
        return use.gradients
    if isinstance(use, Linear):
        return matrices(_turned(use), shape)
    if not is_ids(use.z):
        return np.swapaxes(use.z, -1, -2) @ use.delta
    (M, N), before = shape, use.delta.shape[:-2]
    count = int(np.prod(before))
    ids = np.broadcast_to(use.z, use.delta.shape[:-1]).reshape(count, -1)
    keys = (ids + M * np.arange(count)[:, None]).ravel()
    return _sum_rows(keys, use.delta.reshape(-1, N), count * M).reshape(*before, M, N)


def _sum_rows(keys: Array, rows: Array, size: int) -> Array:
    """Row i of the result is the sum of the rows whose key is i."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    out = np.zeros((size, rows.shape[-1]), rows.dtype)
    out[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return out


def in_blocks(use: Matmul, shape: tuple[int, ...], of: Callable[[Use], Array]) -> Array:
    """`of` applied to blocks of steps whose full matrices fit in `BLOCK_BYTES`, put together again along T."""
    delta = use.delta
    if delta.ndim == 4 and delta[..., 0, 0].size * np.prod(shape) * delta.dtype.itemsize > BLOCK_BYTES:
        return np.stack([in_blocks(Matmul(use.z, delta[k]), shape, of) for k in range(len(delta))])
    return np.concatenate([of(steps_of(use, block)) for block in blocks(use, shape)], -1)


def blocks(use: Use, shape: tuple[int, ...]) -> list[slice]:
    """Stretches of steps whose full matrices fit in `BLOCK_BYTES`."""
    *losses, T = lead(use, shape)
    one = math.prod(shape) * dtype_of(use).itemsize * math.prod(losses)
    steps = max(1, BLOCK_BYTES // max(one, 1))
    return [slice(t, t + steps) for t in range(0, T, steps)]


def total_by_steps(use: Use, shape: tuple[int, ...]) -> Array:
    """Σ_t dW_t, √T steps at a time and then added: another order of summation than `total`, for the residual."""
    T = count(use)
    n = math.isqrt(T - 1) + 1
    return sum((total(steps_of(use, slice(t, t + n)), shape) for t in range(0, T, n)), np.zeros(shape))


def over_losses(use: Use) -> Use:
    """The losses added up: δ (K, T, B, N) → (T, B, N)."""
    return with_factors(use, delta=lambda d: d.sum(0))


def diagonal(use: Use, losses: Array, steps: Array) -> Use:
    """Pairs of a loss and a step, counted from 0, as a use without losses: δ (K, T, B, N) → (pairs, B, N), and z."""
    return with_factors(use, lambda z: z[steps], lambda d: d[losses, steps])


def divided(use: Use, by: Array) -> Use:
    """Every step divided by a number, by (T,)."""
    return with_factors(use, delta=lambda d: d / by.reshape(-1, *[1] * (d.ndim - 1)))


def first(use: Factored) -> Matmul | Linear | Elementwise:
    """The use itself, or the first of its blocks of columns."""
    return use.parts[0] if isinstance(use, Columns) else use


def steps_of(use: Use, steps: slice) -> Use:
    """The same use at some of its steps; a `Ready` one as it is without losses, or for one of them."""
    if isinstance(use, Ready):
        return Ready(use.gradients[steps])
    return with_factors(use, lambda z: z[steps], lambda d: d[..., steps, :, :])


def step_of(use: Use, step: int) -> Use:
    """One step, without its axis: z (B, M), δ (B, N)."""
    return with_factors(use, lambda z: z[step], lambda d: d[step])


def loss_of(use: Use, loss: int) -> Use:
    """The use as one loss sees it: δ (K, T, B, N) → (T, B, N)."""
    return with_factors(use, delta=lambda d: d[loss])


def cut(a: Array, block: slice, axis: int) -> Array:
    """A block of `a` along an axis that is counted from its end: −1 is the last."""
    return a[(..., block, *[slice(None)] * (-1 - axis))]


def block_of(use: Use, block: slice, axis: int) -> Use:
    """The same use restricted to a block of W, such as that of one gate.

    axis: of W, counted from its end: −1 for columns, −2 for the rows of a matrix.
    """
    if isinstance(use, Ready):
        return Ready(cut(use.gradients, block, axis))
    if isinstance(use, Columns) and axis == -1:
        return _columns_of(use, block)
    of_input, of_delta = (lambda z: _inputs(z, block, dtype_of(use))), (lambda d: d[..., block])
    if isinstance(use, Elementwise):
        return with_factors(use, of_input, of_delta)
    if axis == (-2 if isinstance(use, Linear) else -1):  # where W has the units of a
        return with_factors(use, delta=of_delta)
    return with_factors(use, of_input)


def _inputs(z: Array, block: slice, dtype: np.dtype) -> Array:
    """Some units of the input; ids as one-hot rows of them."""
    return (z[..., None] == np.arange(block.start, block.stop)).astype(dtype) if is_ids(z) else z[..., block]


def _columns_of(use: Columns, columns: slice) -> Use:
    kept, at = [], 0
    for part in use.parts:
        n = part.delta.shape[-1]
        low, high = max(columns.start - at, 0), min(columns.stop - at, n)
        if low < high:
            kept.append(Matmul(part.z, part.delta[..., low:high]))
        at += n
    return kept[0] if len(kept) == 1 else Columns(tuple(kept))


def inner(use: Use, W: Array) -> Array:
    """⟨dW_t, W⟩ for every step, (T,) or (K, T): Σ_b z_tb W δ_tbᵀ."""
    if isinstance(use, Columns):
        edges = np.cumsum([0] + [part.delta.shape[-1] for part in use.parts])
        pairs = zip(use.parts, edges, edges[1:], strict=False)
        return np.sum([inner(part, W[:, low:high]) for part, low, high in pairs], axis=0)
    if isinstance(use, Elementwise):
        return np.einsum("...n,n->...", matrices(use, W.shape), W)  # BLAS would leave threads behind that spin
    if isinstance(use, Ready):
        return np.einsum("...n,n->...", flat(use, W.shape), W.reshape(-1))
    if isinstance(use, Linear):
        return inner(Matmul(use.z, use.delta), W.T)
    zW = W[use.z] if is_ids(use.z) else (use.z.reshape(-1, W.shape[0]) @ W).reshape(*use.z.shape[:-1], W.shape[1])
    return np.einsum("...bn,...bn->...", zW, use.delta)


def share_scale(dW: Array) -> tuple[Array, float]:
    """V and c with ⟨dW_t, dW⟩ / ‖dW‖² = ⟨dW_t, V⟩ / c, and squares of V in range; all zero where dW is."""
    largest = np.abs(dW).max()
    if largest == 0:
        return np.zeros_like(dW), 1.0
    unit = dW / largest
    return unit, float(np.square(unit).sum() * largest)


def step_products(use: Use, shape: tuple[int, ...]) -> Array:
    """⟨dW_s, dW_t⟩ for every pair of steps, (T, T), a block of steps against a block of steps."""
    T, parts = count(use), blocks(use, shape)
    out = np.empty((T, T), dtype_of(use))
    for at, rows in enumerate(parts):
        left = matrices(steps_of(use, rows), shape).reshape(-1, int(np.prod(shape)))
        for columns in parts[at:]:
            right = left if columns == rows else matrices(steps_of(use, columns), shape).reshape(-1, left.shape[1])
            out[rows, columns] = left @ right.T
            out[columns, rows] = out[rows, columns].T
    return out

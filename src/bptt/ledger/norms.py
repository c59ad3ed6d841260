"""Norms of uses from their factors, without T full matrices (Goodfellow 2015, arXiv 1510.01799).

    ‖zᵀδ‖² = Σ_{b,b'} (z_b·z_b')(δ_b·δ_b')        products of B × B Gram matrices, where 2B² ≤ size of W
    ‖z_b ⊗ δ_b‖ = ‖z_b‖ ‖δ_b‖                     one sequence

docs/decisions/0004-norms.md says where that is not accurate enough, and what is done there.
"""

from typing import Any

import numpy as np

from bptt.errors import NotKeptError
from bptt.ledger.reductions import flat, in_blocks, is_ids, matrices
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Linear, Matmul, Ready, Use

Memo = dict[Any, Array]  # what is known of arrays, by their id: parameters that share factors share it


def norms(use: Use, shape: tuple[int, ...], memo: Memo | None = None) -> Array:
    """‖dW_t‖ of every step, Frobenius: (T,), or (K, T) for δ (K, T, B, N).

    memo: of the arrays of one ledger, which outlive it.
    """
    if isinstance(use, Columns):
        widths = [part.delta.shape[-1] for part in use.parts]
        parts = [norms(part, (shape[0], n), memo) for part, n in zip(use.parts, widths, strict=True)]
        return pythagoras(np.stack(parts, -1))
    if isinstance(use, Elementwise):
        return pythagoras(matrices(use, shape))
    if isinstance(use, Ready):
        return pythagoras(flat(use, shape))
    if isinstance(use, Linear):  # a matrix has the norm of its transpose
        return norms(Matmul(use.z, use.delta), shape[::-1], memo)
    if 2 * use.delta.shape[-2] ** 2 > np.prod(shape):
        return _scaled_norms(use, shape)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares, rows, sizes = _products(use, {} if memo is None else memo)
        digits = np.finfo(squares.dtype)
        poor = ~(squares >= _cancelled(squares.dtype) * rows) | ~(rows <= digits.max)
        poor |= ~(np.minimum(sizes, rows) >= digits.tiny / digits.eps)
        poor &= use.delta.any(axis=(-1, -2))  # no δ, no gradient: exactly zero
        out = np.sqrt(np.maximum(squares, 0))
    if poor.any():
        out[poor] = _scaled_norms(Matmul(_lead(use.z, use.delta)[poor], use.delta[poor]), shape)
    return out


def _cancelled(dtype: np.dtype) -> float:
    """Share of the square below which too few of its digits are left."""
    return 1e-2 if dtype.itemsize < 8 else 1e-4


def _products(use: Matmul, memo: Memo) -> tuple[Array, Array, Array]:
    """Σ zz ∘ dd; what it would be if nothing cancelled; and the smaller of the largest diagonals of zz and dd."""
    zz, dd = _gram(use.z, memo, use.delta.dtype), _gram(use.delta, memo, use.delta.dtype)
    z_rows, d_rows = (np.einsum("...bb->...b", g) for g in (zz, dd))
    rows = np.square(np.sqrt(z_rows * d_rows).sum(-1))
    sizes = np.minimum(z_rows.max(-1), d_rows.max(-1))
    return np.einsum("...bc,...bc->...", zz, dd), rows, sizes


def _gram(a: Array, memo: Memo, dtype: np.dtype) -> Array:
    """a aᵀ of every step, (..., B, B)."""
    key = ("gram", id(a))
    if key not in memo:
        memo[key] = (a[..., :, None] == a[..., None, :]).astype(dtype) if is_ids(a) else a @ np.swapaxes(a, -1, -2)
    return memo[key]


def _scaled_norms(use: Matmul, shape: tuple[int, ...]) -> Array:
    """The careful way: factors divided by their largest element, and the matrix formed where Gram products cancel."""
    delta, by = _to_one(use.delta)
    z, z_by = (use.z, 1.0) if is_ids(use.z) else _to_one(use.z)
    scaled = Matmul(z, delta)
    if 2 * delta.shape[-2] ** 2 > np.prod(shape):
        return np.sqrt(_by_step(scaled, shape)) * z_by * by
    squares, rows, _ = _products(scaled, {})
    poor = ~(squares >= _cancelled(squares.dtype) * rows)
    if poor.any():
        squares[poor] = _by_step(Matmul(_lead(z, delta)[poor], delta[poor]), shape)
    return np.sqrt(squares) * z_by * by


def _to_one(a: Array) -> tuple[Array, Array]:
    """Each step divided by its largest element, and that element."""
    largest = np.abs(a).max(axis=(-1, -2))
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1)
    return a / scale[..., None, None], scale


def _lead(z: Array, delta: Array) -> Array:
    """The inputs with the leading axes of δ."""
    own = 1 if is_ids(z) else 2
    return np.broadcast_to(z, delta.shape[:-2] + z.shape[-own:])


def _by_step(use: Matmul, shape: tuple[int, ...]) -> Array:
    """‖dW_t‖² from the matrix of each step, reduced at once."""

    def squares(part: Use) -> Array:
        m = matrices(part, shape)
        return np.einsum("...mn,...mn->...", m, m)

    return in_blocks(use, shape, squares)


def sequence_norms(use: Use, memo: Memo | None = None) -> Array:
    """‖dW_{t,b}‖, what each sequence alone contributes: (T, B), or (K, T, B).

    Raises:
        NotKeptError: a `Ready` use, which holds the sequences added up.
    """
    memo = {} if memo is None else memo
    if isinstance(use, Ready):
        got, do = "dW_t with all sequences added up", "Ask for norms(), or record a batch of one sequence."
        raise NotKeptError("norms by sequence", got=got, expected="the factors of each use", do=do)
    if isinstance(use, Columns):
        return pythagoras(np.stack([sequence_norms(part, memo) for part in use.parts], -1))
    if isinstance(use, Elementwise):
        return _rows(use.delta, memo) if use.z is None else pythagoras(use.z * use.delta)
    return _rows(use.delta, memo) if is_ids(use.z) else _rows(use.delta, memo) * _rows(use.z, memo)


def _rows(a: Array, memo: Memo) -> Array:
    key = ("rows", id(a))
    if key not in memo:
        memo[key] = pythagoras(a)
    return memo[key]


def pythagoras(a: Array) -> Array:
    """√Σa² along the last axis; where squares under- or overflow, of a divided by its largest element."""
    digits = np.finfo(a.dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("...n,...n->...", a, a)
        out = np.sqrt(squares)
        poor = ~((squares >= digits.tiny / digits.eps) & (squares <= digits.max))
        if poor.any():
            rows = a[poor]
            largest = np.abs(rows).max(-1, initial=0)
            scale = np.where((largest > 0) & np.isfinite(largest), largest, 1)
            parts = rows / scale[..., None]
            careful = np.sqrt(np.einsum("...n,...n->...", parts, parts)) * scale
            if out.ndim == 0:
                return careful.reshape(())[()]
            out[poor] = careful
    return out


def norm(a: Array) -> float:
    """‖a‖ over all elements."""
    return float(pythagoras(a.reshape(-1)))


def residual(ours: Array, theirs: Array) -> float:
    """‖ours − theirs‖ / ‖theirs‖; 0 where both are zero."""
    scale, difference = norm(theirs), norm(ours - theirs)
    return difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))

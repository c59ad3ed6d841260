"""Products of matrices from the tiles of `vector`: packed weights for many steps, and gradients of weights."""

import numpy as np

from bptt.engine.compiled.emit import ALIGN, panel
from bptt.engine.compiled.emit import ROWS as _ROWS
from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.memory import aligned
from bptt.engine.compiled.tiles import (
    scaled_squares_4,
    scaled_squares_8,
    squares_4,
    squares_8,
    tile_1,
    tile_1_one,
    tile_2,
    tile_2_one,
    tile_4,
    tile_8,
)
from bptt.engine.compiled.vector import copy_eights, copy_panel, dot, flush_denormals, restore
from bptt.typing import Array

PANEL_4, PANEL_8 = panel(4), panel(8)
BLOCK = 128  # rows of A that stay in the cache while all panels go by
DEPTH = 256  # rows of a gradient product that are added up in registers
PART = 4096  # rows of a part; parts are added up by themselves, so that no sum is long


def packed(W: Array, transposed: bool = False) -> Array:
    """W (K, N), or its transpose, panel by panel: (panels, K, columns of a panel), zeros after column N; flat."""
    if W.flags.f_contiguous and not W.flags.c_contiguous:  # the transpose of what others hold: the same memory
        W, transposed = W.T, not transposed
    K, N = W.shape[::-1] if transposed else W.shape
    width = panel(W.itemsize)
    out = aligned((-(-N // width) * K * width,), W.dtype)
    pack(W, transposed, width, out)
    return out


@kernel
def pack(W, transposed, width, out):
    """W, or its transpose, into out as `packed` says."""
    K, N = W.shape
    if transposed:
        K, N = N, K
    at = 0
    for start in range(0, N, width):
        many = min(width, N - start)
        for k in range(K):
            row = out[at : at + width]
            for j in range(many):
                row[j] = W[start + j, k] if transposed else W[k, start + j]
            row[many:] = 0
            at += width


@kernel
def multiply(A, a, lda, M, K, P, width, C, c, ldc, N, first, last):
    """C[:M, :N] += A[:M, :K] B for the panels first…last − 1 of B; P = packed(B).

    A and C are flat; a and c are where they begin, lda and ldc the distance of their rows.
    """
    whole = min(last, N // width)
    for low in range(0, M, BLOCK):
        high = min(low + BLOCK, M)
        _rows(A, a, lda, low, high, K, P, width, C, c, ldc, first, whole)
    if whole < last:  # a panel that is not full goes by way of one that is
        edge = np.zeros(8 * width, C.dtype)
        used = N - whole * width
        for low in range(0, M, 8):
            rows = min(8, M - low)
            for i in range(rows):
                at = c + (low + i) * ldc + whole * width
                edge[i * width : i * width + used] = C[at : at + used]
            _rows(A, a + low * lda, lda, 0, rows, K, P[whole * K * width :], width, edge, 0, width, 0, 1)
            for i in range(rows):
                at = c + (low + i) * ldc + whole * width
                C[at : at + used] = edge[i * width : i * width + used]


@kernel
def multiply_rows(A, low, high, K, P, width, C, N):
    """The rows low…high − 1 of C (…, N) += A (…, K) B, for a thread that does nothing else."""
    control = flush_denormals()
    multiply(A, low * K, K, high - low, K, P, width, C, low * N, N, N, 0, -(-N // width))
    restore(control)


@kernel
def _rows(A, a, lda, low, high, K, P, width, C, c, ldc, first, last):
    """Rows low…high − 1 of whole panels, in tiles of 8, 4, 2 and 1 rows."""
    size, tall = K * width, low
    if _ROWS == 8:
        tall = low + (high - low) // 8 * 8
        for p in range(first, last):
            for i in range(low, tall, 8):
                tile_8(A, a + i * lda, lda, 1, P, p * size, size, K, C, c + i * ldc + p * width, ldc)
    rest = tall + (high - tall) // 4 * 4
    for p in range(first, last):
        for i in range(tall, rest, 4):
            tile_4(A, a + i * lda, lda, 1, P, p * size, size, K, C, c + i * ldc + p * width, ldc)
    i = rest
    if high - i >= 2:
        pairs = first + (last - first) // 2 * 2
        for p in range(first, pairs, 2):
            tile_2(A, a + i * lda, lda, 1, P, p * size, size, K, C, c + i * ldc + p * width, ldc)
        for p in range(pairs, last):
            tile_2_one(A, a + i * lda, lda, 1, P, p * size, size, K, C, c + i * ldc + p * width, ldc)
        i += 2
    if high > i:
        fours = first + (last - first) // 4 * 4
        for p in range(first, fours, 4):
            tile_1(A, a + i * lda, lda, 1, P, p * size, size, K, C, c + i * ldc + p * width, ldc)
        for p in range(fours, last):
            tile_1_one(A, a + i * lda, lda, 1, P, p * size, size, K, C, c + i * ldc + p * width, ldc)


@kernel
def gradient(Z, ldz, D, d, ldd, steps, B, M, N, width, first, last, out, sums, squares, scales):
    """out (M, N) = Σ_t Z_tᵀ D_t and sums (N,) = Σ_t 1ᵀ D_t, for the panels first…last − 1 of the columns of D.

    Z (steps·B, M) and D (steps·B, N) are flat, with rows ldz and ldd apart; D begins at d.
    squares (steps, panels): ‖scale_t Z_tᵀ D_t‖² of the panel; empty if not wanted.
    """
    if first >= last:
        return
    control = flush_denormals()
    own, tall = (last - first) * width, -(-M // 8) * 8
    C, total = _scratch(tall * own, out), np.zeros(own, np.float64)
    part = max(1, PART // B)
    for t in range(0, steps, part):
        some = min(part, steps - t)
        C[:] = 0
        rows = slice(t, t + some) if squares.size else slice(0, 0)
        _add(Z, t * B * ldz, ldz, D, d + t * B * ldd, ldd, some, B, M, N, width, first, last, C, total,
             squares[rows], scales[rows])  # fmt: skip
        for m in range(M):
            many = min(own, N - first * width)
            source, into = C[m * own : m * own + many], out[m, first * width : first * width + many]
            if t == 0:
                into[:] = source
            else:
                into += source
    many = min(own, N - first * width)
    sums[first * width : first * width + many] = total[:many]
    restore(control)


@kernel
def _add(Z, z, ldz, D, d, ldd, steps, B, M, N, width, first, last, C, sums, squares, scales):
    """C += Σ_t Z_tᵀ D_t for steps that float32 may add up by itself."""
    own, blocks, by_step = (last - first) * width, -(-M // 8), squares.size > 0
    per = min(steps, max(1, DEPTH // B))  # steps whose rows are packed at once
    column, inputs = _scratch(per * B * width, C), _scratch(per * B * blocks * 8, C)
    small, totals, ones = np.empty(width, C.dtype), _scratch(2 * width, C), np.ones(2 * width, C.dtype)
    for t in range(0, steps, per):
        some = min(per, steps - t)
        parts, rows = (some, B) if by_step else (1, some * B)
        for part in range(parts):
            _pack_inputs(Z, z + (t * B + part * rows) * ldz, ldz, rows, M, inputs, part * rows * blocks * 8)
        for p in range(first, last):
            start, c = p * width, (p - first) * width
            for part in range(parts):
                row, at = t * B + part * rows, part * rows * blocks * 8
                _pack_rows(D, d + row * ldd + start, ldd, rows, min(width, N - start), width, column, small)
                for j in range(width):
                    sums[c + j] += small[j]
                if by_step:
                    squares[t + part, p] = _squares(
                        inputs, at, column, rows, C, c, own, blocks, scales[t + part], totals, ones
                    )  # fmt: skip
                else:
                    for i in range(blocks):
                        here, into = at + i * rows * 8, c + i * 8 * own
                        if _ROWS == 8:
                            tile_8(inputs, here, 1, 8, column, 0, 0, rows, C, into, own)
                        else:
                            tile_4(inputs, here, 1, 8, column, 0, 0, rows, C, into, own)
                            tile_4(inputs, here + 4, 1, 8, column, 0, 0, rows, C, into + 4 * own, own)


@kernel
def _squares(inputs, at, column, rows, C, c, own, blocks, scale, totals, ones):
    """The step added to a panel of C, and the square of its scaled norm."""
    totals[:] = 0
    for i in range(blocks):
        here, into = at + i * rows * 8, c + i * 8 * own
        if scale == 1:
            if _ROWS == 8:
                squares_8(inputs, here, 1, 8, column, 0, rows, C, into, own, scale, totals)
            else:
                squares_4(inputs, here, 1, 8, column, 0, rows, C, into, own, scale, totals)
                squares_4(inputs, here + 4, 1, 8, column, 0, rows, C, into + 4 * own, own, scale, totals)
        elif _ROWS == 8:
            scaled_squares_8(inputs, here, 1, 8, column, 0, rows, C, into, own, scale, totals)
        else:
            scaled_squares_4(inputs, here, 1, 8, column, 0, rows, C, into, own, scale, totals)
            scaled_squares_4(inputs, here + 4, 1, 8, column, 0, rows, C, into + 4 * own, own, scale, totals)
    return dot(totals, 0, ones, 0, totals.size)


@kernel
def _scratch(size, like):
    """Uninitialised memory at the edge of a cache line."""
    raw = np.empty(size + ALIGN // like.itemsize, like.dtype)
    start = (-raw.ctypes.data % ALIGN) // like.itemsize
    return raw[start : start + size]


@kernel
def _pack_inputs(Z, z, ldz, rows, M, out, at):
    """Rows of Z in blocks of 8 columns: (blocks, rows, 8), zeros after column M."""
    for i in range(0, M, 8):
        many = min(8, M - i)
        if many == 8:
            copy_eights(Z, z + i, ldz, rows, out, at)
        else:
            for k in range(rows):
                for j in range(8):
                    out[at + k * 8 + j] = Z[z + k * ldz + i + j] if j < many else 0
        at += rows * 8


@kernel
def _pack_rows(D, d, ldd, rows, many, width, out, total):
    """A panel of D, (rows, width), zeros after its last column, and its sum over the rows."""
    if many == width:
        copy_panel(D, d, ldd, rows, out, 0, total, 0)
        return
    total[:] = 0
    for k in range(rows):
        for j in range(many):
            out[k * width + j] = D[d + k * ldd + j]
            total[j] += out[k * width + j]
        for j in range(many, width):
            out[k * width + j] = 0

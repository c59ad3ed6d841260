"""Norms of uses, a step at a time while its factors are in the cache.

    ‖zᵀδ‖² = Σ_{b,b'} (z_b·z_b')(δ_b·δ_b')     few rows: two Gram matrices
             from the tiles of zᵀδ itself       many rows: the product is needed anyway (`product.gradient`)

Where a square would leave the range of its type, the factors are scaled by a power of two first.
"""

import math

import numpy as np

from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.product import gradient, multiply
from bptt.engine.compiled.threads import WORTH, run, spread
from bptt.engine.compiled.vector import dot, flush_denormals, largest, restore
from bptt.typing import Array

BLOCK = 64  # steps whose sums the type adds up by itself, whatever the number of threads
GRAM_ROWS = 12  # up to so many rows of a step Gram matrices are cheaper than the product by step


@kernel
def row_norm(A, at, n):
    """‖A[at : at + n]‖, from scaled elements where their squares would leave the range."""
    square = dot(A, at, A, at, n)
    if 1e-20 < square < 1e30:
        return A.dtype.type(math.sqrt(square))
    top = largest(A, at, n)
    if not top > 0 or top == np.inf or square != square:
        return A.dtype.type(math.sqrt(square))  # 0, infinity or NaN
    total = 0.0
    for j in range(at, at + n):
        total += (np.float64(A[j]) / top) ** 2
    return A.dtype.type(math.sqrt(total) * top)


@kernel
def square_sum(A):
    """Σ a², not finite if any a is not."""
    return dot(A, 0, A, 0, A.size)


@kernel
def differences(dW, v, found, scale):
    """‖found − dW v‖ and ‖dW‖, both times scale, of dW (M, N), v (N,), found (M,); scale brings dW near 1."""
    (M, N), off, size = dW.shape, 0.0, 0.0
    flat, row = dW.reshape(M * N), np.empty(N, dW.dtype)
    for m in range(M):
        if 1e-12 < scale < 1e12:
            product = scale * np.float64(dot(flat, m * N, v, 0, N))
            square = scale * scale * np.float64(dot(flat, m * N, flat, m * N, N))
        else:
            for n in range(N):
                row[n] = scale * dW[m, n]
            product, square = np.float64(dot(row, 0, v, 0, N)), np.float64(dot(row, 0, row, 0, N))
        off += (scale * found[m] - product) ** 2
        size += square
    return math.sqrt(off), math.sqrt(size)


def state_norms(parts: tuple[Array, ...], threads: int) -> Array:
    """‖(part_1, part_2, …)‖ of every step and row, (m, B), of parts (m, B, S)."""
    (m, B), found = parts[0].shape[:2], []
    for part in parts:
        sizes, source = np.empty(m * B, part.dtype), np.ascontiguousarray(part).reshape(-1)
        some = spread(m * B, threads if part.size >= WORTH else 1)
        run(
            lambda rows, part=part, source=source, sizes=sizes: norms_of_rows(source, *rows, part.shape[2], sizes), some
        )
        found.append(sizes.reshape(m, B))
    return found[0] if len(found) == 1 else np.hypot(*found)


@kernel
def norms_of_rows(A, low, high, n, out):
    """‖row‖ for rows low…high − 1 of n elements."""
    for r in range(low, high):
        out[r] = row_norm(A, r * n, n)


@kernel
def rows_of_deltas(D, d, ldd, first, last, n, B, N, direction, norms, ahead, biases, totals):
    """For the steps of the blocks first…last − 1: ‖δ_tb‖, δ_tb · direction, ‖Σ_b δ_tb‖; totals (blocks, N) Σ δ_tb."""
    control = flush_denormals()
    summed, block = np.empty(N, D.dtype), np.empty(N, D.dtype)
    for i in range(first, last):
        block[:] = 0
        for t in range(i * BLOCK, min((i + 1) * BLOCK, n)):
            summed[:] = 0
            for b in range(B):
                at = d + (t * B + b) * ldd
                norms[t, b] = row_norm(D, at, N)
                ahead[t, b] = dot(D, at, direction, 0, N)
                row = D[at : at + N]
                for j in range(N):
                    summed[j] += row[j]
            biases[t] = norms[t, 0] if B == 1 else row_norm(summed, 0, N)
            for j in range(N):
                block[j] += summed[j]
        totals[i] = block
    restore(control)


@kernel
def sum_rows(D, d, ldd, rows, N, total):
    """total (N,) = Σ over rows; float32 adds up 256 of them by itself."""
    control = flush_denormals()
    block = np.zeros(N, D.dtype)
    total[:] = 0
    for r in range(rows):
        row = D[d + r * ldd : d + r * ldd + N]
        for j in range(N):
            block[j] += row[j]
        if r % 256 == 255 or r == rows - 1:
            for j in range(N):
                total[j] += block[j]
            block[:] = 0
    restore(control)


@kernel
def rows_of_inputs(Z, ldz, first, last, n, B, M, ahead, norms, through):
    """For the steps of the blocks first…last − 1: ‖z_tb‖; through (blocks, M) Σ_tb z_tb (δ_tb · direction)."""
    control = flush_denormals()
    block = np.empty(M, Z.dtype)
    for i in range(first, last):
        block[:] = 0
        for t in range(i * BLOCK, min((i + 1) * BLOCK, n)):
            for b in range(B):
                at, by = (t * B + b) * ldz, ahead[t, b]
                norms[t, b] = row_norm(Z, at, M)
                row = Z[at : at + M]
                for j in range(M):
                    block[j] += by * row[j]
        through[i] = block
    restore(control)


@kernel
def gram_norms(Z, ldz, D, d, ldd, low, high, B, M, N, width, rows, scales, cancelled, out):
    """‖Z_tᵀ D_t‖ for steps low…high − 1 of few rows; where the Gram products cancel, from the product itself.

    rows (n,): Σ_b ‖z_tb‖ ‖δ_tb‖.  scales (n, 2): powers of two that bring z_t and δ_t near 1.
    """
    control = flush_denormals()
    z, e = np.empty(B * M, Z.dtype), np.empty(B * N, Z.dtype)
    whole, sums, squares = np.empty((M, N), Z.dtype), np.empty(N, np.float64), np.empty((1, -(-N // width)))
    for t in range(low, high):
        scale, found = scales[t], 0.0
        if not rows[t] > 0:
            out[t] = rows[t]
            continue
        for b in range(B):
            z[b * M : (b + 1) * M] = Z[(t * B + b) * ldz : (t * B + b) * ldz + M]
            row, source = e[b * N : (b + 1) * N], D[d + (t * B + b) * ldd : d + (t * B + b) * ldd + N]
            for j in range(N):
                row[j] = source[j] * scale[1]
            row = z[b * M : (b + 1) * M]
            for j in range(M):
                row[j] *= scale[0]
        bound = 0.0
        for b in range(B):
            own = np.float64(dot(z, b * M, z, b * M, M)) * dot(e, b * N, e, b * N, N)
            found += own
            bound += math.sqrt(own)
            for c in range(b):
                found += 2 * np.float64(dot(z, b * M, z, c * M, M)) * dot(e, b * N, e, c * N, N)
        if not found > cancelled * bound * bound:
            gradient(z, M, e, 0, N, 1, B, M, N, width, 0, -(-N // width), whole, sums, squares, np.ones(1, Z.dtype))
            found = squares.sum()
        out[t] = math.sqrt(found) / (np.float64(scale[0]) * scale[1])
    restore(control)


@kernel
def id_norms(ids, D, d, ldd, low, high, B, N, norms, out):
    """‖dW_t‖ for steps low…high − 1 of weights whose rows are picked by ids: rows of one id add up."""
    control = flush_denormals()
    summed, known = np.empty(N, D.dtype), np.empty(B, np.bool_)
    parts = np.empty(B, D.dtype)
    for t in range(low, high):
        known[:] = False
        many = 0
        for b in range(B):
            if known[b]:
                continue
            alone = True
            for c in range(b + 1, B):
                if ids[t * B + c] == ids[t * B + b]:
                    if alone:
                        summed[:] = D[d + (t * B + b) * ldd : d + (t * B + b) * ldd + N]
                    alone, known[c] = False, True
                    row = D[d + (t * B + c) * ldd : d + (t * B + c) * ldd + N]
                    for j in range(N):
                        summed[j] += row[j]
            parts[many] = norms[t, b] if alone else row_norm(summed, 0, N)
            many += 1
        out[t] = row_norm(parts, 0, many)
    restore(control)


@kernel
def id_gradient(ids, D, d, ldd, rows, N, low, high, out):
    """out (V, N) = Σ over rows of one id, for the columns low…high − 1; float32 adds up in float64."""
    control = flush_denormals()
    total = np.zeros((out.shape[0], high - low), np.float64)
    for r in range(rows):
        row, into = D[d + r * ldd + low : d + r * ldd + high], total[ids[r]]
        for j in range(high - low):
            into[j] += row[j]
    out[:, low:high] = total
    restore(control)


@kernel
def id_through(ids, ahead, through):
    """through (V,) += Σ over rows of one id of δ · direction."""
    for r in range(ids.size):
        through[ids[r]] += ahead[r]


@kernel
def inner_products(Z, ldz, D, d, ldd, low, high, B, M, N, P, width, out):
    """⟨Z_tᵀ D_t, V⟩ = Σ_b z_tb V δ_tbᵀ for steps low…high − 1; P = packed(V)."""
    control = flush_denormals()
    some = max(1, 64 // B)
    block = np.empty(some * B * N, Z.dtype)
    for t in range(low, high, some):
        many = min(some, high - t)
        block[: many * B * N] = 0
        multiply(Z, t * B * ldz, ldz, many * B, M, P, width, block, 0, N, N, 0, -(-N // width))
        for s in range(many):
            found = 0.0
            for b in range(B):
                found += dot(block, (s * B + b) * N, D, d + ((t + s) * B + b) * ldd, N)
            out[t + s] = found
    restore(control)

"""Register tiles of a product.

A product is made of tiles of a few rows by one or more panels of LANES · 2 columns, held in registers while k runs. All
tiles add in the order of k, one fused multiply-add per term, so that an element is the same to the last bit whatever
tile, block or thread it was computed in.

    C[i, j] += Σ_k A[i, k] B[k, j]        A with any strides, B packed panel by panel (`bptt.engine.compiled.product`)

Arrays are given with an offset in elements, as flat memory.
"""

from numba import types

from bptt.engine.compiled.emit import BYTES, Code, intrinsic


def _multiply(code, rows, panels, a, si, sk, b, sp, K, sums):
    """Sums of a tile after all k; a: address of A[0, 0], si, sk: its strides in bytes, b: of the first panel."""
    builder, width, size = code.b, 2 * panels, code.size
    row = [a]
    for _ in range(1, rows):
        row.append(builder.add(row[-1], si))
    first = [b]
    for _ in range(1, panels):
        first.append(builder.add(first[-1], sp))

    def step(k, sums):
        along, down = builder.mul(k, sk), builder.mul(k, code.const(2 * code.lanes * size))
        sums, columns = list(sums), []
        for start in first:
            at = builder.add(start, down)
            columns += [code.load(at), code.load(at, BYTES)]
        for i in range(rows):
            value = code.spread(code.one(builder.add(row[i], along)))
            for j in range(width):
                sums[i * width + j] = code.fma(value, columns[j], sums[i * width + j])
        return sums

    return code.loop(K, sums, step)


def _tile(rows, panels):
    @intrinsic
    def tile(typing, a, ai, si, sk, b, bi, sp, K, c, ci, ldc):
        n = types.intp
        signature = types.void(a, n, n, n, b, n, n, n, c, n, n)

        def emit(context, builder, signature, args):
            a, ai, si, sk, b, bi, sp, K, c, ci, ldc = args
            code, kinds = Code(context, builder, signature.args[0].dtype), signature.args
            at, across = code.at(kinds[8], c, ci), code.bytes(ldc)
            places = [at]
            for _ in range(1, rows):
                places.append(builder.add(places[-1], across))
            spots = [(place, j * BYTES) for place in places for j in range(2 * panels)]
            sums = [code.load(*spot) for spot in spots]
            start, first = code.at(kinds[0], a, ai), code.at(kinds[4], b, bi)
            sums = _multiply(
                code, rows, panels, start, code.bytes(si), code.bytes(sk), first, code.bytes(sp), K, sums
            )  # fmt: skip
            for value, spot in zip(sums, spots, strict=True):
                code.store(value, *spot)
            return context.get_dummy_value()

        return signature, emit

    return tile


def _squares(rows, scaled):
    """C += A B for one panel; and to the 4 vectors of squares, the squares of the elements of A B (times scale)."""

    @intrinsic
    def tile(typing, a, ai, si, sk, b, bi, K, c, ci, ldc, scale, squares):
        n = types.intp
        signature = types.void(a, n, n, n, b, n, n, c, n, n, a.dtype, squares)

        def emit(context, builder, signature, args):
            a, ai, si, sk, b, bi, K, c, ci, ldc, scale, squares = args
            code, kinds = Code(context, builder, signature.args[0].dtype), signature.args
            start, first = code.at(kinds[0], a, ai), code.at(kinds[4], b, bi)
            sums = [code.zero() for _ in range(2 * rows)]
            sums = _multiply(code, rows, 1, start, code.bytes(si), code.bytes(sk), first, code.const(0), K, sums)
            scale, place, across = code.spread(scale), code.at(kinds[7], c, ci), code.bytes(ldc)
            found = code.at(kinds[11], squares, code.const(0))
            totals = [code.load(found, i * BYTES) for i in range(4)]
            for i in range(rows):
                for j in range(2):
                    value, at = sums[2 * i + j], (2 * i + j) % 4
                    code.store(builder.fadd(code.load(place, j * BYTES), value), place, j * BYTES)
                    value = builder.fmul(value, scale) if scaled else value
                    totals[at] = code.fma(value, value, totals[at])
                place = builder.add(place, across)
            for i, total in enumerate(totals):
                code.store(total, found, i * BYTES)
            return context.get_dummy_value()

        return signature, emit

    return tile


tile_1, tile_2, tile_4, tile_8 = _tile(1, 4), _tile(2, 2), _tile(4, 1), _tile(8, 1)
tile_1_one, tile_2_one = _tile(1, 1), _tile(2, 1)
squares_4, squares_8 = _squares(4, False), _squares(8, False)
scaled_squares_4, scaled_squares_8 = _squares(4, True), _squares(8, True)

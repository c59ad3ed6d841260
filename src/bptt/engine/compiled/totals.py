"""What the uses of many steps come to: the gradient, and on request the norm of every step and the check of the sum.

The check is that of Freivalds (1977): with a normal vector v, Σ_t z_tᵀ (δ_t v) is made without any product of z and δ,
and ‖Σ_t z_tᵀ (δ_t v) − dW v‖ / ‖dW‖ is the residual: its mean square is that of ‖Σ_t dW_t − dW‖ / ‖dW‖.
docs/decisions/0005-compiled.md says more.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bptt.engine.compiled import measure
from bptt.engine.compiled.emit import panel
from bptt.engine.compiled.product import gradient, packed
from bptt.engine.compiled.threads import WORTH, run, spread
from bptt.ledger import total
from bptt.ledger.norms import norms, sequence_norms
from bptt.typing import Array, Params
from bptt.uses import Columns, Elementwise, Matmul, Uses

DIRECTION_SEED = 20


class Flat(NamedTuple):
    """An array (n, B, N) as flat memory: where it begins, and how far apart its rows are."""

    memory: Array
    start: int
    apart: int


def flat(a: Array) -> Flat:
    """The memory of an array whose rows are contiguous, without a copy where it can be."""
    if a.flags.c_contiguous:
        return Flat(a.reshape(-1), 0, a.shape[-1])
    base, item = a.base, a.itemsize
    if base is not None and base.ndim == 1 and base.dtype == a.dtype and a.strides[-1] == item:
        B, apart = a.shape[1], a.strides[1] // item
        if a.strides[0] == B * a.strides[1]:
            return Flat(base, (a.ctypes.data - base.ctypes.data) // item, apart)
    return Flat(np.ascontiguousarray(a).reshape(-1), 0, a.shape[-1])


class Measured(NamedTuple):
    """norms (n,) ‖dW_t‖.  sequence_norms (n, B) ‖dW_tb‖."""

    norms: Array
    sequence_norms: Array


class _Rows(NamedTuple):
    """Of a δ: norms (n, B), ahead (n, B) = δ · v, biases (n,) ‖Σ_b δ‖, totals (blocks, N) Σ_tb δ, v (N,)."""

    norms: Array
    ahead: Array
    biases: Array
    totals: Array
    v: Array


class _Product:
    """One product z (n, B, M) with δ (n, B, N), and what is known of it."""

    def __init__(self, part: Matmul, M: int):
        self.n, self.B, self.N = part.delta.shape
        self.M, self.part, self.ids = M, part, part.z.dtype.kind in "iu"
        self.z, self.delta = (flat(part.delta) if self.ids else flat(part.z)), flat(part.delta)
        dtype = part.delta.dtype
        self.width = panel(dtype.itemsize)
        self.panels = -(-self.N // self.width)
        self.out, self.sums = np.empty((M, self.N), dtype), np.empty(self.N)
        self.squares, self.scales = np.empty((0, self.panels)), np.empty(0, dtype)
        self.inputs: Array = np.empty(0)
        self.through: Array = self.inputs
        self.bound: Array = self.inputs

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return self.n * self.B * self.N * (8 if self.ids else self.M)

    def multiply(self, low: int, high: int) -> None:
        """Some panels of Σ_t z_tᵀ δ_t."""
        if self.ids:
            columns = min(low * self.width, self.N), min(high * self.width, self.N)
            ids = self.part.z.reshape(-1)
            measure.id_gradient(ids, *self.delta, self.n * self.B, self.N, *columns, self.out)
            return
        z, sizes = self.z, (self.n, self.B, self.M, self.N, self.width)
        gradient(z.memory, z.apart, *self.delta, *sizes, low, high, self.out, self.sums, self.squares, self.scales)


class Totals:
    """Adds up the uses of parameters with these shapes.

    Args:
        shapes: name → shape, in the order in which gradients are handed out.
        dtype: float32 or float64.  threads: how many at most.
        measure: whether norms and residuals are wanted.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: Any, threads: int, measure: bool = False):
        self.shapes, self.dtype, self.threads, self.measure = shapes, np.dtype(dtype), threads, measure
        self.sums: Params = {}
        self.through: dict[str, tuple[Array, Array]] = {}  # name → Σ_t z_tᵀ (δ_t v), v

    def add(self, uses: Uses) -> dict[str, Measured]:
        """Take in uses z (n, B, M), δ (n, B, N) of a stretch; what was measured of each, empty if it is not wanted."""
        if not uses:
            return {}
        products = {
            name: [_Product(part, self.shapes[name][0]) for part in (use.parts if isinstance(use, Columns) else (use,))]
            for name, use in uses.items()
            if isinstance(use, Matmul | Columns)
        }
        every = [product for parts in products.values() for product in parts]
        rows = self._rows(every, uses) if self.measure else {}
        self._multiply(every)
        columns = {id(product.part.delta): product.sums for product in every if not product.ids}
        found = {}
        for name, use in uses.items():
            if name in products:
                total_of, measured = self._of_matrix(name, products[name], rows)
            elif isinstance(use, Elementwise):
                total_of, measured = self._of_vector(name, use, rows, columns)
            else:
                raise TypeError(use)
            known = self.sums.get(name)
            self.sums[name] = total_of if known is None else known + total_of.astype(np.float64)
            if measured is not None:
                found[name] = measured
        return found

    def gradients(self) -> Params:
        """Name → dW."""
        return {name: self.sums[name].astype(self.dtype, copy=False) for name in self.shapes}

    def residuals(self, gradients: Params) -> dict[str, float]:
        """Name → ‖Σ_t dW_t − dW‖ / ‖dW‖ along a random direction."""
        out = {}
        for name in self.shapes:
            (found, v), dW = self.through[name], gradients[name]
            scale = float(np.abs(dW).max()) or 1.0
            columns = dW if dW.ndim == 2 else dW[:, None]
            off, size = measure.differences(columns, v.astype(self.dtype), found, 1 / scale)
            out[name] = off / size if size > 0 else (0.0 if off == 0 else math.inf)
        return out

    # ---- passes over the factors -------------------------------------------------------------------------------

    def _rows(self, products: list[_Product], uses: Uses) -> dict[int, _Rows]:
        """What the rows of every δ are, and of every z with it: all of it block by block of steps, in one pass."""
        deltas = {id(product.part.delta): product.part.delta for product in products}
        deltas |= {id(u.delta): u.delta for u in uses.values() if isinstance(u, Elementwise) and u.z is None}
        n, B = next(iter(deltas.values())).shape[:2]
        blocks = -(-n // measure.BLOCK)
        rows, memory = {}, {}
        for key, delta in deltas.items():
            N = delta.shape[-1]
            norms, ahead, biases = (np.empty(shape, self.dtype) for shape in ((n, B), (n, B), n))
            rows[key] = _Rows(norms, ahead, biases, np.empty((blocks, N)), _direction(N, self.dtype))
            memory[key] = (flat(delta), N)
        for product in products:
            if not product.ids:
                product.inputs = np.empty((n, B), self.dtype)
                product.through = np.empty((blocks, product.M))

        def some(part: tuple[int, int]) -> None:
            for key, (where, N) in memory.items():
                row = rows[key]
                measure.rows_of_deltas(
                    *where, *part, n, B, N, row.v, row.norms, row.ahead, row.biases, row.totals
                )  # fmt: skip
            for product in products:
                if not product.ids:
                    z, ahead = product.z, rows[id(product.part.delta)].ahead
                    measure.rows_of_inputs(
                        z.memory, z.apart, *part, n, B, product.M, ahead, product.inputs, product.through
                    )  # fmt: skip

        work = n * B * 8 * (sum(N for _, N in memory.values()) + sum(product.M for product in products))
        run(some, spread(blocks, self._threads(work)))
        for product in products:
            if not product.ids:
                self._scale(product, rows[id(product.part.delta)])
        return rows

    def _scale(self, product: _Product, rows: _Rows) -> None:
        """Bounds of the norms, and powers of two that bring them near 1 where they come from the product itself."""
        product.bound = np.einsum("tb,tb->t", product.inputs, rows.norms, dtype=np.float64)
        if product.B > measure.GRAM_ROWS:
            product.squares = np.empty((product.n, product.panels))
            product.scales = _to_one(product.bound, self.dtype)

    def _multiply(self, products: list[_Product]) -> None:
        """All products, each divided by its panels."""
        threads = self._threads(sum(product.work for product in products))
        divided = [spread(product.panels, threads) for product in products]

        def some(i: int) -> None:
            for product, parts in zip(products, divided, strict=True):
                if i < len(parts):
                    product.multiply(*parts[i])

        if products:
            run(some, range(max(len(parts) for parts in divided)))

    # ---- one parameter -----------------------------------------------------------------------------------------

    def _of_matrix(self, name: str, products: list[_Product], rows: dict[int, _Rows]) -> tuple[Array, Measured | None]:
        whole = products[0].out if len(products) == 1 else np.concatenate([p.out for p in products], axis=1)
        if not self.measure:
            return whole, None
        measured, found, v = [], np.zeros(1), []
        for product in products:
            row = rows[id(product.part.delta)]
            measured.append(self._norms(product, row))
            found = found + self._through(product, row)
            v.append(row.v)
        self._pass_through(name, found, v[0] if len(v) == 1 else np.concatenate(v))
        if len(measured) == 1:
            return whole, measured[0]
        return whole, Measured(*(functools.reduce(np.hypot, parts) for parts in zip(*measured, strict=True)))

    def _of_vector(
        self, name: str, use: Elementwise, rows: dict[int, _Rows], columns: dict[int, Array]
    ) -> tuple[Array, Measured | None]:
        shape = self.shapes[name]
        if use.z is not None:
            sums = total(use, shape)
            if not self.measure:
                return sums, None
            self._pass_through(name, (use.z * use.delta).sum(1, dtype=np.float64).sum(0), np.ones(1))
            return sums, Measured(norms(use, shape), sequence_norms(use))
        sums = columns.get(id(use.delta))
        if sums is None:
            (n, B, N), sums = use.delta.shape, np.empty(shape)
            measure.sum_rows(*flat(use.delta), n * B, N, sums)
        sums = sums.astype(self.dtype)
        if not self.measure:
            return sums, None
        row = rows[id(use.delta)]
        self._pass_through(name, row.totals.sum(0), np.ones(1))
        return sums, Measured(row.biases, row.norms)

    def _norms(self, product: _Product, rows: _Rows) -> Measured:
        n, B, M, N = product.n, product.B, product.M, product.N
        if product.ids:
            by_step, ids = np.empty(n, self.dtype), product.part.z.reshape(-1)
            self._over_steps(n, n * B * N * 4, lambda low, high: measure.id_norms(
                ids, *product.delta, low, high, B, N, rows.norms, by_step))  # fmt: skip
            return Measured(by_step, rows.norms)
        sizes = product.inputs * rows.norms
        if B == 1:
            return Measured(sizes[:, 0], sizes)
        if len(product.squares):
            return Measured((np.sqrt(product.squares.sum(1)) / product.scales).astype(self.dtype), sizes)
        by_step, z = np.empty(n, self.dtype), product.z
        scales = np.stack([_to_one(size.max(1), self.dtype) for size in (product.inputs, rows.norms)], 1)
        cancelled = 1e-2 if self.dtype.itemsize < 8 else 1e-4
        self._over_steps(n, n * B * B * (M + N), lambda low, high: measure.gram_norms(
            z.memory, z.apart, *product.delta, low, high, B, M, N, product.width, product.bound, scales, cancelled,
            by_step))  # fmt: skip
        return Measured(by_step, sizes)

    def _through(self, product: _Product, rows: _Rows) -> Array:
        """Σ_t z_tᵀ (δ_t v)."""
        if not product.ids:
            return product.through.sum(0)
        found = np.zeros(product.M)
        measure.id_through(product.part.z.reshape(-1), rows.ahead.reshape(-1), found)
        return found

    def _pass_through(self, name: str, found: Array, v: Array) -> None:
        known = self.through.get(name)
        self.through[name] = (found if known is None else known[0] + found, v)

    def _over_steps(self, n: int, work: int, do: Callable[[int, int], None]) -> None:
        run(lambda part: do(*part), spread(n, self._threads(work)))

    def _threads(self, work: int) -> int:
        return self.threads if work >= WORTH else 1


@functools.cache
def _direction(N: int, dtype: np.dtype) -> Array:
    """A random direction, always the same, of length √N: E‖E v‖² = ‖E‖² for any matrix E."""
    v = np.random.default_rng([DIRECTION_SEED, N]).standard_normal(N)
    return (v * math.sqrt(N / (v @ v))).astype(dtype)


def _to_one(sizes: Array, dtype: np.dtype) -> Array:
    """Powers of two that bring numbers near 1; 1 for those that are not far from it, and those that cannot be."""
    if len(sizes) and sizes.min() > 1e-12 and sizes.max() < 1e12:
        return np.ones(len(sizes), dtype)
    most = 120 if dtype.itemsize == 4 else 1000
    usable = (sizes > 0) & np.isfinite(sizes)
    exponents = np.frexp(np.where(usable, sizes, 0.5))[1]
    return np.ldexp(np.ones(len(sizes), dtype), np.clip(-exponents, -most, most))


def inner_products(use: Matmul, V: Array, threads: int) -> Array:
    """⟨dW_t, V⟩ of every step, (n,)."""
    (n, B, N), M, delta, z = use.delta.shape, V.shape[0], flat(use.delta), flat(use.z)
    out, P = np.empty(n, V.dtype), packed(V)
    work = n * B * M * N
    run(
        lambda part: measure.inner_products(
            z.memory, z.apart, *delta, *part, B, M, N, P, panel(V.itemsize), out
        ),
        spread(n, threads if work >= WORTH else 1, 8),
    )  # fmt: skip
    return out

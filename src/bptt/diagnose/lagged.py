"""Windowed truncation bias, exactly, without keeping all contributions: every loss is walked back, and summed by lag.

    Σ_k D_k(K) = Σ_t z_tᵀ Σ_{k: k − t ≥ K} δ_kt

C[k, t] is linear in δ, so that of each step only a few sums over the losses are kept, one for each K. The walk costs
what a map costs.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bptt.diagnose.truncation import Truncation, compare, exact
from bptt.engine import record_with
from bptt.errors import InputError
from bptt.ledger import Ledger, Recorder
from bptt.ledger.norms import norm
from bptt.ledger.reductions import total
from bptt.model import Batch, Loss, Network, Scan, States
from bptt.typing import Array
from bptt.uses import Columns, Use, Uses, with_factors


def log_grid(T: int, count: int, at: Sequence[int] = ()) -> Array:
    """About `count` whole numbers from 1 to T, evenly spread over their logarithm, and those of `at` below T.

    >>> log_grid(100, 8).tolist(), log_grid(100, 3, [35, 100, 300]).tolist()
    ([1, 2, 4, 7, 14, 27, 52, 100], [1, 10, 35, 100])
    """
    grid = np.round(np.geomspace(1, T, count)).astype(int)
    return np.unique([*grid, *(K for K in at if K < T)])


def check_at(at: Sequence[int]) -> None:
    """Raise InputError unless all of them are whole numbers from 1 on."""
    for K in at:
        if isinstance(K, bool) or not isinstance(K, int | np.integer) or K < 1:
            raise InputError("at", got=K, expected="values of K, whole numbers from 1 on")


@np.errstate(all="ignore")
def windowed_by_lag(
    network: Network, batch: Batch, loss: Loss, names: Sequence[str], grid: Array, *, states: States | None = None,
    engine: str = "auto",
) -> tuple[Ledger, dict[str, Truncation]]:  # fmt: skip
    """The ledger of the pass, and "windowed" of each parameter at the K of the grid (ascending, to T).

    Raises:
        ShapeError, InputError, NotFiniteError: as `bptt.gradient`.
    """
    made: list[_ByLag] = []

    def make(shapes: dict[str, tuple[int, ...]], T: int, B: int, dtype: Any) -> Recorder:
        made.append(_ByLag(shapes, T, B, dtype, names, grid))
        return made[-1]

    ledger = record_with(make, network, batch, loss, states=states, engine=engine)
    return ledger, {name: _found(ledger, name, made[-1], grid) for name in names}


def _found(ledger: Ledger, name: str, sums: "_ByLag", grid: Array) -> Truncation:
    dW = ledger.gradient(name)
    bias, cosine, size = np.zeros(len(grid)), np.ones(len(grid)), norm(dW)
    if size > 0 and name in sums.slots:
        for g in range(len(grid)):
            bias[g], cosine[g] = compare(total(sums.use(ledger.uses[name], name, g), dW.shape), dW, size)
    return exact(name, "windowed", grid, bias, cosine, ledger.K)


class _ByLag(Recorder):
    """Keeps factors, and of the single losses Σ δ over those that stand K steps away and more.

    sums: prefix of the scan → arrays (G, T, B, N); parameters that share δ share them.
    slots: name → which of them, one for each block of columns.
    """

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], T: int, B: int, dtype: Any, names: Sequence[str], grid: Array
    ):  # fmt: skip
        super().__init__(shapes, T, B, dtype, "factors", map=True)
        self.maps = {}  # which are not measured
        self.names, self.edges = set(names), [*grid.tolist(), 2 * T]
        self.sums: dict[str, list[Array]] = {}
        self.slots: dict[str, list[int]] = {}
        self.finished = False

    def losses_visitor(self, stack: Any, measure: Any = None) -> Callable[..., None]:
        """Adds δ (K, B, N) of a step up by lag; see `Recorder`."""

        def visit(scan: Scan, t: int, ds: Any, uses: Uses, first: int) -> None:
            asked = {scan.prefix + name: _deltas(use) for name, use in uses.items() if scan.prefix + name in self.names}
            if scan.prefix not in self.sums:
                self._plan(scan.prefix, asked)
            done: set[int] = set()
            for name, deltas in asked.items():
                for slot, delta in zip(self.slots[name], deltas, strict=True):
                    if slot not in done:
                        self._add(self.sums[scan.prefix][slot], t, delta, first)
                        done.add(slot)

        return visit

    def _plan(self, prefix: str, asked: dict[str, list[Array]]) -> None:
        """Room for every δ, once for those that are one array."""
        found = {id(delta): delta for deltas in asked.values() for delta in deltas}
        shape = (len(self.edges) - 1, self.T)
        self.sums[prefix] = [np.zeros((*shape, *delta.shape[1:]), delta.dtype) for delta in found.values()]
        self.slots |= {name: [list(found).index(id(delta)) for delta in deltas] for name, deltas in asked.items()}

    def _add(self, into: Array, t: int, delta: Array, first: int) -> None:
        for g, (near, far) in enumerate(itertools.pairwise(self.edges)):
            later = delta[max(t + near - first, 0) : max(t + far - first, 0)]
            earlier = delta[max(t - far + 1 - first, 0) : max(t - near + 1 - first, 0)]
            for part in (later, earlier):
                if len(part):
                    into[g, t] += part.sum(0)

    def add_losses(self, start: int, uses: Uses, own: Uses) -> None:
        """Nothing more: what only the own step's loss sees has lag 0."""

    def use(self, use: Use, name: str, g: int) -> Use:
        """The use with δ of all losses that stand so far away, z (T, B, M) and δ (T, B, N)."""
        if not self.finished:
            for part in (part for parts in self.sums.values() for part in parts):
                for i in range(len(part) - 2, -1, -1):
                    part[i] += part[i + 1]
            self.finished = True
        parts = self.sums[name.rpartition(".")[0] + "."]
        deltas = iter([parts[slot][g] for slot in self.slots[name]])
        return with_factors(use, delta=lambda d: next(deltas))


def _deltas(use: Use) -> list[Array]:
    parts: list[Any] = list(use.parts) if isinstance(use, Columns) else [use]
    return [part.delta for part in parts]

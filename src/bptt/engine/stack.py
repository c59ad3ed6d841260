"""The uses of many steps as one use: factors stacked along time, without copying what several parameters share."""

from typing import Any

import numpy as np

from bptt.model import Scan
from bptt.typing import Array
from bptt.uses import Columns, Use, Uses


class Stack:
    """Collects the uses of n steps that begin at `start`.

    With losses (K,) leading the deltas, either adds them up (`losses=None`), or keeps K rows beginning at `first`.
    """

    def __init__(self, start: int, steps: int, losses: int | None = None):
        self.start, self.steps, self.losses = start, steps, losses
        self.arrays: list[Array] = []
        self.plans: dict[str, list[tuple[type[Any], int | None, int]]] = {}  # parameter → kind, z, delta of each part
        self.slots: dict[str, list[int]] = {}  # scan → the arrays that each step fills, in order of appearance

    def visit(self, scan: Scan, t: int, ds: Any, uses: Uses, first: int = 0) -> None:
        """Take in one step of one scan; `first` is the loss that the first row belongs to."""
        if scan.prefix not in self.slots:
            self._plan(scan, uses)
        seen: set[int] = set()
        for name, use in uses.items():
            for part, (_, z, delta) in zip(_parts(use), self.plans[scan.prefix + name], strict=True):
                if z is not None and z not in seen:
                    self.arrays[z][t - self.start] = part.z
                if delta not in seen:
                    self._add(self.arrays[delta], t - self.start, part.delta, first)
                seen |= {delta} if z is None else {z, delta}

    def _add(self, into: Array, t: int, delta: Array, first: int) -> None:
        if self.losses is not None:
            into[first : first + len(delta), t] = delta
        elif delta.ndim == 3:  # rows are losses of one window: their deltas add, since they share z
            into[t] += delta.sum(0)
        else:
            into[t] = delta

    def _plan(self, scan: Scan, uses: Uses) -> None:
        """Lay out the arrays; parameters whose step shares a delta or an input share its stack too."""
        known: dict[int, int] = {}
        for name, use in uses.items():
            plan = self.plans[scan.prefix + name] = []
            for part in _parts(use):
                z = None if part.z is None else self._slot(known, part.z, part.z.shape, None)
                delta = self._slot(known, part.delta, part.delta.shape[-2:], self.losses)
                plan.append((type(part), z, delta))
        self.slots[scan.prefix] = list(known.values())

    def _slot(self, known: dict[int, int], array: Array, shape: tuple[int, ...], losses: int | None) -> int:
        if id(array) not in known:
            lead = (self.steps,) if losses is None else (losses, self.steps)
            self.arrays.append(np.zeros(lead + shape, array.dtype))
            known[id(array)] = len(self.arrays) - 1
        return known[id(array)]

    def uses(self) -> Uses:
        """Parameter → its use with z (n, B, M) and delta (n, B, N) or (K, n, B, N)."""
        out: Uses = {}
        for name, plan in self.plans.items():
            parts = [kind(None if z is None else self.arrays[z], self.arrays[delta]) for kind, z, delta in plan]
            out[name] = parts[0] if len(parts) == 1 else Columns(tuple(parts))
        return out


def _parts(use: Use) -> tuple[Any, ...]:
    return use.parts if isinstance(use, Columns) else (use,)

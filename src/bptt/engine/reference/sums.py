"""The gradient itself: Σ_t z_tᵀ δ_t, a few steps at a time, straight from the uses as they come.

It has nothing to do with what a ledger keeps, so that a ledger can be held against it.
"""

from typing import Any

import numpy as np

from bptt.ledger import total
from bptt.model import Scan
from bptt.typing import Array, Params
from bptt.uses import Columns, Use, Uses

STEPS = 64  # steps whose uses are multiplied at once: large products are fast, and these still fit in the cache


class Sums:
    """Adds up the uses of parameters with these shapes; float32 parts add up in float64."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: Any):
        self.shapes, self.dtype = shapes, np.dtype(dtype)
        self.sums: Params = {}
        self.waiting: dict[str, list[Uses]] = {}

    def visit(self, scan: Scan, t: int, ds: Any, uses: Uses, first: int = 0) -> None:
        """Take in the uses of one step; with losses leading (K, B, N), the losses add up."""
        waiting = self.waiting.setdefault(scan.prefix, [])
        waiting.append(uses)
        if len(waiting) == STEPS:
            self._multiply(scan.prefix)

    def add(self, stretch: Any, uses: Uses) -> None:
        """Take in the readout's uses of a whole stretch, z (n, B, M) and δ (n, B, N), under their full names."""
        for name, use in uses.items():
            self._add(name, use)

    def gradients(self) -> Params:
        """Name → dW, in the order of the shapes."""
        for prefix in list(self.waiting):
            self._multiply(prefix)
        return {name: self.sums[name].astype(self.dtype) for name in self.shapes}

    def _multiply(self, prefix: str) -> None:
        steps, joined = self.waiting.pop(prefix), dict[tuple[int, ...], Array]()
        for name in steps[0]:
            self._add(prefix + name, _rows([uses[name] for uses in steps], joined))

    def _add(self, name: str, use: Use) -> None:
        part = total(use, self.shapes[name])
        if name in self.sums:
            self.sums[name] += part
        else:
            self.sums[name] = part.astype(np.promote_types(part.dtype, np.float64))


def _rows(uses: list[Use], joined: dict[tuple[int, ...], Array]) -> Use:
    """The uses of several steps as one, z (n·B, M) and δ (n·B, N); arrays that parameters share are joined once."""
    if isinstance(uses[0], Columns):
        blocks = zip(*(use.parts for use in uses if isinstance(use, Columns)), strict=True)
        parts: list[Any] = [_rows(list(block), joined) for block in blocks]
        return Columns(tuple(parts))
    plain: list[Any] = uses

    def join(arrays: list[Array]) -> Array:
        key = tuple(map(id, arrays))
        if key not in joined:
            joined[key] = np.concatenate([a.sum(0) if lead and a.ndim == 3 else a for a in arrays])
        return joined[key]

    lead = plain[0].delta.ndim == 3
    z = None if plain[0].z is None else join([use.z for use in plain])
    return type(plain[0])(z, join([use.delta for use in plain]))

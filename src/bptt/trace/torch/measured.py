"""What the factors of a trace come to, on the compiled engine where it is there: norms of every step, and their sum.

NumPy would measure the same when it is asked; but its threads and torch's wait for each other's cores.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from bptt.engine import choose_engine
from bptt.ledger.norms import norm
from bptt.ledger.reductions import is_ids
from bptt.typing import Array, Params
from bptt.uses import Elementwise, Linear, Matmul, Use, Uses

REAL = (np.dtype(np.float32), np.dtype(np.float64))


class Found(NamedTuple):
    """norms (n,), sequence_norms (n, B), and how far the sum of the uses is from the gradient, gap = ‖Σ dW_t − dW‖."""

    norms: Array
    sequence_norms: Array
    gap: float


def measure(uses: Uses, gradients: Params) -> dict[str, Found]:
    """Name → what was found of its uses; those whose factors the engine does not take are left out."""
    if choose_engine("auto", np.float32) != "compiled":
        return {}
    found: dict[str, Found] = {}
    for group in _groups(uses, gradients):
        found |= _measure(group, gradients)
    return found


def _groups(uses: Uses, gradients: Params) -> list[Uses]:
    """Uses with the same steps and rows: the engine goes through these together."""
    groups: dict[Any, Uses] = {}
    for name, use in uses.items():
        if _fits(use, gradients[name]):
            delta: Any = use.delta  # type: ignore[union-attr]
            groups.setdefault((*delta.shape[:2], delta.dtype), {})[name] = use
    return list(groups.values())


def _fits(use: Use, dW: Array) -> bool:
    if not isinstance(use, Matmul | Linear | Elementwise) or use.delta.dtype not in REAL:
        return False
    if isinstance(use, Elementwise):
        return use.z is None and dW.ndim == 1
    return dW.dtype == use.delta.dtype and (is_ids(use.z) or use.z.dtype == use.delta.dtype)


def _measure(group: Uses, gradients: Params) -> dict[str, Found]:
    from bptt.engine.compiled.openmp import borrow
    from bptt.engine.compiled.totals import Totals

    borrow()
    turned: Uses = {n: Matmul(*u) if isinstance(u, Linear) else u for n, u in group.items()}
    flipped = {name: isinstance(use, Linear) for name, use in group.items()}
    shapes = {name: gradients[name].shape[::-1] if flipped[name] else gradients[name].shape for name in group}
    dtype = gradients[next(iter(group))].dtype
    totals = Totals(shapes, dtype, torch.get_num_threads(), measure=True)
    with np.errstate(all="ignore"):
        measured, sums = totals.add(turned), totals.gradients()
        gaps = {name: norm((sums[name].T if flipped[name] else sums[name]) - gradients[name]) for name in group}
    return {name: Found(*measured[name], gaps[name]) for name in group}

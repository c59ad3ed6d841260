"""Many losses walked back at once, each with its own adjoint: they are more rows of the same products."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bptt.engine.plan import Windowed
from bptt.model import Scan, States
from bptt.typing import Array
from bptt.uses import Uses, with_factors

ROWS_BYTES = 32 << 20  # adjoints of so many losses are walked back at once as fit in this
Visit = Callable[
    [Scan, int, Any, Uses, int], None
]  # scan, step, adjoints (K·B, S) after it, uses δ (K, B, N), first loss


def group_size(run: Any) -> int:
    """How many losses are walked back at once."""
    cell, net = run.network.cell, run.network
    one = run.B * cell.hidden * (2 * len(cell.gates) + 4)
    if net.layers > 1:
        one += run.n * run.B * cell.width * net.directions
    return int(min(run.T, max(1, ROWS_BYTES // (one * net.dtype.itemsize))))


def sweep(
    run: Any, stretch: Any, dtop: Array, carries: dict[int, States], visit: Visit, states: bool = True
) -> Iterator[tuple[range, States]]:
    """Walk the losses back over a stretch, group by group: yields the losses, and their adjoints before the stretch.

    carries: first loss of a group → adjoints (K·B, S) of the states after the stretch.
    states: whether `visit` looks at the adjoints of the state; they are copied for it.
    """
    n, start, net, plan = len(stretch.y), stretch.start, run.network, run.given.plan
    size, causal = group_size(run), not net.bidirectional
    reach = plan.K if isinstance(plan, Windowed) else 2 * run.T
    for low in range(0, run.T, size):
        losses = range(low, min(low + size, run.T))
        if causal and losses.stop <= start:
            continue
        ahead = 0 if causal else reach - 1 if run.given.valid is None else run.T
        span = (max(0, losses.start - (reach - 1) - start), min(n, losses.stop + ahead - start))
        if span[0] < span[1]:
            yield losses, _Group(run, stretch, losses, reach, span, visit, states).back(dtop, carries.get(low))


class _Group:
    """Losses whose adjoints are rows (K·B, S) of one state."""

    def __init__(
        self, run: Any, stretch: Any, losses: range, reach: int, span: tuple[int, int], visit: Visit, states: bool
    ):  # fmt: skip
        self.run, self.stretch, self.losses, self.reach = run, stretch, losses, reach
        self.span, self.visit = span, visit
        self.rows, self.states = len(losses) * run.B, states

    def back(self, dtop: Array, carry: States | None) -> States:
        """All layers, from the last to the first."""
        net, before, inputs, below = self.run.network, {}, None, None
        for scan in reversed(net.scans()):
            if (scan.reverse or not net.bidirectional) and scan.layer:
                shape = (len(self.stretch.y), self.rows, scan.inputs)
                below = np.zeros(shape, net.dtype)
            before[scan.prefix] = self._scan(scan, dtop, inputs, below, carry)
            if not scan.reverse:
                inputs, below = below, None
        return before

    def _scan(self, scan: Scan, dtop: Array, above: Array | None, below: Array | None, carry: States | None) -> Any:
        run, net, walk = self.run, self.run.network, self.stretch.walks[scan.prefix]
        kernel, cell, width = run.layers.kernel, net.cell, net.cell.width
        half = slice(width, None) if scan.reverse else slice(0, width)
        kind = cell.State
        ds = kind(*(np.zeros((self.rows, w), net.dtype) for w in cell.state_widths()))
        if carry:
            ds = kind(*(part.copy() for part in carry[scan.prefix]))
        deltas, scratch = kernel.deltas(self.rows, net.dtype), kernel.scratch(self.rows, net.dtype)
        cut = run.cut(self.stretch, scan)
        for delta in deltas:
            delta[:] = 0
        order = range(*self.span) if scan.reverse else range(self.span[1] - 1, self.span[0] - 1, -1)
        for t in order:
            at, first = self.stretch.start + t, 0
            if above is not None:
                ds.h[:] += _live(above[t][:, half], walk.valid, t)
            elif at in self.losses:
                own = (at - self.losses.start) * run.B
                ds.h[own : own + run.B] += _live(dtop[t][:, half], walk.valid, t)
            if not net.bidirectional:  # losses before this step have nothing to say of it
                first = max(0, at - self.losses.start) * run.B
            after = kind(*(part.copy() for part in ds)) if self.states else None
            uses = walk.back_step(
                t, ds, deltas, scratch, cut, (self.losses.start, self.reach, self.stretch.start), first
            )  # fmt: skip
            self.visit(scan, at, after, from_loss(uses, first // run.B), self.losses.start + first // run.B)
            if below is not None:
                walk.add_inputs(deltas[0], below[t])
        return ds


def from_loss(uses: Uses, loss: int) -> Uses:
    """The uses as the losses from this one on see them; what parameters share stays shared."""
    known: dict[int, Array] = {}
    return {name: with_factors(u, delta=lambda d: known.setdefault(id(d), d[loss:])) for name, u in uses.items()}


def _live(add: Array, valid: Array | None, t: int) -> Array:
    """0 for sequences that have ended."""
    if valid is None:
        return add
    live = np.tile(valid[t], len(add) // len(valid[t]))[:, None]
    return np.where(live, add, add.dtype.type(0))

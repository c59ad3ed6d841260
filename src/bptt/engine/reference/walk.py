"""Forward and backward through time: one layer in one direction, then the layers of a network over a stretch of steps.

This is the only loop over time. It adds nothing up: `back` hands every step's uses to whoever asked.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt.cells import Cell, pick
from bptt.model import Network, Scan, States
from bptt.typing import Array
from bptt.uses import Uses

Keep = Callable[[int, int], Any]  # (from step, to step) → None: all of the adjoint, or what to multiply it with
Adjoint = Callable[[int], Array]
Visit = Callable[[Scan, int, Any, Uses], None]  # scan, step, adjoint of the state after it, its uses


class Stretch(NamedTuple):
    """Some steps, walked forward.

    start: first step (from 0).  top: (n, B, W) output of the last layer.  y: (n, B, O).
    states: after the stretch.  tapes: prefix of the scan → one tape per step.  valid: (n, B) or None for all.
    """

    start: int
    top: Array
    y: Array
    states: States
    tapes: dict[str, Sequence[Any]]
    valid: Array | None


def in_order(n: int, reverse: bool) -> range:
    """Steps in the order in which a direction walks them."""
    return range(n - 1, -1, -1) if reverse else range(n)


def forward(
    network: Network, x: Array, states: States, valid: Array | None = None, start: int = 0, every: int | None = None
) -> Stretch:
    """Walk all layers over x (n, B, D) or ids (n, B), from the given states; tapes only every so many steps if asked.

    A sequence that has ended (valid is False) keeps its state, and its outputs are 0.
    """
    after: States = {}
    tapes: dict[str, Sequence[Any]] = {}
    outputs: list[Array] = []
    for scan in network.scans():
        if not scan.reverse and scan.layer:
            x, outputs = join(outputs), []
        walk = _Walk(network.cell, pick(network.cell, network.params, scan.prefix), x, valid, scan.reverse)
        h, after[scan.prefix], tapes[scan.prefix] = walk.run(states[scan.prefix], every)
        outputs.append(h)
    top = join(outputs)
    return Stretch(start, top, readout(network, top), after, tapes, valid)


def join(outputs: list[Array]) -> Array:
    """The outputs of both directions side by side."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)


def readout(network: Network, top: Array) -> Array:
    """y = h W + b at every step; h itself where there is no readout."""
    if network.outputs is None:
        return top
    W = network.params["readout.W"]
    return (top.reshape(-1, W.shape[0]) @ W).reshape(*top.shape[:-1], W.shape[1]) + network.params["readout.b"]


class _Walk(NamedTuple):
    """One layer in one direction over x (n, B, D)."""

    cell: Cell
    p: Any
    x: Array
    valid: Array | None
    reverse: bool

    def step(self, t: int, s: Any) -> tuple[Any, Any]:
        new, tape = self.cell.step(self.p, self.x[t], s)
        if self.valid is not None:
            live = self.valid[t][:, None]
            new = type(new)(*(np.where(live, a, b) for a, b in zip(new, s, strict=True)))
        return new, tape

    def run(self, s: Any, every: int | None) -> tuple[Array, Any, Sequence[Any]]:
        """Outputs h (n, B, W), the state after, and the tapes (recomputed on demand if `every` is given)."""
        n = len(self.x)
        h = np.zeros((n, *s.h.shape), np.result_type(s.h, self.p.W_hh))
        tapes: list[Any] = [None] * n
        kept: dict[int, Any] = {}
        for count, t in enumerate(in_order(n, self.reverse)):
            if every and count % every == 0:
                kept[count // every] = s
            s, tape = self.step(t, s)
            tapes[t] = None if every else tape
            h[t] = s.h if self.valid is None else np.where(self.valid[t][:, None], s.h, 0)
        return h, s, Recomputed(self, kept, every) if every else tapes


class Recomputed(Sequence[Any]):
    """Tapes that are made again from the nearest kept state, one stretch at a time."""

    def __init__(self, walk: _Walk, kept: dict[int, Any], every: int):
        self.walk, self.kept, self.every = walk, kept, every
        self.current, self.tapes = -1, {}

    def __len__(self) -> int:
        return len(self.walk.x)

    def __getitem__(self, t: Any) -> Any:
        count = len(self) - 1 - t if self.walk.reverse else t
        if count // self.every != self.current:
            self.current, self.tapes = count // self.every, {}
            s = self.kept[self.current]
            order = in_order(len(self), self.walk.reverse)
            for step in order[self.current * self.every : (self.current + 1) * self.every]:
                s, self.tapes[step] = self.walk.step(step, s)
        return self.tapes[t]


def back(
    network: Network,
    stretch: Stretch,
    dtop: Adjoint,
    lead: tuple[int, ...],
    carry: States | None,
    keep: Keep,
    visit: Visit,
    span: tuple[int, int],
) -> tuple[Array | None, States]:
    """Walk all layers back over a stretch.

    Args:
        network: the network.
        stretch: what `forward` returned.
        dtop: step of the stretch → (*lead, B, W), the adjoint of the last layer's output there.
        lead: leading axes of every adjoint: () for the whole loss, (K,) for K losses at once.
        carry: adjoint of the states after the stretch, None for zero.
        keep: what survives of the adjoint on its way from one step to the next.
        visit: called at every step of every scan.
        span: first and last-plus-one step of the stretch, from 0; outside of it every adjoint is zero.

    Returns:
        dx (*lead, n, B, D), None for ids; and the adjoint of the states before the stretch.
    """
    n, B = stretch.top.shape[:2]
    before: States = {}
    dx: Array | None = None
    for scan in reversed(network.scans()):
        dh = _direction(dtop, network.cell.width, scan.reverse)
        if scan.reverse or not network.bidirectional:
            dx = None
        ds = carry[scan.prefix] if carry else _zeros(network.cell, (*lead, B), stretch.top.dtype)
        before[scan.prefix] = ds
        for t, ds_prev, dx_t in _back_scan(network, scan, stretch, dh, ds, keep, visit, span):
            if dx_t is not None and (scan.layer or not lead):
                dx = np.zeros((*lead, n, B, scan.inputs), dx_t.dtype) if dx is None else dx
                dx[..., t, :, :] += dx_t
            before[scan.prefix] = ds_prev
        if not scan.reverse and scan.layer:
            dtop = _stored(np.zeros((*lead, n, B, scan.inputs), stretch.top.dtype) if dx is None else dx)
    return dx, before


def _stored(dout: Array) -> Adjoint:
    return lambda t: dout[..., t, :, :]


def _direction(dtop: Adjoint, width: int, reverse: bool) -> Adjoint:
    """The half of the last axis that belongs to one direction."""
    return lambda t: dtop(t)[..., width:] if reverse else dtop(t)[..., :width]


def _zeros(cell: Cell, lead: tuple[int, ...], dtype: Any) -> Any:
    return cell.State(*(np.zeros((*lead, width), dtype) for width in cell.state_widths()))


def _back_scan(
    network: Network,
    scan: Scan,
    stretch: Stretch,
    dh: Adjoint,
    ds: Any,
    keep: Keep,
    visit: Visit,
    span: tuple[int, int],
) -> Iterator[tuple[int, Any, Array | None]]:
    """One layer in one direction: yields step, adjoint of the state before it, dx of the step."""
    cell, p = network.cell, pick(network.cell, network.params, scan.prefix)
    tapes, valid, onward = stretch.tapes[scan.prefix], stretch.valid, 1 if scan.reverse else -1
    for t in (span[0] + i for i in in_order(span[1] - span[0], not scan.reverse)):
        live = None if valid is None else valid[t][:, None]
        ds = ds._replace(h=ds.h + masked(dh(t), live))
        ds_prev, dx, uses = cell.step_back(p, tapes[t], _where(live, ds))
        if live is not None:  # a sequence that has ended hands its adjoint on as it is
            ds_prev = type(ds)(*(np.where(live, new, old) for new, old in zip(ds_prev, ds, strict=True)))
        at = stretch.start + t
        visit(scan, at, ds, uses)
        kept = keep(at, at + onward)
        if kept is not None and valid is not None and 0 <= t + onward < len(valid):
            kept = kept | ~valid[t + onward][:, None]  # nothing is cut on the way through padding to the initial state
        ds = _where(kept, ds_prev)
        yield t, ds, dx


def masked(a: Array, live: Array | None) -> Array:
    """Zero where `live` is False; `where` and not a product, since 0 × inf is not 0."""
    return a if live is None else np.where(live, a, a.dtype.type(0))


def _where(live: Array | None, state: Any) -> Any:
    """Every part of a state, zero where `live` is False."""
    return type(state)(*(masked(part, live) for part in state))

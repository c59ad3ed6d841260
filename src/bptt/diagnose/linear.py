"""A network along real data, to first order: the state Jacobians J_t = ∂s_t/∂s_{t−1} and their products with vectors.

The state is that of one layer in one direction, or that of all layers, h then c of each in their order. In the whole
state, layer l at step t reads the h of layer l − 1 at the same step, so that J_t is block lower triangular.

All numbers are float64, whatever the network computes in.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bptt.cells import pick
from bptt.diagnose.tangents import tangent
from bptt.engine.given import clean_inputs, valid_steps
from bptt.engine.reference.walk import forward, in_order
from bptt.errors import InputError, NotFiniteError, unknown
from bptt.model import Batch, Network, Scan, States
from bptt.typing import Array

MAX_BYTES = 1 << 30  # of `jacobians`
MAX_SEQUENCES = 4  # that spectrum, exponents and cell path look at: the longest ones, the first of those
See = Callable[[int, Any], None]


class Link(NamedTuple):
    """One scan of the state: its tapes in the order in which it walks, and where its parts stand in the state."""

    scan: Scan
    p: Any
    tapes: Sequence[Any]
    places: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Linearised:
    """The Jacobians of every step, ready to be multiplied with. Steps count from 1, in the order of the walk.

    state: "layer0.", or "" for the whole state.  cell: of every layer.  links: the scans of the state.
    T: steps.  B: sequences.  S: units of the state.  widths: of its parts, in their order.
    valid: (T, B) whether the sequence has that step, in the order of the walk; elsewhere J is the identity.
    top: (T, B, W) output of the last layer, in the order of the sequence.
    """

    state: str
    cell: Any
    links: tuple[Link, ...]
    T: int
    B: int
    S: int
    widths: tuple[int, ...]
    valid: Array
    top: Array

    def vjp(self, t: int, a: Array, see: See | None = None) -> Array:
        """J_tᵀ a: the adjoint of the state before step t, from that of the state after it.

        Args:
            t: step, 1…T.
            a: (..., B, S).
            see: called with the place of each scan and the adjoint of its state after the step, in which what layers
                above read of it at the same step is counted.
        """
        out, dx = np.empty(a.shape), None
        with np.errstate(all="ignore"):  # what overflows is looked for where it is used
            for place, link in reversed(list(enumerate(self.links))):
                ds = self._parts(link, a)
                ds = ds if dx is None else ds._replace(h=ds.h + dx)
                if see is not None:
                    see(place, ds)
                before, dx, _ = self.cell.step_back(link.p, link.tapes[t - 1], ds)
                for at, part in zip(link.places, before, strict=True):
                    out[..., at] = part
        return self._kept(t, out, a)

    def jvp(self, t: int, v: Array) -> Array:
        """J_t v: what a small change of the state before step t makes of the state after it; v (..., B, S)."""
        out, dx = np.empty(v.shape), None
        with np.errstate(all="ignore"):
            for link in self.links:
                after = tangent(self.cell, link.p, link.tapes[t - 1], dx, self._parts(link, v))
                for at, part in zip(link.places, after, strict=True):
                    out[..., at] = part
                dx = after.h
        return self._kept(t, out, v)

    def matrices(self, t: int) -> Array:
        """J_t of every sequence, (B, S, S): [b, i, j] is the derivative of s_t,i by s_{t−1},j."""
        rows = np.broadcast_to(np.eye(self.S)[:, None], (self.S, self.B, self.S))
        return self.vjp(t, rows).swapaxes(0, 1)

    def lengths(self) -> Array:
        """(B,) steps of each sequence."""
        return self.valid.sum(0)

    def _parts(self, link: Link, a: Array) -> Any:
        return self.cell.State(*(a[..., at] for at in link.places))

    def _kept(self, t: int, new: Array, old: Array) -> Array:
        live = self.valid[t - 1]
        return new if live.all() else np.where(live[:, None], new, old)


def linearise(
    network: Network, batch: Batch, *, layer: int | str | None = None, states: States | None = None
) -> Linearised:
    """Walk a batch forward in float64, and keep what its Jacobians are made of.

    Args:
        network: the network.
        batch: (T, B, …); its targets are not looked at.
        layer: a number, or "layer0." or "layer0.reverse."; None for the whole state.
        states: initial states, zeros by default.

    Raises:
        ShapeError, InputError, NotFiniteError: the batch or the states do not fit the network, or hold NaN; the state
            overflows; the whole state of a network with both directions, which is no map from step to step.
        UnknownName: no such layer.

    >>> rng = np.random.default_rng(0)
    >>> network = Network.create("lstm", inputs=3, hidden=4, layers=2)
    >>> linear = linearise(network, Batch(rng.standard_normal((6, 2, 3)), np.zeros((6, 2), int)))
    >>> linear.S, linear.widths, linear.matrices(6).shape
    (16, (4, 4, 4, 4), (2, 16, 16))
    """
    scans = chosen_scans(network, layer)
    network = network.astype(np.float64)
    lengths = None if batch.lengths is None else np.asarray(batch.lengths)
    batch = Batch(np.asarray(batch.x), batch.targets, lengths)
    network.check_batch(batch)
    T, B = batch.x.shape[:2]
    states, valid = network.check_states(states, B), valid_steps(batch)
    with np.errstate(all="ignore"):
        stretch = forward(network, clean_inputs(batch.x, valid, network.dtype), states, valid)
    for scan in network.scans():
        require_finite_tapes(scan, stretch.tapes[scan.prefix], valid)
    links, start = [], 0
    for scan in scans:
        ends = start + np.cumsum([0, *network.cell.state_widths()])
        places = tuple(slice(int(low), int(high)) for low, high in itertools.pairwise(ends))
        tapes = [stretch.tapes[scan.prefix][t] for t in in_order(T, scan.reverse)]
        links.append(Link(scan, pick(network.cell, network.params, scan.prefix), tapes, places))
        start = int(ends[-1])
    own = np.ones((T, B), bool) if valid is None else valid
    own = own[::-1] if scans[0].reverse else own
    widths = network.cell.state_widths() * len(scans)
    state = "" if layer is None else scans[0].prefix
    return Linearised(state, network.cell, tuple(links), T, B, start, widths, own, stretch.top)


def jacobians(network: Network, batch: Batch, *, layer: int | str | None = None, states: States | None = None) -> Array:
    """J (T, B, S, S): [t, b] is ∂s_t/∂s_{t−1} of one sequence, in the order of the walk; the identity after its end.

    Args:
        network, batch, layer, states: as `linearise`.

    Raises:
        As `linearise`; InputError too for more than 1 GiB.

    >>> network = Network.create("rnn", inputs=2, hidden=3)
    >>> jacobians(network, Batch(np.ones((5, 1, 2)), np.zeros((5, 1), int))).shape
    (5, 1, 3, 3)
    """
    S = state_size(network, layer)
    T, B = np.shape(batch.x)[:2]
    if T * B * S * S * 8 > MAX_BYTES:
        got = f"{T * B * S * S * 8 / (1 << 30):.1f} GiB for (T, B, S, S) = {(T, B, S, S)}"
        do = "Take fewer steps or sequences, name a layer, or multiply with `linearise(...).vjp` step by step."
        raise InputError("jacobians", got=got, expected="at most 1 GiB", do=do)
    linear = linearise(network, batch, layer=layer, states=states)
    return np.stack([linear.matrices(t) for t in range(1, linear.T + 1)])


def chosen_scans(network: Network, layer: int | str | None) -> list[Scan]:
    """The scans of a state: of a layer by its number (forward) or prefix, or all.

    Raises:
        UnknownName: no such layer.  InputError: all of a network with both directions.
    """
    scans = network.scans()
    if layer is None:
        if network.bidirectional:
            do = f"Name a layer: {', '.join(scan.prefix for scan in scans)}."
            got = "a network with both directions, whose whole state is no map from step to step"
            raise InputError("layer", got=got, do=do)
        return scans
    prefix = layer if isinstance(layer, str) else f"layer{layer}."
    prefix = prefix if prefix.endswith(".") else prefix + "."
    found = [scan for scan in scans if scan.prefix == prefix]
    if not found:
        raise unknown("layer", prefix, [scan.prefix for scan in scans])
    return found


def state_size(network: Network, layer: int | str | None) -> int:
    """S, the units of a state; raises as `chosen_scans`."""
    return sum(network.cell.state_widths()) * len(chosen_scans(network, layer))


def longest(
    network: Network, batch: Batch, states: States | None, most: int = MAX_SEQUENCES
) -> tuple[Batch, States | None, Array]:
    """The longest sequences of a batch, the first of those that are as long; and their numbers, from 0, in order.

    Sequences are independent of each other, so that a few of them are a sample.

    Raises:
        ShapeError, InputError, UnknownName: states that do not fit all of the batch.
    """
    x = np.asarray(batch.x)
    B = x.shape[1] if x.ndim > 1 else 0
    lengths = None if batch.lengths is None else np.asarray(batch.lengths)
    if most >= B or (lengths is not None and (lengths.shape != (B,) or lengths.dtype.kind not in "iu")):
        return batch, states, np.arange(B)  # what does not fit is refused by `linearise`
    order = np.arange(B) if lengths is None else np.argsort(-lengths, kind="stable")
    rows = np.sort(order[:most])
    no_targets = np.zeros((len(x), len(rows)), int)
    few = Batch(x[:, rows], no_targets, None if lengths is None else lengths[rows])
    if states is not None:
        states = network.astype(np.float64).check_states(states, B)
        states = {prefix: type(state)(*(part[rows] for part in state)) for prefix, state in states.items()}
    return few, states, rows


def require_finite_tapes(scan: Scan, tapes: Sequence[Any], valid: Array | None) -> None:
    """Raise NotFiniteError at the first step whose tape holds NaN or infinity."""
    for t in in_order(len(tapes), scan.reverse):
        for name, value in tapes[t]._asdict().items():
            if value is None or value.dtype.kind != "f" or np.isfinite(value).all():
                continue
            bad = ~np.isfinite(value).reshape(len(value), -1).all(1)
            if (bad if valid is None else bad & valid[t]).any():
                what = f"{scan.prefix}{name} at step {t + 1}"
                do = "It first appeared there: look at the inputs and weights of that step."
                got = str(value[~np.isfinite(value)][0])
                raise NotFiniteError(what, got=got, expected="finite numbers", do=do)

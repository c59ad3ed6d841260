"""What gates and units do along real data: saturation, time scales, and which path carries the gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.cells import GRU, LSTM, RNN, times
from bptt.diagnose.linear import Linearised, chosen_scans, linearise, longest, require_finite_tapes
from bptt.engine.given import clean_inputs, prepare, valid_steps
from bptt.engine.plan import Checkpointed, Full
from bptt.engine.reference.walk import forward, readout
from bptt.errors import InputError
from bptt.model import Batch, Loss, Network, Scan, States
from bptt.typing import Array

TAPES_BYTES = 256 << 20  # of all tapes; beyond it they are made again stretch by stretch
SIGMA, TANH = (0.05, 0.95), (-0.95, 0.95)  # nearer to an end than this is near an end
DEAD = (0.0, np.inf)  # of relu: at most 0


@dataclass(frozen=True, eq=False)
class Gate:
    """One gate, or the tanh units, of a layer. mean: (H,) by unit.  low, high: share of all values near an end.

    Near an end: σ below 0.05 or above 0.95, |tanh| above 0.95 (low: below −0.95). Of relu low is dead (0) and
    high is 0.
    by_unit: (H,) share of each unit's values that is near an end.
    relu: whether they are units of relu, which has no end above.
    """

    mean: Array
    low: float
    high: float
    by_unit: Array
    relu: bool = False


@dataclass(frozen=True, eq=False)
class Gates:
    """One layer. gates: "i", "f", "o", "r", "z" and "h" or "g" or "n" for what is squashed by tanh → Gate.
    units: "tanh", or "relu" where "h" is an RNN's with that nonlinearity.

    time_scales: (H,) −1 / log f̄ in steps of each unit (z̄ of a GRU), infinite where f̄ is 1; None for an RNN.
    """

    state: str
    gates: dict[str, Gate]
    time_scales: Array | None
    units: str = "tanh"


@dataclass(frozen=True, eq=False)
class CellPath:
    """LSTM: the share of ∂L_k/∂c that comes along the cells alone (∏ f), by lag; the rest came through gates and h.

    lags: (n,).  share: (n,) ⟨cell path, whole⟩ / ‖whole‖², mean over losses and sequences; with the rest it sums to 1.
    """

    state: str
    lags: Array
    share: Array


def gates(network: Network, batch: Batch, *, states: States | None = None) -> dict[str, Gates]:
    """Gates and units of every layer over all steps that the sequences have. A cell of one's own has none.

    Args:
        network, batch, states: as `linearise`.

    Raises:
        ShapeError, InputError, NotFiniteError: as `linearise`.

    >>> network = Network.create("lstm", inputs=3, hidden=4, forget_bias=5.0)
    >>> found = gates(network, Batch(np.zeros((9, 2, 3)), np.zeros((9, 2), int)))["layer0."]
    >>> list(found.gates), found.gates["f"].high, f"{found.time_scales[0]:.0f}"    # −1 / log σ(5)
    (['i', 'f', 'g', 'o'], 1.0, '149')
    """
    ends = _ends(network.cell)
    if not ends:
        return {}
    units = getattr(network.cell, "nonlinearity", "tanh")
    network = network.astype(np.float64)
    lengths = None if batch.lengths is None else np.asarray(batch.lengths)
    batch = Batch(np.asarray(batch.x), batch.targets, lengths)
    network.check_batch(batch)
    T, B = batch.x.shape[:2]
    start, valid = network.check_states(states, B), valid_steps(batch)
    size = T * B * len(network.scans()) * network.cell.hidden * 80
    every = Checkpointed().steps(T) if size > TAPES_BYTES else None
    with np.errstate(all="ignore"):
        stretch = forward(network, clean_inputs(batch.x, valid, network.dtype), start, valid, every=every)
        found = {}
        for scan in network.scans():
            tapes = stretch.tapes[scan.prefix]
            require_finite_tapes(scan, tapes, valid)
            found[scan.prefix] = Gates(scan.prefix, *_look(tapes, valid, ends), units)
    return found


def _ends(cell: Any) -> dict[str, tuple[float, float]]:
    """What a cell squashes, by the name that its tape has for it, and where near an end begins."""
    if isinstance(cell, RNN):
        return {"h": TANH if cell.nonlinearity == "tanh" else DEAD}
    if isinstance(cell, GRU):
        return {"r": SIGMA, "z": SIGMA, "n": TANH}
    return {"i": SIGMA, "f": SIGMA, "g": TANH, "o": SIGMA} if isinstance(cell, LSTM) else {}


def _look(
    tapes: Sequence[Any], valid: Array | None, ends: dict[str, tuple[float, float]]
) -> tuple[dict[str, Gate], Array | None]:
    sums: dict[str, list[Array]] = {}
    steps = 0
    for t in range(len(tapes)):
        rows = slice(None) if valid is None else valid[t]
        for name, (low, high) in ends.items():
            a = getattr(tapes[t], name)[rows]
            new = [a.sum(0), (a <= low if ends[name] is DEAD else a < low).sum(0), (a > high).sum(0)]
            sums[name] = new if t == 0 else [old + more for old, more in zip(sums[name], new, strict=True)]
        steps += len(tapes[t].x[rows])
    found = {
        name: Gate(
            mean / steps,
            float(low.mean() / steps),
            float(high.mean() / steps),
            (low + high) / steps,
            ends[name] is DEAD,
        )
        for name, (mean, low, high) in sums.items()
    }
    keeps = found.get("f", found.get("z"))
    return found, None if keeps is None else _time_scales(keeps.mean)


def _time_scales(mean: Array) -> Array:
    with np.errstate(divide="ignore"):
        logs = np.log(np.minimum(mean, 1))
        return np.where(logs == 0, np.inf, -1 / logs)


def cell_path(
    network: Network, batch: Batch, loss: Loss, *, layer: int | str = 0, samples: int = 8, seed: int = 0,
    states: States | None = None,
) -> CellPath:  # fmt: skip
    """How much of ∂L_k/∂c_{k−lag} comes along the memory cells alone.

    Single losses are walked back, once with the full Jacobian, through all layers and gates, and once beside it with
    ∂c_t/∂c_{t−1} = f_t alone; a peephole belongs to the gates. Both begin with ∂L_k/∂c_k, so that the share is 1 at
    lag 0. It may lie outside of 0…1, where the paths pull against each other. A sequence that a loss does not reach
    counts nothing. Of at most four sequences: the longest that have a loss, the first of those.

    Args:
        network, batch, loss, states: as `bptt.gradient`; the cell must be an LSTM.
        layer: a number, or "layer0." or "layer0.reverse.".
        samples: how many losses; the last one is always among them.
        seed: of the choice.

    Raises:
        InputError: not an LSTM; a layer below the last of a network with both directions; fewer samples than 1.
        ShapeError, NotFiniteError, UnknownName: as `linearise` and `bptt.gradient`.

    Source: Kanuparthi et al. 2018, arXiv 1810.03023 (linear temporal path).
    """
    scan = _lstm_scan(network, layer)
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise InputError("samples", got=samples, expected="a whole number, at least 1")
    network = network.astype(np.float64)
    batch, states, dy = _some_losses(network, batch, loss, states)
    linear = linearise(network, batch, layer=scan.prefix if network.bidirectional else None, states=states)
    dtop = dy(linear.top)
    width = network.cell.width
    if network.bidirectional:
        dtop = (dtop[..., width:] if scan.reverse else dtop[..., :width])[:: -1 if scan.reverse else 1]
    steps = np.flatnonzero(np.any(dtop != 0, axis=(1, 2))) + 1
    if len(steps) > samples:
        others = np.random.default_rng(seed).choice(steps[:-1], samples - 1, replace=False)
        steps = np.sort([*others, steps[-1]])
    return CellPath(scan.prefix, *_PathWalk(linear, scan, dtop, steps).shares())


def _lstm_scan(network: Network, layer: int | str) -> Scan:
    if not isinstance(network.cell, LSTM):
        raise InputError("cell path", got=network.cell.name, expected="an LSTM, which has cells apart from h")
    (scan,) = chosen_scans(network, layer)
    if network.bidirectional and scan.layer < network.layers - 1:
        do = "What is above it walks in both directions; ask for a layer there."
        raise InputError("cell path", got=scan.prefix, expected="the last layer of both directions", do=do)
    return scan


def _some_losses(network: Network, batch: Batch, loss: Loss, states: States | None) -> Any:
    """A few sequences that have a loss, their states, and ∂J/∂(output of the last layer) as a function of it."""
    given = prepare(network, batch, loss, Full(), states)
    chosen = np.flatnonzero(given.weights.any(0))
    lengths = None if batch.lengths is None else np.asarray(batch.lengths)[chosen]
    start = {key: type(state)(*(part[chosen] for part in state)) for key, state in given.states.items()}
    few, start, rows = longest(network, Batch(given.x[:, chosen], given.targets[:, chosen], lengths), start)
    rows = chosen[rows]

    def adjoint(top: Array) -> Array:
        dy = loss.evaluate(readout(network, top), given.targets[:, rows], given.weights[:, rows]).dy
        return dy if network.outputs is None else times(dy, network.params["readout.W"].T)

    return few, start, adjoint


class _PathWalk:
    """Losses at these steps (K,), walked back side by side, each scaled anew at every step."""

    def __init__(self, linear: Linearised, scan: Scan, dtop: Array, steps: Array):
        self.linear, self.dtop, self.steps = linear, dtop, steps
        self.place = next(at for at, link in enumerate(linear.links) if link.scan == scan)
        self.link, K = linear.links[self.place], len(steps)
        self.a, self.logs = np.zeros((K, linear.B, linear.S)), np.zeros((K, linear.B))
        self.path, self.path_logs = np.zeros((K, linear.B, linear.cell.hidden)), np.zeros((K, linear.B))
        self.sums, self.counts = np.zeros(linear.T), np.zeros(linear.T, int)

    def shares(self) -> tuple[Array, Array]:
        """Lags that a loss reaches, and the mean share at each."""
        for t in range(int(self.steps.max(initial=0)), 0, -1):
            self._step(t)
        lags = np.flatnonzero(self.counts)
        return lags, self.sums[lags] / self.counts[lags]

    def _step(self, t: int) -> None:
        self.a[self.steps == t, :, self.linear.links[-1].places[0]] += self.dtop[t - 1]
        found: list[Array] = []

        def see(place: int, ds: Any) -> None:
            if place == self.place:
                found.append(self._whole(t, ds))

        before = self.linear.vjp(t, self.a, see)
        self._compare(t, found[0])
        self.path = self.path * self.link.tapes[t - 1].f  # c = f c_prev + …
        self.a, self.logs = _rescaled(before, self.logs)
        self.path, self.path_logs = _rescaled(self.path, self.path_logs)

    def _whole(self, t: int, ds: Any) -> Array:
        """∂L/∂c_t by everything after it: through the next steps, and through h_t."""
        p, tape = self.link.p, self.link.tapes[t - 1]
        dm = ds.h if p.W_hr is None else times(ds.h, p.W_hr.T)  # h = m W_hr
        dc = ds.c + dm * tape.o * (1 - tape.y * tape.y)  # m = o tanh(c)
        return dc if p.p_o is None else dc + dm * tape.y * tape.o * (1 - tape.o) * p.p_o

    def _compare(self, t: int, whole: Array) -> None:
        begins = self.steps == t  # where nothing has been walked yet, and both logarithms are 0
        self.path[begins] = whole[begins]
        scaled, logs = _rescaled(whole, self.logs)
        square = np.square(scaled).sum(-1)
        there = (self.steps >= t)[:, None] & self.linear.valid[t - 1] & (square > 0)
        apart = np.clip(self.path_logs - logs, -700, 300)  # a whole that cancels has no size to compare with
        share = (self.path * scaled).sum(-1) / np.where(square > 0, square, 1) * np.exp(apart)
        for row in np.flatnonzero(self.steps >= t):
            step = self.steps[row]
            self.sums[step - t] += share[row][there[row]].sum()
            self.counts[step - t] += there[row].sum()


def _rescaled(a: Array, logs: Array) -> tuple[Array, Array]:
    """a (..., S) with a largest entry of 1, and the logarithm of what was taken out."""
    sizes = np.abs(a).max(-1)
    sizes = np.where(sizes > 0, sizes, 1)
    return a / sizes[..., None], logs + np.log(sizes)

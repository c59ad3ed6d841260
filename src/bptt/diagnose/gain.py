"""Gain along the true error direction: what a step back leaves of ∂J/∂s, and its slope per lag.

    per step    ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖                       of the whole loss, to which every step adds its own
    by lag      log ‖∂L_k/∂s_{k−lag}‖ − log ‖∂L_k/∂s_k‖         of single losses, to which nothing is added on the way

Only the second says what the network does to an error on its way back (Hochreiter 1991; Pascanu et al. 2013).
"""

import itertools
from dataclasses import dataclass

import numpy as np

from bptt.diagnose.slope import Paths
from bptt.diagnose.walks import walk_alone, weights_of
from bptt.engine import record
from bptt.errors import InputError
from bptt.ledger import Ledger
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array


@dataclass(frozen=True, eq=False)
class Gain:
    """How ‖∂J/∂s‖ goes with the lag.

    state: "layer0." or as the ledger calls it.
    per_step: (T,) ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖ of the whole loss, 0 where there are no digits.
    lags: (n,) from 0.  logs: (n,) mean of log ‖∂L_k/∂s_{k−lag}‖ − log ‖∂L_k/∂s_k‖ over losses and sequences.
    slope: of `logs` per lag, weighted by how many they are means of; −inf where nothing at all comes one step back, and
        0 where there is no such step.
    error: its standard error over losses and sequences.
    losses: how many losses were walked back one by one; 0 where only the whole loss was known (`logs` is then of it).
    """

    state: str
    per_step: Array
    lags: Array
    logs: Array
    slope: float
    error: float
    losses: int

    @property
    def half_life(self) -> float:
        """Steps back after which half of an error is left, ln ½ / slope; infinite where it does not shrink."""
        return float(np.log(0.5) / self.slope) if self.slope < 0 else float("inf")

    @property
    def factor(self) -> float:
        """What one step back leaves, e^slope: 1 keeps, below vanishes, above explodes."""
        return float(np.exp(min(self.slope, 700.0)))


def gain(ledger: Ledger, layer: str | int = 0) -> Gain:
    """The gain of the whole loss, from the norms ‖∂J/∂s_t‖ of a ledger of any source.

    Lags are counted from the last step at which a sequence has any gradient. Where every step has a loss of its own,
    those add to the gradient on its way back, so that the slope is not what the network does to one error: ask
    `error_gain` for that.

    Args:
        ledger: of any source and kind.
        layer: as in `Ledger.gains`.

    Raises:
        UnknownName: no such layer.  InputError: the ledger has no state.

    >>> import bptt
    >>> found = gain(bptt.explain("the cat sat down"))
    >>> found.per_step.shape, found.lags.tolist(), found.losses
    ((4,), [0, 1, 2, 3, 4], 0)
    """
    key = ledger.layer(layer)
    norms = ledger.states[key]
    paths = Paths(len(norms) - 1)
    seen = has_digits(norms)
    for b in np.flatnonzero(seen.any(0)):
        last = int(np.flatnonzero(seen[:, b])[-1])
        paths.add(norms[last::-1, b], seen[last::-1, b], loss=0, sequence=int(b))
    return _found(key, ledger.gains(layer).astype(np.float64), paths, 0)


def has_digits(norms: Array) -> Array:
    """Where a norm is finite and far enough above the smallest number to have digits, as `Ledger.gains` sees it."""
    digits = np.finfo(norms.dtype)
    return (norms >= digits.tiny / digits.eps) & np.isfinite(norms)


def _found(state: str, per_step: Array, paths: Paths, losses: int) -> Gain:
    lags, logs = paths.mean()
    slope, error = paths.slope()
    return Gain(state, per_step, lags, logs, slope, error, losses)


def error_gain(
    network: Network, batch: Batch, loss: Loss, *, samples: int = 8, seed: int = 0, states: States | None = None,
    engine: str = "auto",
) -> dict[str, Gain]:  # fmt: skip
    """How single losses fade on their way back: `samples` of them walked back alone, in float64.

    Args:
        network, batch, loss, states, engine: as `bptt.record`.
        samples: losses, one from each of as many stretches of steps; all of them where there are no more.
        seed: of their choice.

    Returns:
        Prefix of the state ("layer0.") → its gain; of a backward direction with lags counted as it walks.

    Raises:
        ShapeError, InputError, NotFiniteError: as `bptt.gradient`.  InputError: samples below 1.
    """
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise InputError("samples", got=samples, expected="a whole number of losses, at least 1")
    weights = weights_of(network, batch, loss, states)
    double, pool = network.astype(np.float64), np.flatnonzero(weights.any(1))
    edges = np.round(np.linspace(0, len(pool), min(samples, len(pool)) + 1)).astype(int)
    rng = np.random.default_rng(seed)
    chosen = [int(pool[rng.integers(low, high)]) for low, high in itertools.pairwise(edges)]
    whole = record(double, batch, loss, states=states, keep="norms", engine=engine)
    paths = {scan.prefix: Paths(whole.T) for scan in double.scans()}
    for walk in walk_alone(double, batch, loss, chosen, states=states, keep="norms", engine=engine):
        for scan in double.scans():
            norms = walk.ledger.states[scan.prefix][:, walk.rows]
            start = walk.ledger.T - walk.step if scan.reverse else walk.step + 1
            seen = has_digits(norms)
            for b in np.flatnonzero(seen[start] & (weights[walk.step] > 0)):
                paths[scan.prefix].add(norms[start::-1, b], seen[start::-1, b], loss=walk.step, sequence=int(b))
    return {prefix: _found(prefix, whole.gains(prefix), path, len(chosen)) for prefix, path in paths.items()}

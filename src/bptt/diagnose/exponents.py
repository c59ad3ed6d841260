"""Finite-time Lyapunov exponents: how fast directions of the state grow or shrink with each step.

    Jᵀ_t Q_t = Q_{t−1} R_t,   λ_i = mean over t of log |R_t,ii|     (Vogt et al. 2020; Engelken 2023, arXiv 2312.17306)

Walked from the last step back, with Jᵀ: the product of the transposes has the same singular values, so that the same
exponents come out, and the walk is the one that the gradient takes: count · B rows of one product per step.
Q begins as all units of the state where that is cheap, since a state whose units do not mix then has its exponents
exactly, and else as random directions. In the first steps of the walk it turns into the leading ones, and these are not
counted.
"""

from dataclasses import dataclass

import numpy as np

from bptt.diagnose.graded import orthonormal
from bptt.diagnose.linear import MAX_SEQUENCES, Linearised, linearise, longest
from bptt.diagnose.spectrum import FULL, check_count, default_count
from bptt.engine import record
from bptt.errors import NotFiniteError
from bptt.model import Batch, Loss, Network, States
from bptt.model.network import READOUT
from bptt.typing import Array

TRANSIENT = 20  # steps that Q has to align, and at most a quarter of the sequence


@dataclass(frozen=True, eq=False)
class Exponents:
    """Growth per step, as natural logarithms, descending.

    state: whose Jacobians: "layer0.", or "" for the whole state.  size: S, units of that state.
    steps: that were walked.  values: (r,) mean over the sequences.  errors: (r,) standard errors over the sequences,
    0 for a single one.  -inf (error 0) is a direction that is lost for good.
    by_sequence: (B, r).  skipped: of the steps, the last ones of the sequence, in which the directions aligned.
    """

    state: str
    size: int
    steps: int
    values: Array
    errors: Array
    by_sequence: Array
    skipped: int = 0

    @property
    def largest(self) -> float:
        """λ₁: above 0 nearby states part, and the network is chaotic along this data."""
        return float(self.values[0])

    @property
    def largest_error(self) -> float:
        """Standard error of λ₁ over the sequences, 0 for a single one."""
        return float(self.errors[0])

    @property
    def window(self) -> float | None:
        """ln 2 / λ₁ in steps, in which a small error doubles; None where nothing grows.

        The longest stretch over which gradients of a chaotic network are of use (predictability time, Mikhaeil et al.
        2022, arXiv 2110.07238).
        """
        return float(np.log(2) / self.largest) if self.largest > 0 else None


def exponents(
    network: Network, batch: Batch, *, layer: int | str | None = None, count: int | None = None,
    states: States | None = None,
) -> Exponents:  # fmt: skip
    """Lyapunov exponents along real data, with their standard errors over the sequences.

    Of at most four sequences: the longest, the first of those. Each is walked over its own steps. The first 20 steps of
    the walk, the last ones of the sequence, but no more than a quarter of them, are not counted.

    Args:
        network, batch, layer, states: as `linearise`.
        count: how many, the largest ones; all of up to 64 units by default, the 8 largest of more.

    Raises:
        InputError: a count below 1 or above S.  NotFiniteError: the Jacobian overflows; else as `linearise`.

    >>> network = Network.create("rnn", inputs=1, hidden=4, init="identity", nonlinearity="relu")
    >>> network.params["layer0.W_hh"] *= 0.5
    >>> network.params["layer0.b"] += 1
    >>> found = exponents(network, Batch(np.zeros((40, 2, 1)), np.zeros((40, 2), int)))
    >>> [f"{value:.4f}" for value in found.values], found.window     # log 0.5, of every direction
    (['-0.6931', '-0.6931', '-0.6931', '-0.6931'], None)
    """
    batch, states, _ = longest(network, batch, states)
    linear = linearise(network, batch, layer=layer, states=states)
    return _measure(linear, count, every=linear.S <= FULL)


def sample_exponent(
    network: Network, batch: Batch, *, states: States | None = None, sequences: int = 2, engine: str = "auto"
) -> tuple[float, float]:
    """λ₁ of the whole state and its standard error over a few sequences, cheap enough for a training loop.

    An engine walks one direction of each sequence back, in the network's own dtype: the gradient of ‖h_T − r‖² with a
    random r. It grows as the leading direction does, once it has aligned: λ₁ = mean of log ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖
    over the steps that `exponents` counts. It differs from what that gives by the lengths of two directions, divided by
    the number of steps. Where the norms leave the range of the dtype, `exponents` is asked instead, which is slower. Of
    a network with both directions it is that of its first layer's forward walk, from `exponents` too.

    Args:
        network, batch, states: as `linearise`.
        sequences: how many, 1 to 4.
        engine: as `bptt.gradient`.

    Raises:
        As `exponents` and `bptt.gradient`.
    """
    check_count(sequences, MAX_SEQUENCES, "sequences")
    batch, states, _ = longest(network, batch, states, sequences)
    growth = None if network.bidirectional else _growth(network, batch, states, engine)
    if growth is None:
        layer = "layer0." if network.bidirectional else None
        found = _measure(linearise(network, batch, layer=layer, states=states), 1)
        return found.largest, found.largest_error
    error = growth.std(ddof=1) / np.sqrt(len(growth)) if len(growth) > 1 else 0.0
    return float(growth.mean()), float(error)


def _growth(network: Network, batch: Batch, states: States | None, engine: str) -> Array | None:
    """Mean growth per step (B,) of one direction of each sequence; None where its norms have no digits."""
    params = {name: value for name, value in network.params.items() if not name.startswith(READOUT)}
    bare = Network(network.cell, network.inputs, None, network.layers, False, params)
    T, B = np.shape(batch.x)[:2]
    lengths = np.full(B, T) if batch.lengths is None else np.asarray(batch.lengths)
    targets = np.random.default_rng(0).standard_normal((T, B, bare.width))
    loss = Loss("squared_error", "sum", "last")
    try:
        ledger = record(bare, batch._replace(targets=targets), loss, states=states, keep="norms", engine=engine)
    except NotFiniteError:  # also where the gradient alone overflows, which `exponents` bears
        return None
    norms = _over_scans(ledger.states)
    skips, rows = np.minimum(TRANSIENT, lengths // 4), np.arange(B)
    first, last = norms[0], norms[lengths - skips, rows]
    digits = np.finfo(norms.dtype)
    if not ((first > digits.tiny / digits.eps) & (last > digits.tiny / digits.eps)).all():
        return None
    return (np.log(first) - np.log(last)).astype(np.float64) / (lengths - skips)


def _over_scans(states: dict[str, Array]) -> Array:
    """‖∂J/∂s_t‖ (T + 1, B) over all scans."""
    return np.hypot.reduce(np.stack(list(states.values())))


def _measure(linear: Linearised, count: int | None, every: bool = False) -> Exponents:
    r = default_count(linear.S) if count is None else count
    check_count(r, linear.S)
    lengths = linear.lengths()
    skips = np.minimum(TRANSIENT, lengths // 4)
    sums = _walk_all(linear, skips) if every else _walk(linear, r, skips)
    by_sequence = sums / (lengths - skips)[:, None]
    values = by_sequence.mean(0)
    order = np.argsort(-values, kind="stable")[:r]
    values, by_sequence = values[order], by_sequence[:, order]
    spread = np.where(np.isneginf(values), 0, by_sequence)  # a mean of -inf has no spread
    errors = spread.std(0, ddof=1) / np.sqrt(linear.B) if linear.B > 1 else np.zeros(r)
    steps, skipped = int(lengths.max()), int(skips.max())
    return Exponents(linear.state, linear.S, steps, values, errors, by_sequence, skipped)


def _walk(linear: Linearised, r: int, skips: Array) -> Array:
    """Σ log |R_ii| (B, r) over the steps of each sequence that count; -inf once a direction is lost, at any step."""
    rng = np.random.default_rng(0)  # the same question has the same answer
    q, _ = np.linalg.qr(rng.standard_normal((linear.B, linear.S, r)))
    sums, walked = np.zeros((linear.B, r)), np.zeros(linear.B, int)
    for t in range(linear.T, 0, -1):
        live = linear.valid[t - 1]
        turned, logs = orthonormal(linear.vjp(t, q.transpose(2, 0, 1)).transpose(1, 2, 0))
        q = turned if live.all() else np.where(live[:, None, None], turned, q)
        walked += live
        counted = (live & (walked > skips))[:, None]
        sums += np.where(counted | (live[:, None] & np.isneginf(logs)), logs, 0)
    return sums


def _walk_all(linear: Linearised, skips: Array) -> Array:
    """The same from all units of the state, (B, S), whose lost directions are moved behind the others.

    The last part of the state comes first: a layer hands its adjoint down and none up, and h of an LSTM to c.
    """
    q = np.broadcast_to(np.eye(linear.S)[:, ::-1], (linear.B, linear.S, linear.S))
    sums, walked = np.zeros((linear.B, linear.S)), np.zeros(linear.B, int)
    for t in range(linear.T, 0, -1):
        live = linear.valid[t - 1]
        turned, logs, order = _lost_last(linear.vjp(t, q.transpose(2, 0, 1)).transpose(1, 2, 0), np.isneginf(sums))
        logs, order = np.where(live[:, None], logs, 0), np.where(live[:, None], order, np.arange(linear.S))
        q = np.where(live[:, None, None], turned, q)
        walked += live
        counted = (live & (walked > skips))[:, None]
        sums = np.take_along_axis(sums, order, 1) + np.where(counted | np.isneginf(logs), logs, 0)
    moved = np.isneginf(sums).any()
    return -np.sort(-sums, axis=1) if moved else sums


def _lost_last(image: Array, lost: Array) -> tuple[Array, Array, Array]:
    """Q, log |R_ii| and the order (B, S) of the columns of an image: a lost one must not stand before a live one.

    What QR puts in the place of a lost direction is arbitrary, and would take its part out of those behind it. So only
    the first that is found lost is so for certain, and the others are looked at again without it.
    """
    order = np.argsort(lost, axis=1, kind="stable")
    lost = np.take_along_axis(lost, order, 1)
    while True:
        q, logs = orthonormal(np.take_along_axis(image, order[:, None, :], 2))
        gone = np.isneginf(logs) & ~lost
        if not gone.any():
            return q, np.where(lost, -np.inf, logs), order
        first = gone & (gone.cumsum(1) == 1)
        again = np.argsort(first | lost, axis=1, kind="stable")
        order, lost = np.take_along_axis(order, again, 1), np.take_along_axis(first | lost, again, 1)

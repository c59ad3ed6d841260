"""Losses with a foreign past: at some places every sequence goes on from a state that another one has reached."""

import numpy as np

from bptt.engine import evaluate, predict
from bptt.engine.given import clean_inputs, valid_steps
from bptt.errors import NotFiniteError
from bptt.model import Batch, Loss, Network, States
from bptt.model.losses import KINDS
from bptt.typing import Array


class Tried:
    """What came of it, by lag, place and sequence.

    weights: (T, B) of the loss.
    """

    def __init__(self, weights: Array):
        self.weights = weights
        self.spread = 0.0  # mean ‖y − ȳ‖² of the model's own output
        self.places: list[int] = []
        self.tables: list[Array] = []  # of each place, (4, T, B): weight, own, foreign, ‖Δy‖², from lag 1

    def add(self, place: int, table: Array) -> None:
        """One place (from 0), with its table (4, steps from there on, B)."""
        T, B = self.weights.shape
        room = np.zeros((len(table), T, B))
        room[:, : table.shape[1]] = table
        self.places.append(place)
        self.tables.append(room)

    def _lags(self) -> Array:
        return (
            np.flatnonzero(np.sum([table[0].sum(1) for table in self.tables], 0)) if self.tables else np.zeros(0, int)
        )

    def sums(self) -> tuple[Array, Array, Array]:
        """Lags that any loss had, and its mean with its own past and with a foreign one."""
        at = self._lags()
        if not len(at):
            return at, np.zeros(0), np.zeros(0)
        return at + 1, *_means(np.sum(self.tables, 0).sum(-1)[:, at])[:2]

    def count(self) -> Array:
        """Weight at each lag."""
        return np.sum(self.tables, 0).sum(-1)[0, self._lags()]

    def influence(self) -> Array:
        """RMS of Δy over RMS of y − ȳ by lag; 0 where y does not vary."""
        total = np.sum(self.tables, 0).sum(-1)[:, self._lags()]
        return np.sqrt(total[3] / (total[0] * self.spread)) if self.spread > 0 else np.zeros(total.shape[1])

    def without_places(self) -> tuple[int, list[tuple[Array, Array, Array]]]:
        """How many places there are, and the means and weights without each; a lag with one place keeps it."""
        by_place = np.sum(self.tables, -1)  # (places, 4, T)
        return self._without(np.array(by_place))

    def without_sequences(self) -> tuple[int, list[tuple[Array, Array, Array]]]:
        """The same without each sequence."""
        return self._without(np.moveaxis(np.sum(self.tables, 0), -1, 0))

    def _without(self, parts: Array) -> tuple[int, list[tuple[Array, Array, Array]]]:
        at = self._lags()
        parts = parts[:, :, at]
        parts = parts[parts[:, 0].any(1)]
        whole = parts.sum(0)
        left = whole - parts
        left = np.where(left[:, :1] > 1e-9 * whole[0], left, whole)
        return len(parts), [(*_means(one), one[0]) for one in left]


def _means(sums: Array) -> tuple[Array, Array]:
    """Own and foreign mean, of sums (4, n)."""
    weight = np.where(sums[0] > 0, sums[0], 1)
    return sums[1] / weight, sums[2] / weight


def exchange(
    network: Network, batch: Batch, loss: Loss, weights: Array, states: States | None, engine: str,
    places: list[int], rng: np.random.Generator, tried: Tried,
) -> None:  # fmt: skip
    """Try every place: t0, from 0 and at least 1.

    Raises:
        NotFiniteError: an output or a loss is not finite; the message says where.
    """
    T, B = weights.shape
    lengths = np.full(B, T) if batch.lengths is None else batch.lengths
    with np.errstate(all="ignore"):
        y, _ = predict(network, batch.x, batch.lengths, states, engine=engine)
        own = _losses(loss, y, batch.targets, weights)
    if not np.isfinite(own).all():
        evaluate(network, batch, loss, states, engine=engine)  # which says where it began
        raise NotFiniteError("loss", got="infinity or NaN", expected="finite numbers")
    y = y.astype(np.float64)
    every = y[np.arange(T)[:, None] < lengths]
    tried.spread = float(np.square(every - every.mean(0)).sum(-1).mean())
    walk = _Forward(network, batch, states, engine, lengths)
    for place in sorted(places):
        there = np.flatnonzero(lengths > place)
        if len(there) < 2 and B > 1:
            continue
        with np.errstate(all="ignore"):
            foreign, now = walk.foreign(place, there, rng), weights[place:, there]
            other = _losses(loss, foreign, batch.targets[place:, there], now)
            change = np.square(np.where(now[..., None] > 0, foreign - y[place:, there], 0)).sum(-1)
        if not (np.isfinite(other).all() and np.isfinite(change).all()):
            do = "The state does not fit another sequence: lower the weights."
            raise NotFiniteError(f"loss after step {place}, with a foreign past", got="infinity or NaN", do=do)
        table = np.zeros((4, T - place, B))
        table[:, :, there] = np.stack([now, now * own[place:, there], now * other, now * change])
        tried.add(place, table)


def _losses(loss: Loss, y: Array, targets: Array, weights: Array) -> Array:
    """ℓ (T, B) in float64, 0 where it does not count."""
    counted = weights > 0
    wide = counted.reshape(*counted.shape, *[1] * (targets.ndim - 2))
    values, _ = KINDS[loss.kind](
        np.where(counted[..., None], y, 0).astype(np.float64), np.where(wide, targets, targets.dtype.type(0))
    )
    return np.where(counted, values, 0)


class _Forward:
    """Walks to a place and on from it."""

    def __init__(self, network: Network, batch: Batch, states: States | None, engine: str, lengths: Array):
        self.network, self.engine, self.lengths = network, engine, lengths
        self.x = clean_inputs(batch.x, valid_steps(batch), network.dtype)
        self.start = network.check_states(states, self.x.shape[1])
        self.at, self.state = 0, self.start

    def foreign(self, place: int, there: Array, rng: np.random.Generator) -> Array:
        """y (steps from there on, sequences, O) of the sequences that are still there."""
        if self.network.bidirectional:
            return self._whole(place, there, rng)
        if self.x.shape[1] == 1:
            past, who = _turned(self.x, rng)[:place], there
            _, state = predict(self.network, past, None, self.start, engine=self.engine)
        else:
            _, self.state = self._on(self.x[self.at : place], self.lengths - self.at, self.state)
            self.at, state, who = place, self.state, _shifted(there, rng)
        return self._on(self.x[place:, there], self.lengths[there] - place, _of(state, who))[0]

    def _on(self, x: Array, lengths: Array, states: States) -> tuple[Array, States]:
        if not len(x):
            return np.zeros(0), states
        return predict(self.network, x, np.clip(lengths, 1, len(x)), states, engine=self.engine)

    def _whole(self, place: int, there: Array, rng: np.random.Generator) -> Array:
        """With both directions: the inputs are exchanged, since no single state holds the past."""
        x = self.x[:, there].copy()
        x[:place] = _turned(x, rng)[:place] if self.x.shape[1] == 1 else self.x[:place, _shifted(there, rng)]
        return predict(self.network, x, self.lengths[there], _of(self.start, there), engine=self.engine)[0][place:]


def _turned(x: Array, rng: np.random.Generator) -> Array:
    """One sequence, begun at another time."""
    T = len(x)
    return np.roll(x, int(rng.integers(max(1, T // 4), T - max(1, T // 4) + 1)), axis=0)


def _shifted(there: Array, rng: np.random.Generator) -> Array:
    """Each one's partner: nobody is its own."""
    return np.roll(there, int(rng.integers(1, len(there))))


def _of(states: States, sequences: Array) -> States:
    return {prefix: type(s)(*(part[sequences] for part in s)) for prefix, s in states.items()}

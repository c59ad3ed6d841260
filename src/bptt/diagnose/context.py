"""What a model uses, beside what its gradient reaches: effective context by perturbation.

Everything before step t0 is exchanged for another sequence's, and the losses at steps k ≥ t0 are compared with what
they were. Loss k then has its own inputs at lags 0 to k − t0 only, so that its lag here is k − t0 + 1. (Khandelwal et
al. 2018, arXiv 1805.04623, shuffle or drop the words beyond a lag instead; exchanged ones stay as likely as they were.)
"""

import itertools
from dataclasses import dataclass

import numpy as np

from bptt.diagnose.foreign import Tried, exchange
from bptt.diagnose.truncation import check_tolerance
from bptt.diagnose.walks import as_arrays, weights_of
from bptt.errors import InputError
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array

BOUND = 2.0  # standard errors on either side
FLOOR = 1e-6  # of the largest foreign loss, which the own loss is taken to have at least: it may be exactly 0
CLOSER = 12  # places that are added where few steps have a loss, to find the lag itself


@dataclass(frozen=True, eq=False)
class Context:
    """What becomes of the loss when everything from `lag` steps back on belongs to another sequence.

    At lag 1 a loss has only its own step's input left. Lags are those that were tried: all up to T − 1 where every step
    has a loss, and fewer where few do.

    lags: (n,) from 1.  increase: (n,) mean loss with a foreign past over mean loss with its own, minus 1.
    errors: (n,) standard errors of it.  influence: (n,) RMS change of the output y at that lag over the RMS distance of
        y from its mean.
    steps: effective context: the smallest lag from which on the increase stays within the tolerance, of the
        non-increasing curve that is nearest to `increase`. 1: the past makes no difference.
    low, high: the same of that curve, two standard errors lower and higher.
    tolerance: relative increase that is let pass.  samples: places t0 that were tried.
    """

    lags: Array
    increase: Array
    errors: Array
    influence: Array
    steps: int
    low: int
    high: int
    tolerance: float
    samples: int


def effective_context(
    network: Network, batch: Batch, loss: Loss, *, samples: int = 16, tolerance: float = 0.01, seed: int = 0,
    states: States | None = None, engine: str = "auto",
) -> Context:  # fmt: skip
    """How many steps of its own past the model makes use of, its own step included.

    Sequences exchange their pasts in a circle, by a random shift. A single sequence gets its own past from another
    time, so it needs at least 4 steps. Where all sequences are alike, the past cannot be told from another's, and the
    context is 1.

    Args:
        network, batch, loss, states, engine: as `bptt.record`.
        samples: places t0 at which the past is exchanged; where few steps have a loss, more are added near the answer.
        tolerance: relative increase of the loss that is let pass.
        seed: of places and exchanges.

    Raises:
        ShapeError, InputError, NotFiniteError: as `bptt.gradient`.
        InputError: a tolerance not above 0; samples below 1; one sequence of 2 or 3 steps.

    Source: after Khandelwal, He, Qi, Jurafsky 2018, arXiv 1805.04623.
    """
    check_tolerance(tolerance)
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise InputError("samples", got=samples, expected="a whole number of places, at least 1")
    weights, batch = weights_of(network, batch, loss, states), as_arrays(batch)
    T, B = weights.shape
    if B == 1 and 1 < T < 4:
        do = "A shorter one has no other past to take."
        expected = "two sequences, or one of at least 4 steps"
        raise InputError("effective context", got=f"one sequence of {T} steps", expected=expected, do=do)
    rng = np.random.default_rng(seed)
    tried = Tried(weights)
    pool = np.flatnonzero(weights.any(1))
    places = _places(pool, T, samples, rng)
    exchange(network, batch, loss, weights, states, engine, places, rng, tried)
    found = _answer(tried, tolerance)
    if len(pool) < samples and T > 1:  # few losses: the lags lie apart
        for _ in range(CLOSER):
            more = _between(tried, found, pool)
            if more is None:
                break
            exchange(network, batch, loss, weights, states, engine, [more], rng, tried)
            found = _answer(tried, tolerance)
    return found


def _places(pool: Array, T: int, samples: int, rng: np.random.Generator) -> list[int]:
    """t0, from 0, ascending: one from each of as many stretches, or at lags that grow evenly where losses are few."""
    last = int(pool[-1])
    if last == 0:
        return []
    if len(pool) < samples:
        lags = np.unique(np.round(np.geomspace(1, last, min(samples, last))).astype(int))
        return sorted({last - int(lag) + 1 for lag in lags})
    edges = np.round(np.linspace(1, last + 1, min(samples, last) + 1)).astype(int)
    inner = [int(rng.integers(low, high)) for low, high in itertools.pairwise(edges[1:])]
    return [1, *inner]  # the first one has every lag


def _between(tried: Tried, found: Context, pool: Array) -> int | None:
    """A place whose lag, at the last loss, halves the gap in which the answer lies; None where there is none."""
    below = found.lags[found.lags < found.steps]
    last, near = int(pool[-1]), int(below[-1]) if len(below) else 0
    lag = (near + found.steps) // 2
    place = last - lag + 1
    return place if near < lag < found.steps and 1 <= place <= last and place not in tried.places else None


def _answer(tried: Tried, tolerance: float) -> Context:
    """The curve, its errors, and the lags at which it comes within the tolerance."""
    lags, own, foreign = tried.sums()
    if not len(lags):  # no loss has a past
        none = np.zeros(1)
        return Context(np.ones(1, int), none, none, none, 1, 1, 1, tolerance, len(tried.places))
    floor = FLOOR * float(foreign.max())
    increase, curve = _curve(own, foreign, tried.count(), floor)
    again = [
        (n, [_curve(*part, floor) for part in parts])
        for n, parts in (tried.without_places(), tried.without_sequences())
    ]
    errors, bounds = (
        np.sqrt(sum((_spread(n, np.array([pair[i] for pair in pairs])) for n, pairs in again), np.zeros(len(lags))))
        for i in (0, 1)
    )
    steps, low, high = (_within(lags, curve + BOUND * by * bounds, tolerance) for by in (0, -1, 1))
    return Context(
        lags,
        increase,
        errors,
        tried.influence(),
        steps,
        min(low, steps),
        max(high, steps),
        tolerance,
        len(tried.places),
    )


def _curve(own: Array, foreign: Array, count: Array, floor: float) -> tuple[Array, Array]:
    """The relative increase by lag, and the non-increasing curve that is nearest to it, weighted by the count."""
    base = np.maximum(own, floor)
    increase = np.divide(foreign - own, base, out=np.zeros_like(base), where=base > 0)
    return increase, non_increasing(increase, np.maximum(count, 1e-9))


def _spread(n: int, again: Array) -> Array:
    """The variance from n values that each leave out one of n groups."""
    return (n - 1) / n * np.square(again - again.mean(0)).sum(0) if n > 1 else np.zeros(again.shape[1:] or 1)


def _within(lags: Array, curve: Array, tolerance: float) -> int:
    """The smallest lag from which on it stays within; one more than the largest lag where it never does."""
    beyond = np.flatnonzero(curve > tolerance)
    if not len(beyond):
        return int(lags[0])
    return int(lags[beyond[-1] + 1]) if beyond[-1] + 1 < len(lags) else int(lags[-1]) + 1


def non_increasing(values: Array, weights: Array) -> Array:
    """The non-increasing curve nearest to `values` in weighted least squares (pool adjacent violators).

    >>> non_increasing(np.array([3.0, 1.0, 2.0, 0.0]), np.ones(4)).tolist()
    [3.0, 1.5, 1.5, 0.0]
    """
    means: list[float] = []
    sums: list[float] = []
    sizes: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means, sums, sizes = [*means, value], [*sums, weight], [*sizes, 1]
        while len(means) > 1 and means[-2] < means[-1]:
            joined = sums[-2] + sums[-1]
            means[-2:] = [(means[-2] * sums[-2] + means[-1] * sums[-1]) / joined]
            sums[-2:], sizes[-2:] = [joined], [sizes[-2] + sizes[-1]]
    return np.repeat(means, sizes)

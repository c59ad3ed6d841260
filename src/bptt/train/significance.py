"""Two small samples against each other: exact tests by counting arrangements, and a bootstrap interval of the ratio.

Ranks only, so that nothing is assumed of the distribution. Where there is no effect, every arrangement of the ranks is
as likely as any other; p is the share of arrangements that are at least as far from the middle as the one that was
seen (both sides). The arrangements are counted, not approximated, with ties at their mid-ranks
(Mann & Whitney 1947; Wilcoxon 1945).
"""

from fractions import Fraction
from math import comb

import numpy as np

from bptt.typing import Array

RESAMPLES = 10_000
CONFIDENCE = 0.95


def mann_whitney(a: Array, b: Array) -> float:
    """Exact two-sided p of the rank sum of independent samples. a: (n,).  b: (m,).

    >>> round(mann_whitney(np.arange(4), np.arange(4) + 10), 6) == round(2 / 70, 6)
    True
    """
    ranks = _ranks(np.concatenate([a, b]))
    counts = _rank_sums(ranks, len(a))
    return _tail(counts, sum(ranks[: len(a)]), Fraction(sum(ranks) * len(a), len(ranks)))


def wilcoxon(differences: Array) -> float:
    """Exact two-sided p of the signed ranks of paired differences; pairs without a difference say nothing. (n,).

    >>> wilcoxon(np.array([1.0, 2.0, 3.0, 4.0]))
    0.125
    """
    moved = differences[differences != 0]
    if len(moved) == 0:
        return 1.0
    ranks = _ranks(np.abs(moved))
    counts = {0: 1}
    for rank in ranks:  # each pair is as likely to have the other sign
        longer = dict(counts)
        for total, ways in counts.items():
            longer[total + rank] = longer.get(total + rank, 0) + ways
        counts = longer
    seen = sum(rank for rank, value in zip(ranks, moved, strict=True) if value > 0)
    return _tail(counts, seen, Fraction(sum(ranks), 2))


def smallest_p(n: int, m: int | None = None) -> float:
    """The least that an exact p can be: of n and m independent runs, or of n pairs.

    >>> smallest_p(3, 3), smallest_p(4)
    (0.1, 0.125)
    """
    return min(1.0, 2 / (2**n if m is None else comb(n + m, n)))


def ratio_interval(a: Array, b: Array, paired: bool, seed: int = 0) -> tuple[float, float] | None:
    """95 % bootstrap interval of median(b) / median(a): percentiles over resampled runs, or pairs where paired.

    None with fewer than two runs on either side, or where a resampled median of a is not above 0.
    """
    if min(len(a), len(b)) < 2:
        return None
    rng = np.random.default_rng(seed)
    i = rng.integers(0, len(a), (RESAMPLES, len(a)))
    j = i if paired else rng.integers(0, len(b), (RESAMPLES, len(b)))
    below, above = np.median(a[i], 1), np.median(b[j], 1)
    if not (below > 0).all():
        return None
    low, high = np.quantile(above / below, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _ranks(values: Array) -> list[int]:
    """Twice the ranks from 1, so that mid-ranks of ties are whole."""
    below = (values[None, :] < values[:, None]).sum(1)
    upto = (values[None, :] <= values[:, None]).sum(1)
    return [int(rank) for rank in below + upto + 1]


def _rank_sums(ranks: list[int], n: int) -> dict[int, int]:
    """Sum → how many of the ways to choose n of the ranks have it."""
    counts: list[dict[int, int]] = [{0: 1}, *({} for _ in range(n))]  # by how many are chosen
    for rank in ranks:
        for chosen in range(n, 0, -1):
            for total, ways in counts[chosen - 1].items():
                counts[chosen][total + rank] = counts[chosen].get(total + rank, 0) + ways
    return counts[n]


def _tail(counts: dict[int, int], seen: int, middle: Fraction) -> float:
    far = abs(seen - middle)
    beyond = sum(ways for total, ways in counts.items() if abs(total - middle) >= far)
    return float(Fraction(beyond, sum(counts.values())))

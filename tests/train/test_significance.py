"""Exact tests against brute force over every arrangement, and against published tables."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.train.significance import mann_whitney, ratio_interval, smallest_p, wilcoxon

values = st.lists(st.integers(-3, 6), min_size=1, max_size=5)


def mid_ranks(sample):
    """Rank by rank, with none of the tested code's arithmetic."""
    ordered = sorted(sample)
    places = {v: [i + 1 for i, other in enumerate(ordered) if other == v] for v in ordered}
    return [sum(places[v]) / len(places[v]) for v in sample]


def by_choosing(a, b):
    """Share of the ways to call len(a) of the runs A whose rank sum is at least as far from the middle."""
    ranks = mid_ranks([*a, *b])
    middle = sum(ranks) * len(a) / len(ranks)
    seen = abs(sum(ranks[: len(a)]) - middle)
    far = [abs(sum(chosen) - middle) >= seen - 1e-9 for chosen in combinations(ranks, len(a))]
    return sum(far) / len(far)


def by_flipping(differences):
    moved = [d for d in differences if d != 0]
    ranks = mid_ranks([abs(d) for d in moved])
    seen = abs(sum(r * np.sign(d) for r, d in zip(ranks, moved, strict=True)))
    sums = [abs(sum(r * s for r, s in zip(ranks, signs, strict=True))) for signs in product((1, -1), repeat=len(moved))]
    return sum(total >= seen - 1e-9 for total in sums) / len(sums)


@given(values, values)
def test_mann_whitney_counts_every_choice_of_runs(a, b):
    assert mann_whitney(np.array(a, float), np.array(b, float)) == pytest.approx(by_choosing(a, b), abs=1e-12)


@given(values)
def test_wilcoxon_counts_every_choice_of_signs(differences):
    assert wilcoxon(np.array(differences, float)) == pytest.approx(by_flipping(differences), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "statistic", "p"),
    [  # two-sided tail probabilities of U, from the published tables (Mann & Whitney 1947, table I, doubled)
        (4, 4, 0, 2 / 70), (4, 4, 1, 4 / 70), (3, 3, 0, 2 / 20), (5, 5, 2, 8 / 252), (3, 4, 1, 4 / 35),
    ],
)  # fmt: skip
def test_mann_whitney_has_the_probabilities_of_the_tables(n, m, statistic, p):
    a = np.arange(n, dtype=float)
    b = np.arange(m) + n + 0.5
    b[0] = n - statistic - 0.5  # the least of B goes below so many of A
    assert (a[:, None] > b).sum() == statistic
    assert mann_whitney(a, b) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize(("n", "statistic", "p"), [(5, 0, 2 / 32), (6, 1, 4 / 64), (8, 3, 10 / 256), (7, 2, 6 / 128)])
def test_wilcoxon_has_the_probabilities_of_the_tables(n, statistic, p):
    differences = np.arange(1.0, n + 1)
    if statistic:
        differences[statistic - 1] *= -1  # the one of rank `statistic` goes the other way
    assert wilcoxon(differences) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 2), (3, 3), (4, 4), (3, 5)])
def test_nothing_is_more_significant_than_runs_that_are_fully_apart(n, m):
    apart = mann_whitney(np.arange(n), 100 + np.arange(m))
    assert apart == pytest.approx(smallest_p(n, m))
    assert wilcoxon(np.arange(1.0, n + 1)) == pytest.approx(smallest_p(n))


def test_equal_runs_are_not_different_and_sides_can_be_exchanged():
    assert mann_whitney(np.ones(4), np.ones(3)) == 1
    assert wilcoxon(np.zeros(5)) == 1
    a, b = np.array([1.0, 2, 5, 5]), np.array([3.0, 5, 9])
    assert mann_whitney(a, b) == mann_whitney(b, a)


def test_twenty_seeds_are_counted_as_well():
    assert mann_whitney(np.arange(20), 50 + np.arange(20)) == pytest.approx(smallest_p(20, 20))
    assert 0.4 < mann_whitney(np.arange(0, 40, 2), np.arange(1, 41, 2)) <= 1


def test_the_interval_of_a_ratio_covers_it_and_says_nothing_where_it_cannot():
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b = rng.lognormal(0, 0.3, 12), 2 * rng.lognormal(0, 0.3, 12)
        low, high = ratio_interval(a, b, paired=False)
        covered += low <= 2 <= high
    assert 52 <= covered <= 60  # 95 % of 60 is 57
    assert ratio_interval(np.ones(1), np.ones(4), paired=False) is None
    assert ratio_interval(np.array([0.0, 1, 1]), np.ones(3), paired=False) is None
    assert ratio_interval(np.array([1.0, 2, 3]), np.array([2.0, 4, 6]), paired=True) == (2, 2)

"""Statistics of a few times."""

import math
import statistics
from collections.abc import Sequence


def median(times: Sequence[float]) -> float:
    return statistics.median(times)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The middle half of them; of fewer than four, the least and the most."""
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Of the same round: what drifts in both cancels."""
    return [a / b for a, b in zip(over, under, strict=False)]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """p of values ∝ sizesᵖ, by least squares of the logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope

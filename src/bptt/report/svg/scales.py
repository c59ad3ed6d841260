"""Axes: from what is measured to where it is drawn."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.report.svg.words import number, power
from bptt.typing import Array


@dataclass(frozen=True)
class Axis:
    """label: what it shows, with its unit.  low, high: what it spans.  log: by powers.  ticks: (value, label)."""

    label: str
    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def __call__(self, values: Any, start: float, end: float) -> Array:
        """Values as positions from start to end; NaN where one cannot be drawn. What lies beyond stays at the edge."""
        values = np.asarray(values, np.float64)
        low, high = self.low, self.high
        if self.log:
            values = np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)
            low, high = math.log10(low), math.log10(high)
        values = np.where(np.isfinite(values), values, np.nan)
        return start + (np.clip(values, min(low, high), max(low, high)) - low) / (high - low) * (end - start)


def axis(
    label: str, values: Iterable[Any], *, log: bool = False, low: float | None = None, high: float | None = None,
    count: int = 5, tight: bool = False,
) -> Axis:  # fmt: skip
    """An axis over everything finite in `values` (positive, where it is logarithmic).

    Args:
        label: what it shows, with its unit.
        values: arrays or numbers.
        log: by powers of ten.
        low, high: ends that are given.
        count: about so many ticks.
        tight: end at the values and not at round numbers.
    """
    with np.errstate(invalid="ignore"):
        flat = np.concatenate([np.zeros(0), *(np.asarray(v, np.float64).ravel() for v in values if v is not None)])
        flat = flat[np.isfinite(flat) & ((flat > 0) if log else True)]
    first = float(flat.min(initial=math.inf)) if low is None else low
    last = float(flat.max(initial=-math.inf)) if high is None else high
    if not first <= last:  # nothing to draw
        first, last = (0.1, 1.0) if log else (0.0, 1.0)
    if log:
        return _powers(label, first, last, count, tight)
    if last - first <= 1e-9 * max(abs(first), abs(last)):  # too close for labels that differ
        first, last = _around(first, last, tight)
    ticks, step = round_numbers(first, last, count)
    if not tight:
        first = first if low is not None else min(first, math.floor(first / step + 1e-9) * step)
        last = last if high is not None else max(last, math.ceil(last / step - 1e-9) * step)
        ticks, _ = round_numbers(first, last, count)
    return Axis(label, first, last, False, tuple((tick, number(_whole(tick))) for tick in ticks))


def _around(low: float, high: float, tight: bool) -> tuple[float, float]:
    """A stretch about what is nearly one number; with zero in it, unless it has to be tight."""
    if not tight:
        return min(low, 0.0), max(high, 0.0) or 1.0
    half = max(0.5, 1e-3 * abs(low))
    return low - half, high + half


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e9 else value


def round_numbers(low: float, high: float, count: int) -> tuple[list[float], float]:
    """Multiples of 1, 2 or 5 × 10ⁿ from low to high, and how far apart they are.

    >>> round_numbers(0, 10, 5)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], 2.0)
    """
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = min((m * size for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first = math.ceil(low / step - 1e-9)
    return [
        round(i * step, 12) if step > 1e-9 else i * step for i in range(first, math.floor(high / step + 1e-9) + 1)
    ], step


def _powers(label: str, low: float, high: float, count: int, tight: bool) -> Axis:
    """Ticks at powers of ten, or at 1, 2 and 5 of each where there are few."""
    first, last = math.log10(max(low, 1e-300)), math.log10(max(high, 1e-300))
    if last - first < 0.3 and not tight:
        first, last = first - 0.2, last + 0.2
    if last - first < 1e-9:
        first, last = first - 0.5, last + 0.5
    if not tight and last - first > 1.5:
        first, last = math.floor(first + 1e-9), math.ceil(last - 1e-9)
    low, high = 10.0**first, 10.0**last
    if last - first > 2.4:
        every = max(1, math.ceil((last - first) / (count + 1)))
        whole = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
        ticks = [(10.0**n, name_of_power(n)) for n in whole if (n - whole[0]) % every == 0]
    else:
        steps = (
            (1, 10)
            if last - first > 1.6 and count < 6 and not tight
            else (1, 2, 5)
            if last - first > 0.6
            else (1, 1.5, 2, 3, 4, 5, 6, 8)
        )
        candidates = [m * 10.0**n for n in range(math.floor(first), math.ceil(last) + 1) for m in steps]
        ticks = [(value, number(value)) for value in candidates if low * 0.999 <= value <= high * 1.001]
    return Axis(label, low, high, True, tuple(ticks))


def name_of_power(exponent: int) -> str:
    """A power of ten as an axis shows it."""
    return {0: "1", 1: "10", 2: "100", -1: "0.1"}.get(exponent, power(exponent))


def counted(label: str, n: int, first: int = 1, count: int = 6) -> Axis:
    """An axis over whole numbers first…n, each in the middle of its cell."""
    n = max(n, first)
    ticks = (
        sorted({first, *(int(t) for t in round_numbers(first, n, count)[0] if t == int(t) and t > first)})
        if n > first
        else [first]
    )
    return Axis(label, first - 0.5, n + 0.5, False, tuple((t, number(t)) for t in ticks))


def named(label: str, names: Sequence[str]) -> Axis:
    """An axis over things that have names."""
    return Axis(label, 0.5, len(names) + 0.5, False, tuple((i + 1.0, name) for i, name in enumerate(names)))


def decades(label: str, logs: Iterable[Any], count: int = 5) -> Axis:
    """An axis over common logarithms, labelled by the powers of ten: for what no float can hold."""
    plain = axis(label, logs, count=count)
    whole = [(value, name_of_power(int(value))) for value, _ in plain.ticks if value == int(value)]
    return Axis(label, plain.low, plain.high, False, tuple(whole))

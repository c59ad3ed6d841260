"""Two sides against each other over their seeds: medians and spread, ratio, and whether chance alone would do it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bptt.errors import InputError, unknown
from bptt.train import significance
from bptt.train.subjects import Names, Subject, find
from bptt.typing import Array


@dataclass(frozen=True)
class Spread:
    """n runs that have the number: median, least and largest, quartiles (None below four runs)."""

    n: int
    median: float
    low: float
    high: float
    quartiles: tuple[float, float] | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Measure:
    """One number of both sides.

    name: what it is.  a, b: its spread.
    ratio: median of B over median of A, None where that is 0 or below.  interval: 95 %, None with one run on a side.
    test: "Mann–Whitney" (independent runs), "Wilcoxon" (pairs with the same seed and data), or "" with one run each.
    p: exact, two-sided, None without a test.  smallest_p: the least it could be with so many runs.
    """

    name: str
    a: Spread
    b: Spread
    ratio: float | None
    interval: tuple[float, float] | None
    test: str
    p: float | None
    smallest_p: float | None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    a, b: the runs or ledgers of each side, their paths.  kind: "run" or "ledger".
    seeds_a, seeds_b: of runs.  paired: whether runs of one seed and the same data were held against each other.
    differs: setting → (values of A, values of B), of all settings that are not the same in both.
    measures: the numbers.  notes: sentences that say what to keep in mind.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    kind: str
    seeds_a: tuple[int, ...]
    seeds_b: tuple[int, ...]
    paired: bool
    differs: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]
    measures: tuple[Measure, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain dictionaries, lists and numbers, for JSON."""
        return asdict(self)


def compare(a: Names, b: Names, *, metrics: Sequence[str] | None = None) -> Comparison:
    """Compare two runs, two groups of runs (seeds), or ledgers.

    Args:
        a, b: each a run folder, a folder of run folders, a ledger file, a glob, several with commas, or a list of them.
        metrics: only measures whose name contains one of these words; None for all.

    Raises:
        FileError: nothing of that kind is there, or it cannot be read.  BusyError: a run that is being trained.
        InputError: a run that has not ended; runs against ledgers.  UnknownName: no measure is called so.
    """
    one, two = find(a), find(b)
    if one[0].kind != two[0].kind:
        raise InputError("A and B", got=f"a {one[0].kind} and a {two[0].kind}", expected="two of a kind")
    pairs = _pairs(one, two)
    names = _chosen(_names(one, two), metrics)
    measures = tuple(_measure(name, one, two, pairs) for name in names)
    seeds = [tuple(s.seed for s in side if s.seed is not None) for side in (one, two)]
    return Comparison(
        tuple(s.path for s in one), tuple(s.path for s in two), one[0].kind, seeds[0], seeds[1], pairs is not None,
        _differs(one, two), measures, tuple(_notes(one, two, pairs, measures)),
    )  # fmt: skip


def _pairs(one: list[Subject], two: list[Subject]) -> list[tuple[Subject, Subject]] | None:
    """Runs of the same seed side by side, where both sides have the same seeds, each once, and the same data."""
    seeds = [sorted(-1 if s.seed is None else s.seed for s in side) for side in (one, two)]
    same_data = len({s.data for s in one + two}) == 1
    if len(one) < 2 or seeds[0] != seeds[1] or -1 in seeds[0] or len(set(seeds[0])) < len(one) or not same_data:
        return None
    by_seed = {s.seed: s for s in two}
    return [(s, by_seed[s.seed]) for s in one]


def _names(one: list[Subject], two: list[Subject]) -> list[str]:
    """Measures that both sides have, in the order of the first."""
    there = {name for s in two for name in s.numbers}
    return [name for name in dict.fromkeys(name for s in one for name in s.numbers) if name in there]


def _chosen(names: list[str], metrics: Sequence[str] | None) -> list[str]:
    for word in metrics or ():
        if not any(word.lower() in name.lower() for name in names):
            raise unknown("metric", word, names)
    return [name for name in names if not metrics or any(word.lower() in name.lower() for word in metrics)]


def _measure(name: str, one: list[Subject], two: list[Subject], pairs: Any) -> Measure:
    """Both sides of one number; in pairs only where both runs of a pair have it."""
    if pairs is not None:
        pairs = [(a, b) for a, b in pairs if name in a.numbers and name in b.numbers]
    a = np.array([s.numbers[name] for s in one if name in s.numbers])
    b = np.array([s.numbers[name] for s in two if name in s.numbers])
    below, above = float(np.median(a)), float(np.median(b))
    ratio = above / below if below > 0 else None
    if pairs and len(pairs) >= 2:
        first, second = (np.array([pair[i].numbers[name] for pair in pairs]) for i in (0, 1))
        test, p, least = "Wilcoxon", significance.wilcoxon(second - first), significance.smallest_p(len(pairs))
        interval = significance.ratio_interval(first, second, paired=True)
    elif pairs is None and len(a) + len(b) > 2:
        test, p, least = "Mann–Whitney", significance.mann_whitney(a, b), significance.smallest_p(len(a), len(b))
        interval = significance.ratio_interval(a, b, paired=False)
    else:
        test, p, least, interval = "", None, None, None
    return Measure(name, _spread(a), _spread(b), ratio, None if ratio is None else interval, test, p, least)


def _spread(values: Array) -> Spread:
    quartiles = None
    if len(values) >= 4:
        low, high = np.quantile(values, [0.25, 0.75])
        quartiles = (float(low), float(high))
    return Spread(
        len(values), float(np.median(values)), float(values.min()), float(values.max()), quartiles,
        tuple(map(float, values)),
    )  # fmt: skip


def _differs(one: list[Subject], two: list[Subject]) -> dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Settings whose values are not the same in both, each value once."""
    out = {}
    for name in dict.fromkeys(name for s in one + two for name in s.settings):
        sides = [_distinct([s.settings.get(name) for s in side]) for side in (one, two)]
        if sides[0] != sides[1] or len(sides[0]) > 1:
            out[name] = (sides[0], sides[1])
    return out


def _distinct(values: list[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(sorted(found, key=str))


def _notes(one: list[Subject], two: list[Subject], pairs: Any, measures: tuple[Measure, ...]) -> list[str]:
    notes = []
    if len({s.data for s in one}) > 1 or {s.data for s in one} != {s.data for s in two}:
        notes.append("The data differ: a loss on one is not a loss on the other.")
    notes.append(_test(one, two, pairs))
    shared = {s.path for s in one} & {s.path for s in two}
    if shared:
        notes.append(f"{len(shared)} in both A and B: {sorted(shared)[0]}.")
    total = {name for s in one + two for name in s.numbers}
    missing = sorted(name for name in total if not all(any(name in s.numbers for s in side) for side in (one, two)))
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        notes.append(f"On one side only, so not compared: {', '.join(missing[:4])}{more}.")
    short = [m.name for m in measures if m.a.n < len(one) or m.b.n < len(two)]
    if short:
        notes.append(f"Not every run has {', '.join(short[:4])}: those that have it are compared.")
    return notes


def _test(one: list[Subject], two: list[Subject], pairs: Any) -> str:
    if len(one) == len(two) == 1:
        return f"One {one[0].kind} each: no significance."
    if pairs is not None:
        least = significance.smallest_p(len(pairs))
        said = f"p: exact Wilcoxon signed-rank test over {len(pairs)} pairs with the same seed and data"
    else:
        least = significance.smallest_p(len(one), len(two))
        said = f"p: exact Mann–Whitney test of {len(one)} against {len(two)} independent {one[0].kind}s"
    return f"{said}, two-sided; with so few it cannot be below {least:.3g}." if least > 0.001 else f"{said}, two-sided."

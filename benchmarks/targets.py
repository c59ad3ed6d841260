"""What was asked for, what was measured, and whether that is reached: words made of numbers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks import diagnosing, traced
from benchmarks.derive import Row
from benchmarks.problem import Shape
from benchmarks.spread import exponent, geometric_mean, median

NORMS, SHARES, MEAN, WORST, PEAK, LINEAR, ROOT = 0.05, 0.15, 0.7, 1.0, 0.6, (0.95, 1.05), 0.55
FASTER = 5
CHECK, SAMPLES = 5, 0.02  # s, share


class Target(NamedTuple):
    """what was asked, the measured figure in words, and whether it is reached.

    None where it was not measured, or where it is reached as far as it was measured and something is missing.
    """

    what: str
    asked: str
    measured: str
    reached: bool | None

    @property
    def verdict(self) -> str:
        return {True: "reached", False: "NOT reached"}.get(
            self.reached, "incomplete" if self.measured else "not measured"
        )


def so_far(reached: bool, complete: bool) -> bool | None:
    """Nothing is reached before all of it was measured."""
    return None if reached and not complete else reached


def targets(results: dict[str, Any], rows: list[Row]) -> list[Target]:
    return [*_ratios(rows), *_looking(rows), _peak(rows), *_growth(results), *_training(results), *_diagnosis(results),
            *_traced(results)]  # fmt: skip


def _traced(results: dict[str, Any]) -> Iterator[Target]:
    yield from (Target(*asked) for asked in traced.asked(results))


def _ratios(rows: list[Row]) -> Iterator[Target]:
    known = [row for row in rows if row.ratio]
    what = "ledger of norms and gains on, over the fastest plain peer: "
    if not known:
        yield Target(what + "geometric mean and worst", f"≤ {MEAN}, ≤ {WORST}", "", None)
        return
    mean, worst = geometric_mean([row.ratio[0] for row in known]), max(known, key=lambda row: row.ratio[0])
    over = sum(row.ratio[0] > WORST for row in known)
    missing = _missing(rows, known)
    yield Target(f"{what}geometric mean of {len(known)}", f"≤ {MEAN}", f"{mean:.2f}{missing}",
                 so_far(mean <= MEAN, not missing))  # fmt: skip
    text = f"{worst.ratio[0]:.2f} ({worst.title}); above {WORST:g} in {over} of {len(known)}{missing}"
    yield Target(what + "worst", f"≤ {WORST:g}", text, so_far(over == 0, not missing))


def _missing(rows: list[Row], known: list[Any]) -> str:
    """So many cells and shapes are not in the figure."""
    return f"; {len(rows) - len(known)} not measured" if len(known) < len(rows) else ""


def _looking(rows: list[Row]) -> Iterator[Target]:
    for what, field, most in (("norms and gains", "norms", NORMS), ("shares as well", "shares", SHARES)):
        known = [(getattr(row, field)[0], row.title) for row in rows if getattr(row, field)]
        title, asked = f"what a ledger with {what} adds to our step", f"≤ {most:.0%}"
        if not known:
            yield Target(title, asked, "", None)
            continue
        worst, where = max(known)
        over, missing = sum(part > most for part, _ in known), _missing(rows, known)
        middle = median([part for part, _ in known])
        text = f"median {middle:.1%}, worst {worst:.1%} ({where}); above {most:.0%} in {over} of {len(known)}"
        yield Target(title, asked, text + missing, so_far(over == 0, not missing))


def _peak(rows: list[Row]) -> Target:
    found = [row for row in rows if row.of_peak and _is_large(row)]
    what, asked = "LSTM, H = 512, ledger on: part of the machine's sgemm rate", f"≥ {PEAK:.0%}"
    if not found:
        return Target(what, asked, "", None)
    text = f"{found[0].of_peak:.0%}" + (f" ({found[0].of_peak_plain:.0%} without)" if found[0].of_peak_plain else "")
    return Target(what, asked, text, found[0].of_peak >= PEAK)


def _is_large(row: Row) -> bool:
    return row.cell == "lstm" and row.shape.H == 512


def misses(row: Row) -> list[str]:
    """The targets that one row misses, by the names of their columns."""
    missed = {
        "ratio": row.ratio and row.ratio[0] > WORST,
        "ledger adds": row.norms and row.norms[0] > NORMS,
        "shares too": row.shares and row.shares[0] > SHARES,
        "of sgemm": row.of_peak and _is_large(row) and row.of_peak < PEAK,
    }
    return [name for name, yes in missed.items() if yes]


def _growth(results: dict[str, Any]) -> Iterator[Target]:
    powers = {one["cell"]: time_power(one) for one in results.get("growth", []) if one["by"] == "T"}
    yield _powers("time of our step with its ledger ∝ Tᵖ", "p = 1.00 ± 0.05", powers, *LINEAR)
    powers = {one["cell"]: memory_power(one) for one in results.get("growth_memory", [])}
    yield _powers("memory of Checkpointed(), without what the ledger itself holds, ∝ Tᵖ", f"p ≤ {ROOT} (√T: 0.5)",
                  powers, 0, ROOT)  # fmt: skip


def _powers(what: str, asked: str, powers: dict[str, float | None], low: float, high: float) -> Target:
    known = [power for power in powers.values() if power is not None]
    if not known:
        return Target(what, asked, "", None)
    words = {cell: "not measured" if power is None else f"{power:.2f}" for cell, power in powers.items()}
    text = ", ".join(f"{cell.upper()} {word}" for cell, word in words.items())
    return Target(what, asked, text, so_far(all(low <= p <= high for p in known), len(known) == len(powers)))


def time_power(growth: dict[str, Any]) -> float | None:
    """The fitted exponent of the median times; None where some are missing."""
    if growth["status"] != "timed":
        return None
    sizes = [getattr(Shape(*shape), growth["by"]) for shape in growth["shapes"]]
    return exponent(sizes, [median(times) for times in growth["times"]])


def memory_power(growth: dict[str, Any]) -> float | None:
    """The fitted exponent of what is neither data nor ledger."""
    return power(growth["T"], [work_mib(found) for found in growth["found"]])


def power(sizes: list[int], values: list[float | None]) -> float | None:
    """The fitted exponent; None where a value is missing or too small to be seen."""
    return exponent(sizes, values) if all(value and value > 0 for value in values) else None


def work_mib(found: dict[str, Any]) -> float | None:
    """What recording takes beside the data and the ledger that comes out."""
    return None if found.get("peak_mib") is None else found["peak_mib"] - found["ledger_mib"]


def _training(results: dict[str, Any]) -> Iterator[Target]:
    for one in results.get("training", []):
        what, asked = (
            f"updates of `bptt train` on text, H = {one['hidden']}, over the reference engine's",
            f"≥ {FASTER} ×",
        )
        times = faster(one)
        yield Target(what, asked, f"{times:.1f} ×" if times else one["status"], times and times >= FASTER)


def _diagnosis(results: dict[str, Any]) -> Iterator[Target]:
    for one in results.get("diagnosis", []):
        T, B, H = one["sizes"]
        whats = (f"`bptt check` of an LSTM, T, B, H = {T}, {B}, {H}", "what sampling the exponent adds to training")
        askeds = f"< {CHECK} s", f"< {SAMPLES:.0%} every {one['every']} updates"
        if one["status"] != "measured":
            yield from (Target(what, asked, one["status"], None) for what, asked in zip(whats, askeds, strict=True))
            continue
        took, part = median(one["check"]), diagnosing.share(one)
        yield Target(whats[0], askeds[0], f"{took:.1f} s", took < CHECK)
        yield Target(whats[1], askeds[1], f"{part:.1%}", part < SAMPLES)


def faster(training: dict[str, Any]) -> float | None:
    """How many times as many updates the compiled engine does."""
    if training["status"] != "measured":
        return None
    return median(training["reference"]) / median(training["compiled"])

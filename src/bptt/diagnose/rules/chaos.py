"""BP103: two states that differ by little move apart, so that gradients over long windows must diverge."""

from collections.abc import Iterator
from math import exp, log
from typing import TYPE_CHECKING, Any

from bptt.diagnose.rules.reach import power
from bptt.diagnose.rules.rule import Rule, Seen, Thresholds, name_of

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis


def chaotic(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP103: the lower end of the largest exponent is above 0, by a margin and by what it makes over the steps."""
    found = diagnosis.exponents
    if found is None or not len(found.values):
        return
    largest, error = float(found.values[0]), float(found.errors[0])
    low = largest - limits["errors"] * error
    steps = found.steps - found.skipped
    if not low > limits["margin"] or low * steps < log(limits["growth"]):
        return
    window = max(round(found.window or 1), 1)
    evidence: dict[str, Any] = {"largest exponent": largest, "standard error": error, "steps": steps}
    evidence |= {"window": window, "growth": exp(min(low * steps, 700.0))}
    yield Seen(name_of(found.state), f"largest exponent {largest:.3g} ± {error:.1g} per step: nearby "
               f"states move apart × {power(largest * steps)} over {steps} steps; gradients serve over "
               f"windows of about {window}", evidence)  # fmt: skip


# ERRORS: two standard errors are the 95 % interval.  MARGIN and GROWTH: over a finite number of steps a stable network
# may also grow for a while, as every matrix that is not normal does; tenfold is beyond that.
RULES = (
    Rule("BP103", "chaotic", "warning", "The largest Lyapunov exponent is above 0: gradients diverge with the window.",
         chaotic, {"errors": 2.0, "margin": 0.01, "growth": 10.0}, ("floss", "clip", "orthogonal", "gated-cell")),
)  # fmt: skip

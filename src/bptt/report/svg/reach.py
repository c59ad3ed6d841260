"""The one number: how far back the gradient reaches, beside what the model uses."""

from typing import NamedTuple

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.truncation import Reach, Truncation
from bptt.ledger import Ledger
from bptt.report.svg.ledgers import main_parameter
from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.words import between, number, percent, steps

TOLERANCE = 0.01  # truncation bias up to which a gradient counts as the same


class Reached(NamedTuple):
    """A horizon and whose it is.

    parameter: whose gradient.  steps, low, high: how far back, and its interval.  of: T.
    truncation: b(K); None where only the number is known.
    """

    parameter: str
    steps: int
    low: int
    high: int
    of: int
    truncation: Truncation | None

    @property
    def sure(self) -> str:
        """How it is known: exact, or from how many losses and with which confidence."""
        if self.truncation is None:
            return "as the run noted it"
        if self.truncation.exact:
            return "exact" if self.low == self.high else f"{between(self.low, self.high)}, exact where K was measured"
        if self.low == self.high == self.steps:
            return f"from {number(self.truncation.losses)} of {number(self.truncation.of)} losses"
        known = f"{number(self.truncation.losses)} of {number(self.truncation.of)} losses"
        return f"{between(self.low, self.high)} with {percent(self.truncation.confidence, 0)} confidence, from {known}"


def reached(diagnosis: Diagnosis) -> Reached | None:
    """The horizon of the main parameter under windowed truncation; None where it was not measured."""
    known = {name: found for name, found in diagnosis.truncation.items() if found}
    if not known:
        return _noted(diagnosis.ledger)
    name = first_of(known, diagnosis.ledger)
    found = next((one for one in known[name] if one.scheme == "windowed"), known[name][0])
    reach = horizon_of(found)
    if reach is None:
        return None
    return Reached(name, int(reach.steps), int(reach.low), int(reach.high), int(np.max(found.K)), found)


def _noted(ledger: Ledger | None) -> Reached | None:
    """The horizon that a run wrote into its ledger."""
    noted = {} if ledger is None else ledger.meta.get("horizon")
    if ledger is None or not isinstance(noted, dict):
        return None
    name = main_parameter(ledger)
    steps = noted.get(name)
    return Reached(name, steps, steps, steps, ledger.steps(name), None) if isinstance(steps, int) else None


def horizon_of(found: Truncation) -> Reach | None:
    """Its horizon; None for the scheme that has none, and for numbers that are none."""
    if found.scheme == "last step only" or not all(np.isfinite(v).all() for v in (found.bias, found.low, found.high)):
        return None
    return found.horizon(TOLERANCE)


def first_of(known: dict[str, list[Truncation]], ledger: Ledger | None) -> str:
    """The main parameter of the ledger where it is among them, else the last recurrent one, else the first."""
    if ledger is not None and (name := main_parameter(ledger)) in known:
        return name
    recurrent = [name for name in known if "hh" in name and "reverse" not in name]
    return recurrent[-1] if recurrent else next(iter(known))


def reach_bar(diagnosis: Diagnosis, left: float, top: float, width: float) -> Markup:
    """Steps back from a loss as a bar, 76 pixels high: what the gradient reaches, and what the model uses."""
    reach, context = reached(diagnosis), diagnosis.context
    T = reach.of if reach else int(context.lags[-1]) if context is not None and len(context.lags) else 0
    if T < 1:
        return Markup()
    rows = []
    if reach is not None:
        rows.append(_row(left, top, width, T, "gradient reaches", reach.steps, reach.low, reach.high, 1))
    if context is not None:
        rows.append(
            _row(left, top + 26 * len(rows), width, T, "model uses", context.steps, context.low, context.high, 2)
        )
    at = top + 26 * len(rows)
    ends = [("0 steps back", left + LABEL, None), (f"{steps(T)} back", left + width, "end")]
    return join(*rows, *(tag("text", words, x=x, y=at + 10, cls="q", font_size=12, text_anchor=anchor)
                         for words, x, anchor in ends))  # fmt: skip


LABEL = 124  # room for the name of a row


def _row(left: float, top: float, width: float, T: int, label: str, n: int, low: int, high: int, style: int) -> Markup:
    room = width - LABEL
    start, end, first, last = (left + LABEL + room * min(max(v, 0), T) / T for v in (0, n, low, high))
    whisker = f"M{first:.1f} {top + 3}v10M{first:.1f} {top + 8}H{last:.1f}M{last:.1f} {top + 3}v10"
    return join(
        tag("text", label, x=left, y=top + 13),
        tag("rect", x=start, y=top, width=f"{room:.1f}", height=16, cls="z"),
        tag("rect", x=start, y=top + 3, width=f"{max(end - start, 1):.1f}", height=10, cls=f"f{style}"),
        tag("path", d=whisker, cls="l s6") if high > low else None,
    )


def in_words(diagnosis: Diagnosis) -> str:
    """Both numbers as a sentence."""
    reach, context = reached(diagnosis), diagnosis.context
    said = []
    if reach is not None:
        said.append(
            f"The gradient of {reach.parameter} reaches {steps(reach.steps)} of {number(reach.of)} back ({reach.sure})."
        )
    if context is not None:
        span = "" if context.low == context.high else f" ({between(context.low, context.high)})"
        said.append(f"The model uses {steps(context.steps)}{span}.")
    return " ".join(said) or "How far back the gradient reaches was not measured."

"""What a rule is, and what all rules ask of a diagnosis besides its measurements."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bptt.diagnose.findings import Severity
from bptt.ledger import Ledger
from bptt.ledger.norms import norm

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis

Thresholds = Mapping[str, float]
GATED = ("lstm", "gru")
ONLY: dict[str, Callable[["Diagnosis"], bool]] = {  # remedies that do not fit every model
    "orthogonal": lambda d: cell_of(d) in ("rnn", ""),
    "identity": lambda d: cell_of(d) in ("rnn", ""),
    "gated-cell": lambda d: cell_of(d) in ("rnn", ""),
    "chrono": lambda d: cell_of(d) in GATED,
    "forget-bias": lambda d: cell_of(d) == "lstm",
    "clip": lambda d: not (d.not_finite or "").startswith("inputs"),
    "larger-K": lambda d: cut_of(d) is not None,
}


class Seen(NamedTuple):
    """One thing that a rule has seen: where, in one sentence with its numbers, and the numbers themselves."""

    where: str
    message: str
    evidence: dict[str, Any]


Look = Callable[["Diagnosis", Thresholds], Iterable[Seen]]


@dataclass(frozen=True)
class Rule:
    """One rule of `bptt.diagnose.RULES`.

    code: "BP101".  name: "vanishing".  severity: of its findings.  summary: what it says, in one line.
    look: (diagnosis, thresholds) → what it sees, nothing where it has nothing to go by.
    thresholds: name → default; asked for as "BP101.share".  remedies: names, the most promising first.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    look: Look
    thresholds: dict[str, float] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()

    def remedies_for(self, diagnosis: "Diagnosis") -> tuple[str, ...]:
        """Those that fit what was examined: no gated cell in place of one, no larger K where nothing is cut."""
        return tuple(name for name in self.remedies if ONLY.get(name, lambda _: True)(diagnosis))


def cell_of(diagnosis: "Diagnosis") -> str:
    """Which cell was examined, "rnn", "gru", "lstm" or a name of its own; "" where that is not known."""
    return diagnosis.facts.get("cell") or ("" if diagnosis.ledger is None else cell_of_ledger(diagnosis.ledger))


def cell_of_ledger(ledger: Ledger) -> str:
    """The cell that a ledger's gates are those of; "" where parameters work on no state that it knows."""
    cells = {place.gates: place.state for place in ledger.places.values() if place.state}
    if not cells:
        return ""
    return next((cell for cell, gate in (("lstm", "f"), ("gru", "z")) if any(gate in gates for gates in cells)), "rnn")


class Cut(NamedTuple):
    """Where training cuts the gradient: a scheme of `truncation.SCHEMES`, and its K."""

    scheme: str
    K: int


def cut_of(diagnosis: "Diagnosis") -> Cut | None:
    """How the training, or else the recorded pass, is truncated; None where it is not."""
    history, ledger = diagnosis.history, diagnosis.ledger
    plans = [None if history is None else history.plan, diagnosis.plan]
    plans.append(None if ledger is None else ledger.meta.get("plan"))
    found = re.match(r"(chunked|windowed)\D*(\d+)", next((plan for plan in plans if plan), "").lower())
    return Cut(found[1], int(found[2])) if found else None


def size_of(ledger: Ledger, name: str) -> float:
    """‖dW‖, which several rules ask for."""
    if ("size", name) not in ledger.memo:
        ledger.memo["size", name] = np.array(norm(ledger.gradients[name]))
    return float(ledger.memo["size", name])


def name_of(state: str) -> str:
    """A state without the dot that its key ends in."""
    return state.rstrip(".") or "the state"

"""BP104 and BP105: the gradient is cut, at a few steps or at each."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt.diagnose.rules.rule import Cut, Rule, Seen, Thresholds, cut_of
from bptt.diagnose.truncation import Truncation
from bptt.ledger import Ledger

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis


def truncated(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP104: the lower end of b(K) at the K of the training is above the tolerance."""
    cut = cut_of(diagnosis)
    if cut is None or cut.K == 1:  # K = 1 is no truncation any more: BP105
        return
    found = [one for one in _recurrent(diagnosis) if one.scheme == cut.scheme and one.K[-1] > cut.K]
    worst = max(found, key=lambda one: one.low[_at(one, cut)], default=None)
    if worst is None or worst.low[_at(worst, cut)] <= limits["bias"]:
        return
    at = _at(worst, cut)
    reach = worst.horizon(limits["bias"])
    evidence: dict[str, Any] = {"K": cut.K, "bias": float(worst.bias[at]), "low": float(worst.low[at])}
    evidence |= {"high": float(worst.high[at]), "cosine": float(worst.cosine[at]), "smallest K": reach.steps}
    within = "" if worst.exact else f" ({100 * worst.low[at]:.0f} % to {100 * worst.high[at]:.0f} %)"
    yield Seen(worst.parameter, f"{cut.scheme.capitalize()}({cut.K}) loses {100 * worst.bias[at]:.0f} %{within} of the "
               f"gradient; {100 * limits['bias']:.0f} % takes K = {reach.steps}", evidence)  # fmt: skip


def _at(one: Truncation, cut: Cut) -> int:
    """The largest K that was measured and is no larger than the training's; the smallest where there is none."""
    return max(int(np.searchsorted(one.K, cut.K, "right")) - 1, 0)


def _recurrent(diagnosis: "Diagnosis") -> list[Truncation]:
    """Of matrices that work on a state, since a bias may cancel to nothing; of all where no state is known."""
    ledger = diagnosis.ledger
    everything = [one for schemes in diagnosis.truncation.values() for one in schemes]
    if ledger is None:
        return everything
    known = {name for name in ledger.names if ledger.place(name).state and ledger.gradients[name].ndim == 2}
    return [one for one in everything if one.parameter in known] or everything


def detached(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP105: no loss reaches a use at another step than its own."""
    cut = cut_of(diagnosis)
    if cut is not None and cut.K == 1:
        text = f"{cut.scheme.capitalize()}(1) lets no loss reach another step than its own: nothing is learnt over time"
        yield Seen("the plan", text, {"K": 1})
    elif diagnosis.ledger is not None and diagnosis.ledger.meta.get("plan", "").startswith("autograd"):
        yield from _detached_in_a_map(diagnosis.ledger, limits)


def _detached_in_a_map(ledger: Ledger, limits: Thresholds) -> Iterator[Seen]:
    """In a model that was traced: each table that is known is zero off its diagonal, to the last bit."""
    tables = {name: ledger.map(name) for name in ledger.maps if ledger.has_lags(name)}
    counted, losses = 0, 0
    for name, table in tables.items():
        at = ledger.loss_positions(name) - 1
        off = table.copy()
        off[np.arange(len(table)), at] = 0
        if off.any():
            return
        own = table[np.arange(len(table)), at] > 0
        counted, losses = counted + int(own.any()), max(losses, int((own & (at > 0)).sum()))
    if counted and losses >= limits["losses"]:
        text = (
            f"{losses} losses, and each reaches the uses at its own step only: the state is detached from step to "
            "step, or nothing carries one"
        )
        yield Seen("the state", text, {"losses": losses, "parameters": len(tables)})


# BIAS: at a tenth the direction is off by 6° at most, less than from one batch to the next.  LOSSES that stand behind a
# use they could reach: of one alone nobody can tell.
RULES = (
    Rule("BP104", "truncation cuts signal", "warning", "Truncation loses a part of the gradient that matters.",
         truncated, {"bias": 0.1}, ("larger-K",)),
    Rule("BP105", "state detached", "error", "No loss reaches a step before its own.",
         detached, {"losses": 2}, ("larger-K",)),
)  # fmt: skip

"""BP201 to BP204: the uses of one parameter beside each other, and a gradient that is small because the error is."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt.diagnose.rules.reach import RULES as REACH
from bptt.diagnose.rules.reach import growth, vanishing, walked
from bptt.diagnose.rules.rule import Rule, Seen, Thresholds, size_of
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.typing import Array

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis


# ---- BP201 -----------------------------------------------------------------------------------------------------------


def dead(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP201: where losses come to, half of the uses get nothing. The parameter that has the most such uses is named."""
    ledger = diagnosis.ledger
    if ledger is None or limits["steps"] > ledger.T:
        return
    found = {name: _dead(ledger, name) for name in ledger.names if ledger.steps(name) >= limits["steps"]}
    name, steps = max(found.items(), key=lambda item: item[1].mean(), default=("", np.zeros(1, bool)))
    if steps.mean() < limits["share"]:
        return
    others = sum(one.mean() >= limits["share"] for one in found.values()) - 1
    also = f"; so do {others} other parameters" if others > 1 else "; so does one other parameter" if others else ""
    evidence = {"dead": int(steps.sum()), "uses": len(steps), "first": int(steps.argmax()) + 1}
    text = f"{steps.sum()} of {len(steps)} uses get a gradient of exactly 0 where the loss reaches{also}"
    yield Seen(name, text, evidence)


def _dead(ledger: Ledger, name: str) -> Array:
    """(T,) uses with exactly no gradient that something comes to: ‖∂J/∂s_t‖, a loss, or other parameters' uses.

    A readout hears of no step without a loss, and of a padded step nobody does: that is not meant.
    """
    nothing, state = ledger.norms(name) == 0, ledger.place(name).state
    if state and len(ledger.states[state]) == len(nothing) + 1:
        after = ledger.state_norms(state)[1:]
        return nothing & ((after[::-1] if ledger.reverse[state] else after) > 0)
    if ledger.states:
        at_loss = ledger.losses != 0 if len(nothing) == ledger.K and ledger.loss_steps is None else False
        return nothing & at_loss
    others = [ledger.norms(n) > 0 for n in ledger.names if n != name and ledger.steps(n) == len(nothing)]
    heard = np.any(others, axis=0) if others else np.zeros(len(nothing), bool)
    return nothing & ~heard


# ---- BP202 -----------------------------------------------------------------------------------------------------------


def cancelling(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP202: the uses add up to far less than uses in random directions would, √Σ‖dW_t‖²."""
    ledger, found = diagnosis.ledger, {}
    if ledger is None:
        return
    for name in ledger.names:
        norms = walked(ledger, name)
        heard = int((norms > 1e-3 * norms.max(initial=0)).sum())
        if heard >= limits["steps"] and ledger.gradients[name].size >= limits["size"]:
            size = size_of(ledger, name)
            found[name] = size / norm(norms), size / norms.sum(), heard
    if not found:
        return
    name, (ratio, coherence, heard) = min(found.items(), key=lambda item: item[1][0])
    if ratio < limits["ratio"]:
        evidence = {"coherence": float(coherence), "of random directions": float(ratio), "uses": heard}
        text = f"its {heard} uses cancel: coherence {coherence:.2g}, {ratio:.2g} of what random directions leave"
        yield Seen(name, text, evidence)


# ---- BP203 -----------------------------------------------------------------------------------------------------------


def dominated(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP203: one use has more than half of Σ‖dW_t‖. The parameter with the largest is named."""
    ledger, found, error = diagnosis.ledger, {}, diagnosis.facts.get("error")
    if ledger is None or (error is not None and error < limits["error"]):
        return
    for name in ledger.names:
        norms = walked(ledger, name)
        some = np.flatnonzero(norms > 0)
        if len(some) >= limits["uses"] and not _is_an_end(diagnosis, ledger, norms, some):
            found[name] = float(norms.max() / norms.sum())
    name, share = max(found.items(), key=lambda item: item[1], default=("", 0.0))
    if share > limits["share"]:
        step, uses = int(ledger.norms(name).argmax()) + 1, ledger.steps(name)
        evidence = {"share": share, "step": step, "uses": uses}
        yield Seen(f"step {step}", f"use {step} of {uses} has {100 * share:.0f} % of Σ‖dW_t‖ of {name}", evidence)


def _is_an_end(diagnosis: "Diagnosis", ledger: Ledger, norms: Array, some: Array) -> bool:
    """Whether the largest is the use next to the only loss, or the first of a gradient that grows.

    Then it is how fast the gradient dies out or grows that says so, not the step.
    """
    largest = int(norms.argmax())
    if largest == some[-1]:
        return len(norms) != ledger.K or (ledger.losses != 0).mean() < 0.5
    return largest == some[0] and any(growth(gain) > np.log(10) for gain in diagnosis.gains.values())


# ---- BP204 -----------------------------------------------------------------------------------------------------------


def merely_small(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP204: the error itself is tiny, while what the state carries back is healthy."""
    error = diagnosis.facts.get("error")
    ledger = diagnosis.ledger
    if ledger is None or not np.isfinite(ledger.loss):
        return
    size = norm(np.array([size_of(ledger, name) for name in ledger.names]))
    if error is None and not (size < limits["error"] and 0 <= ledger.loss < limits["error"]):
        return
    if (error is not None and error >= limits["error"]) or any(vanishing(diagnosis, REACH[0].thresholds)):
        return
    evidence: dict[str, Any] = {"error": error, "loss": ledger.loss, "gradient norm": size}
    why = "" if error is None else f", the error at the output is {error:.2g} of what no knowledge leaves"
    yield Seen("the loss", f"gradient norm {size:.2g} because the loss is {ledger.loss:.2g}{why}: it has not vanished "
               "on its way", {key: value for key, value in evidence.items() if value is not None})  # fmt: skip


# SHARE of BP201: a ReLU is silent half of the time, but all units of a layer at once are no accident; STEPS: of fewer
# uses, half is nothing.  RATIO of BP202: random directions leave 1, and a gradient of SIZE numbers and more hardly ever
# a fiftieth.  USES of BP203: of ten even ones each has a tenth; ERROR: of what is learnt, the last rest is uneven.
# ERROR of BP204: a thousandth of what no knowledge leaves.
RULES = (
    Rule("BP201", "dead use", "warning", "Half of the uses of a parameter get no gradient where losses come to.",
         dead, {"share": 0.5, "steps": 8}, ("orthogonal", "identity", "gated-cell")),
    Rule("BP202", "cancellation", "warning", "The uses of a parameter cancel: next to nothing is left of them.",
         cancelling, {"ratio": 0.02, "steps": 8, "size": 8}, ("clip",)),
    Rule("BP203", "one step dominates", "warning", "A single use has more than half of a parameter's gradient.",
         dominated, {"share": 0.5, "uses": 10, "error": 0.01}, ("clip",)),
    Rule("BP204", "loss merely small", "note", "The gradient is small because there is little left to learn here.",
         merely_small, {"error": 1e-3}),
)  # fmt: skip

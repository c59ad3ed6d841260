"""BP501 and BP502: numbers that cannot be trusted, and where that begins."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt.diagnose.rules.reach import walked
from bptt.diagnose.rules.rule import Rule, Seen, Thresholds, size_of
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.typing import Array
from bptt.uses import Columns, Ready, Use

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis

VALUES = {"nan": "NaN", "inf": "infinity", "-inf": "minus infinity", "infinity or NaN": "infinity or NaN"}


def not_finite(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP501: what the engine named, or where in a ledger it begins."""
    if diagnosis.not_finite is not None:
        what, _, rest = diagnosis.not_finite.partition(": got ")
        value = re.split(r", expected|\. ", rest, maxsplit=1)[0]
        holds = f"holds {VALUES[value]}" if value in VALUES else "is not finite"
        yield Seen(what, f"{holds}, the first on the way; nothing behind it can be measured", {"origin": what})
        return
    ledger = diagnosis.ledger
    if ledger is None:
        return
    wrong = [name for name in ledger.names if not np.isfinite(ledger.gradients[name]).all()]
    if wrong:
        where, text, evidence = _origin(ledger, wrong)
        yield Seen(where, text, evidence | {"parameters": len(wrong)})


def _origin(ledger: Ledger, wrong: list[str]) -> tuple[str, str, dict[str, Any]]:
    """Where it begins, as far as what was kept says: the way forward before the way back.

    Forward is the first step with a z that is not finite; back, the last step with a dW_t that is not, since every
    step before it only hears of that.
    """
    seen = {name: _bad_inputs(ledger.uses[name], ledger.steps(name)) for name in wrong if name in ledger.uses}
    forward = {name: int(_in_walk(ledger, name, bad).argmax()) for name, bad in seen.items() if bad.any()}
    if forward:
        name = min(forward, key=lambda name: forward[name])
        step = _as_counted(ledger, name, forward[name])
        text = "the input of this use is not finite: it comes from the way forward"
        return f"{name}, step {step}", text, {"step": step, "tensor": f"z of {name}"}
    back = {name: np.flatnonzero(~np.isfinite(walked(ledger, name))) for name in wrong}
    if all(len(steps) == 0 for steps in back.values()):
        text = "the gradient is not finite, though each of its uses is: their sum leaves the range"
        return wrong[0], text, {"tensor": f"dW of {wrong[0]}"}
    ends = {name: (int(steps[-1]), len(steps)) for name, steps in back.items() if len(steps)}
    name = max(ends, key=lambda name: ends[name])
    step = _as_counted(ledger, name, ends[name][0])
    text = "dW_t is not finite, the first on the way back"
    if not np.isfinite(ledger.loss):
        text += f"; the loss is {ledger.loss} already"
    return f"{name}, step {step}", text, {"step": step, "tensor": f"dW_t of {name}"}


def _in_walk(ledger: Ledger, name: str, values: Array) -> Array:
    return values[::-1] if ledger.place(name).reverse else values


def _as_counted(ledger: Ledger, name: str, at: int) -> int:
    """A step of the walk, from 0, as a step of the sequence, from 1."""
    return ledger.steps(name) - at if ledger.place(name).reverse else at + 1


def _bad_inputs(use: Use, steps: int) -> Array:
    """(T,) whether z of a use is not finite."""
    parts = use.parts if isinstance(use, Columns) else () if isinstance(use, Ready) else (use,)
    inputs = [part.z for part in parts if part.z is not None and part.z.dtype.kind == "f"]
    bad = np.zeros(steps, bool)
    for z in inputs:
        bad |= ~np.isfinite(z).all(axis=tuple(range(1, z.ndim)))
    return bad


def _gap(ledger: Ledger, name: str) -> float:
    """The residual, relative to the uses where they cancel: of what is left of them, rounding may be a good part."""
    residual, dW, uses = ledger.residuals.get(name, 0.0), size_of(ledger, name), norm(ledger.norms(name))
    return residual * dW / max(dW, uses) if dW > 0 else residual


def does_not_add_up(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP502: the uses against the gradient, each parameter by itself; the worst is named."""
    ledger = diagnosis.ledger
    if ledger is None or not all(np.isfinite(dW).all() for dW in ledger.gradients.values()):
        return
    limit = limits["float64"] if ledger.meta.get("dtype") == "float64" else limits["float32"]
    residuals = {name: _gap(ledger, name) for name in ledger.names}
    name = max(residuals, key=lambda name: residuals[name], default="")
    if name and residuals[name] > limit:
        unseen = ", ".join(ledger.meta.get("unseen", ()))
        evidence: dict[str, Any] = {"residual": residuals[name], "limit": limit}
        which = f" ({unseen})" if unseen else ""
        text = f"its uses add up to its gradient only within {residuals[name]:.1e}: some are not in the ledger{which}"
        yield Seen(name, text, evidence)


# The residual of a whole ledger is rounding, a few 1e-16 or 1e-7 times √T; the limits are what `bptt.trace` warns at.
RULES = (
    Rule("BP501", "not finite", "error", "NaN or infinity, with the step and the tensor where it begins.",
         not_finite, {}, ("clip",)),
    Rule("BP502", "ledger does not add up", "error", "The uses that are known are not all there are.",
         does_not_add_up, {"float64": 1e-9, "float32": 1e-3}),
)  # fmt: skip

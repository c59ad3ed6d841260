"""BP401: the norm of the gradient is cut at most updates, so that its size says nothing any more."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt.diagnose.rules.rule import Rule, Seen, Thresholds

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis


def clipped(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP401, of the last half of the updates: at the beginning clipping is what it is for."""
    history = diagnosis.history
    if history is None or len(history.clipped) < limits["updates"]:
        return
    start = len(history.clipped) // 2
    share, norms = float(np.mean(history.clipped[start:])), np.asarray(history.norms[start:], float)
    norms = norms[np.isfinite(norms)]
    if share <= limits["share"] or not len(norms):
        return
    median, high = (float(np.quantile(norms, q)) for q in (0.5, 0.9))
    evidence: dict[str, Any] = {"share": share, "median norm": median, "clip value": high}
    at = "" if history.clip_norm is None else f" at {history.clip_norm:g}"
    evidence |= {} if history.clip_norm is None else {"clip norm": float(history.clip_norm)}
    text = f"{100 * share:.0f} % of the last {len(history.clipped) - start} updates were clipped{at}; "
    text += f"the median of the norm is {median:.3g}, and nine of ten are below {high:.3g}"
    yield Seen("training", text, evidence)


# SHARE: where most updates are clipped, the step has the same length whatever the gradient says.  UPDATES: of fewer,
# the last half is the beginning.
RULES = (
    Rule("BP401", "clipped most steps", "warning", "More than half of the last updates were clipped.",
         clipped, {"share": 0.5, "updates": 20}, ("clip", "orthogonal", "omega")),
)  # fmt: skip

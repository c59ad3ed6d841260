"""Section 7: how the gradient was applied."""

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.report.html.parts import Section, columns, figure, paragraph, row, table
from bptt.report.svg.chart import chart
from bptt.report.svg.marks import Bars, Rule
from bptt.report.svg.markup import Markup
from bptt.report.svg.scales import axis, counted
from bptt.report.svg.words import number, percent

CHARTS = 4


def applied(diagnosis: Diagnosis) -> Section | None:
    """What moved each parameter, and which steps."""
    updates = diagnosis.history.updates if diagnosis.history is not None else {}
    if not updates:
        return None
    iterations = sorted({int(part["iteration"]) for part in updates.values() if part.get("iteration") is not None})
    when = f" of iteration {number(iterations[-1])}" if iterations else ""
    omega = any(part.get("omega") is not None for part in updates.values())
    first = paragraph(
        f"The update{when}, after clipping, momentum and learning rate: ΔW = Σ_t S ∘ dW_t + carried + decay"
        f"{' + regulariser' if omega else ''}. S is the optimiser's scale; carried is what momentum brings from "
        "earlier iterations. The shares sum to 100 %; a negative one worked against the way the weights went."
    )
    heads = ("parameter", "moved ‖ΔW‖", "this gradient", "carried over", "weight decay", *(["Ω"] if omega else []))
    rows = [_row(name, part, omega) for name, part in updates.items()]
    figures = [_shares(name, part["shares"]) for name, part in updates.items() if _has_shares(part)][-CHARTS:]
    return Section(
        "applied", "How it was applied", [first, table("What moved the weights", heads, rows), row(*figures)], "Applied"
    )


def _row(name: str, part: dict, omega: bool) -> tuple[str, ...]:
    shares = [_steps(part), part.get("carried"), part.get("decay"), *([part.get("omega")] if omega else [])]
    return (name, number(part.get("moved")), *map(percent, shares))


def _has_shares(part: dict) -> bool:
    return part.get("shares") is not None and len(part["shares"]) > 0


def _steps(part: dict) -> float | None:
    """The share of all steps together; what the others leave."""
    if not part.get("moved"):
        return None
    return 1 - sum(float(part.get(other) or 0) for other in ("carried", "decay", "omega"))


def _shares(name: str, shares: object) -> Markup:
    values = np.asarray(shares, np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    steps = np.arange(1, len(values) + 1)
    x, y = counted("use at step t", len(values)), axis("share of ΔW, %", [values * 100, [0.0]])
    title = f"Which use moved {name}"
    drawn = chart(title, "Signed shares by step.", x, y, [Bars(steps, values * 100, 0.9), Rule(y=0.0)])
    caption = "Share of the update that each use made, ⟨S ∘ dW_t, ΔW⟩ / ‖ΔW‖²; below 0 it worked against it."
    return figure(
        title, drawn, caption, columns("Shares", ("step t", "share"), steps, [percent(float(v)) for v in values])
    )

"""Section 8: how all this was measured, so that it can be done again."""

import math

from bptt.diagnose.diagnosis import Diagnosis
from bptt.report.html.parts import Section, facts
from bptt.report.svg.markup import Markup, tag
from bptt.report.svg.words import number

NAMES = {
    "T": "steps T",
    "B": "sequences B",
    "residual": "residual ‖Σ_t dW_t − dW‖ / ‖dW‖",
    "error": "error ‖∂ℓ/∂y‖ against a blind guess",
    "units": "nonlinearity",
}
OF_LEDGER = ("source", "network", "engine", "dtype", "gradient", "loss", "plan", "keep", "schema", "version")


def measured(diagnosis: Diagnosis) -> Section:
    """Every fact, what was not measured, and the command."""
    pairs: list[tuple[str, object]] = [
        (NAMES.get(key, key), _shown(value))
        for key, value in diagnosis.facts.items()
        if key != "command" and value is not None
    ]
    pairs += _of_ledger(diagnosis)
    pairs += [("examined in", f"{number(diagnosis.seconds)} s")] if diagnosis.seconds else []
    content: list[Markup | None] = [facts(pairs)]
    if diagnosis.notes:
        content += [tag("h3", "Not measured"), tag("ul", *(tag("li", note) for note in diagnosis.notes))]
    command = diagnosis.facts.get("command")
    if command:
        content += [tag("h3", "To do it again"), tag("pre", tag("code", command))]
    return Section("measured", "How it was measured", [one for one in content if one is not None], "Measured")


def _of_ledger(diagnosis: Diagnosis) -> list[tuple[str, object]]:
    """What the ledger knows of itself and the facts do not say."""
    ledger = diagnosis.ledger
    if ledger is None:
        return []
    known = set(diagnosis.facts)
    pairs: list[tuple[str, object]] = [
        (f"ledger: {key}", _shown(ledger.meta[key])) for key in OF_LEDGER if key in ledger.meta and key not in known
    ]
    if "residual" not in known and (ledger.uses or ledger.recorded_residuals) and math.isfinite(ledger.residual):
        pairs.append((NAMES["residual"], number(ledger.residual, 2)))
    return pairs


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, int | float):
        return number(value, 6 if isinstance(value, float) and abs(value) > 1e-3 else 3)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_shown(one) for one in value)
    return _shown(value.item()) if hasattr(value, "item") and getattr(value, "size", 0) == 1 else str(value)

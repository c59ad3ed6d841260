"""A verdict: what was found, with its evidence, what it was measured against, and where."""

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One verdict.

    code: "BP101".  name: "vanishing".
    severity: "error" (numbers cannot be trusted), "warning" (learning suffers) or "note".
    where: the layer, parameter or step that it is about, in words: "layer0", "layer0.W_hh", "step 7".
    message: one sentence that states the evidence with its numbers.
    evidence: name → number, all that the rule looked at.  thresholds: name → number, what it was held against.
    remedies: names of remedies, the most promising first (`bptt.diagnose.remedies`).
    """

    code: str
    name: str
    severity: Severity
    where: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """Where it is explained."""
        return f"docs/verdicts.md#{self.code.lower()}"

    def __str__(self) -> str:
        """One line: the code, the name, where, and the evidence."""
        return f"{self.code} {self.name}: {self.where}: {self.message}"

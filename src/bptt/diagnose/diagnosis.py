"""A diagnosis: everything that was measured of one model on one batch, and the verdicts drawn from it."""

from dataclasses import dataclass, field
from typing import Any

from bptt.diagnose.context import Context
from bptt.diagnose.exponents import Exponents
from bptt.diagnose.findings import Finding
from bptt.diagnose.gain import Gain
from bptt.diagnose.gates import CellPath, Gates
from bptt.diagnose.history import History
from bptt.diagnose.spectrum import Spectrum
from bptt.diagnose.truncation import Truncation
from bptt.errors import unknown
from bptt.ledger import Ledger


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was measured, and what it means. Anything that could not be measured is None or empty, and in `notes`.

    source: what was examined, as the user named it.
    facts: for people: network, cell, units, data, loss, T, B, dtype, engine, plan, iteration, command that reproduces
        it, version, residual; error: of the output, relative to what no knowledge leaves.
    ledger: of the examined batch.  exponents, spectrum: of the whole state.
    gates, cell_paths: by layer.  gains: by state.
    truncation: parameter → one for each scheme.  context: effective context.  history: of a run.
    findings: the verdicts, the gravest first.  notes: what was not measured, and why.  seconds: it took.
    plan: of the training, as far as it is known.  not_finite: what the engine says of a NaN that ended the pass.
    """

    source: str
    facts: dict[str, Any]
    ledger: Ledger | None = None
    exponents: Exponents | None = None
    spectrum: Spectrum | None = None
    gates: dict[str, Gates] = field(default_factory=dict)
    cell_paths: dict[str, CellPath] = field(default_factory=dict)
    gains: dict[str, Gain] = field(default_factory=dict)
    truncation: dict[str, list[Truncation]] = field(default_factory=dict)
    context: Context | None = None
    history: History | None = None
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    plan: str = ""
    not_finite: str | None = None

    def finding(self, code: str) -> Finding | None:
        """The first finding of a rule, by its code or name; None where it has none.

        Raises:
            UnknownName: no such rule.
        """
        from bptt.diagnose.rules import RULES

        if not any(code in (rule.code, rule.name) for rule in RULES.values()):
            raise unknown("rule", code, RULES)
        return next((one for one in self.findings if code in (one.code, one.name)), None)

    def exit_code(self, fail_on: str = "error") -> int:
        """1 where a finding is at least so grave ("error", "warning" or "note"), else 0.

        Raises:
            UnknownName: no such severity.
        """
        from bptt.diagnose.verdicts import at_or_above

        return int(bool(at_or_above(self.findings, fail_on)))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON: lists for arrays, None for what is not finite; of the ledger, its totals."""
        from bptt.diagnose.plain import plain_diagnosis

        return plain_diagnosis(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows: the verdicts as a picture and a table, or a line where nothing can draw them."""
        from bptt.ledger.display import mimebundle

        return mimebundle(self, "diagnosis", include, exclude)

    def __str__(self) -> str:
        from bptt.diagnose.plain import lines

        return "\n".join(lines(self))

    def __repr__(self) -> str:
        codes = ", ".join(one.code for one in self.findings) or "no finding"
        return f"Diagnosis({self.facts.get('network', self.source)}; {codes})"

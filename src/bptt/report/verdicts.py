"""Verdicts in a terminal: what was found, and what a rule means. Severity is a sign and a word, never colour alone."""

import inspect
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from bptt.diagnose.findings import Finding
from bptt.diagnose.remedies import find_remedy

SIGNS = {"error": ("✗", "bold red"), "warning": ("!", "bold yellow"), "note": ("·", "bold cyan")}
ORDER = {"error": 0, "warning": 1, "note": 2}


def by_gravity(findings: list[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes, each in the order they came."""
    return sorted(findings, key=lambda finding: ORDER[finding.severity])


def verdict(finding: Finding, width: int = 100) -> RenderableType:
    """One verdict: code, name, where; what was found with its numbers; what to try; where it is explained."""
    sign, style = SIGNS[finding.severity]
    first = Text.assemble(
        (f"{sign} {finding.code} {finding.name}", style), f"  {finding.where}" if finding.where else "",
        (f"  {finding.severity}", "dim"),
    )  # fmt: skip
    lines: list[RenderableType] = [Padding(Text(finding.message), (0, 0, 0, 2), expand=False)]
    if finding.remedies:
        lines += [Padding(Text.assemble(("→ try: ", "green"), ", ".join(finding.remedies)), (0, 0, 0, 2), expand=False)]
    more = Text(f"{finding.page}, or: bptt check --explain {finding.code}", "dim")
    lines += [Padding(more, (0, 0, 0, 2), expand=False)]
    return Padding(Group(first, *lines), (1, 0, 0, 0), expand=False)


def explanation(rule: Any) -> RenderableType:
    """What a rule says, when it says it, what it is held against, and what may help.

    Args:
        rule: of `bptt.diagnose.RULES`.
    """
    sign, style = SIGNS[rule.severity]
    first = Text.assemble((f"{sign} {rule.code} {rule.name}", style), (f"  {rule.severity}", "dim"))
    lines: list[RenderableType] = [Text(rule.summary)]
    doc = " ".join((inspect.getdoc(rule.look) or "").split())
    told = doc.removeprefix(rule.code).lstrip(".,: ")
    lines += [Text(f"{told[:1].upper()}{told[1:]}")] if told else []
    limits = "   ".join(f"{rule.code}.{name}={value:g}" for name, value in rule.thresholds.items())
    lines += [Text.assemble(("thresholds: ", "dim"), limits)] if limits else []
    lines += [Text.assemble(("→ try: ", "green"), f"{name}: {find_remedy(name).summary}") for name in rule.remedies]
    lines += [Text(f"docs/verdicts.md#{rule.code.lower()}", "dim")]
    return Padding(
        Group(first, *(Padding(line, (0, 0, 0, 2), expand=False) for line in lines)), (0, 0, 1, 0), expand=False
    )

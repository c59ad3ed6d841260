"""Section 1: the verdicts, each with its evidence beside what it was held against, and what may help."""

from typing import Any

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.findings import Finding
from bptt.diagnose.remedies import REMEDIES
from bptt.report.html.brief import SIGNS
from bptt.report.html.meanings import MEANINGS
from bptt.report.html.parts import Section, paragraph, sentence, table
from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.words import number


def verdicts(diagnosis: Diagnosis) -> Section:
    """All of them, the gravest first."""
    said = [_verdict(finding, i) for i, finding in enumerate(diagnosis.findings, 1)]
    if not said:
        said = [paragraph("No rule found anything wrong in what was measured.")]
    return Section("verdicts", "Verdicts", said, "Verdicts")


def _verdict(finding: Finding, i: int) -> Markup:
    sign = tag("span", SIGNS[finding.severity], cls="sign", aria_hidden="true")
    head = tag(
        "h3",
        sign,
        f" {finding.severity.capitalize()} {finding.code} {finding.name}",
        id=f"verdict-{i}",
        cls=finding.severity,
    )
    entries: list[tuple[str, object]] = [("Where", finding.where)] if finding.where else []
    entries.append(("What was found", sentence(finding.message)))
    entries += [("What it means", MEANINGS[finding.code])] if finding.code in MEANINGS else []
    if finding.remedies:
        items = [tag("li", tag("b", name), _summary(name)) for name in finding.remedies]
        entries.append(("What may help, the most promising first", tag("ol", *items)))
    entries.append(("Explained in", tag("code", finding.page)))
    listed = tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in entries), cls="more")
    return join(head, tag("div", listed, _evidence(finding), cls="row"))


def _summary(name: str) -> str:
    """What a remedy does."""
    return f": {REMEDIES[name].summary}" if name in REMEDIES else ""


def _evidence(finding: Finding) -> Markup | None:
    """What the rule looked at beside what it held it against."""
    names = dict.fromkeys([*finding.evidence, *finding.thresholds])
    rows = [
        (name, *(_shown(given[name]) if name in given else "" for given in (finding.evidence, finding.thresholds)))
        for name in names
    ]
    return table(f"Evidence of {finding.code}", ("quantity", "value", "threshold"), rows) if rows else None


def _shown(value: Any) -> str:
    """A value of whatever kind in a cell."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        more = f", … ({len(value)} in all)" if len(value) > 8 else ""
        return ", ".join(_shown(one) for one in value[:8]) + more
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    return number(value) if value is None or isinstance(value, int | float) else str(value)

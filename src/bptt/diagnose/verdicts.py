"""From what was measured to verdicts: which rules are asked, and what they are held against."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from bptt.diagnose.findings import Finding, Severity
from bptt.diagnose.rules import RULES, Rule
from bptt.errors import InputError, unknown

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis

SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the gravest first
Names = str | Iterable[str] | None


def judge(
    diagnosis: "Diagnosis", *, select: Names = None, ignore: Names = None,
    thresholds: Mapping[str, float] | None = None,
) -> list[Finding]:  # fmt: skip
    """The verdicts on what was measured, the gravest first; a rule that lacks its measurements says nothing.

    Args:
        diagnosis: its measurements; findings that it has already count for nothing.
        select: codes ("BP101"), their beginnings ("BP1") or names ("vanishing"); all rules by default.
        ignore: the same, of rules that are left out.
        thresholds: other limits than a rule's own, as {"BP101.share": 0.5}; `RULES[code].thresholds` lists them.

    Raises:
        UnknownName: no such rule, or no such threshold.  InputError: a threshold that is not a number.
    """
    found = []
    limits = _limits(thresholds or {})
    with np.errstate(all="ignore"):  # what is not finite has a rule of its own
        for rule in chosen(select, ignore):
            found += _findings(rule, diagnosis, limits[rule.code])
    return sorted(found, key=lambda finding: (SEVERITIES.index(finding.severity), finding.code))


def chosen(select: Names = None, ignore: Names = None) -> list[Rule]:
    """The rules that are selected and not ignored, in the order of their codes.

    >>> [rule.code for rule in chosen("BP1", ["chaotic"])]
    ['BP101', 'BP102', 'BP104', 'BP105']
    """
    wanted, left_out = _codes("select", select) if select is not None else set(RULES), _codes("ignore", ignore)
    return [rule for code, rule in sorted(RULES.items()) if code in wanted - left_out]


def at_or_above(findings: Iterable[Finding], severity: str) -> list[Finding]:
    """Findings that are at least so grave: "error", "warning" or "note".

    Raises:
        UnknownName: no such severity.
    """
    if severity not in SEVERITIES:
        raise unknown("severity", severity, SEVERITIES)
    return [one for one in findings if SEVERITIES.index(one.severity) <= SEVERITIES.index(severity)]


def _codes(what: str, names: Names) -> set[str]:
    """Codes of rules that are named by code, beginning of a code, or name."""
    names = names.split(",") if isinstance(names, str) else list(names or ())
    found: set[str] = set()
    for name in (name.strip() for name in names):
        fits = {code for code, rule in RULES.items() if name and (code.startswith(name.upper()) or rule.name == name)}
        if not fits:
            raise unknown(what, name, [*RULES, *(rule.name for rule in RULES.values())])
        found |= fits
    return found


def _limits(thresholds: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Code → the thresholds of its rule, with those that are given in their places."""
    limits = {code: dict(rule.thresholds) for code, rule in RULES.items()}
    known = [f"{code}.{name}" for code, rule in RULES.items() for name in rule.thresholds]
    for key, value in thresholds.items():
        if key not in known:
            raise unknown("threshold", key, known)
        if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(value):
            raise InputError(f"threshold {key}", got=repr(value), expected="a finite number")
        code, _, name = key.partition(".")
        limits[code][name] = float(value)
    return limits


def _findings(rule: Rule, diagnosis: "Diagnosis", limits: dict[str, float]) -> list[Finding]:
    kind, more = (rule.code, rule.name, rule.severity), (dict(limits), rule.remedies_for(diagnosis))
    return [
        Finding(*kind, one.where, one.message, _finite(one.evidence), *more) for one in rule.look(diagnosis, limits)
    ]


def _finite(evidence: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that are none: the slope of what is gone at once has no digits to show."""
    return {key: value for key, value in evidence.items() if not isinstance(value, float) or np.isfinite(value)}

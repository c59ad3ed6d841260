"""A ledger or a diagnosis in a notebook: one static picture, or a short piece of HTML. No script, no request."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.findings import Finding
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.report.svg.chart import svg
from bptt.report.svg.ledgers import main_parameter, map_box, map_words, norms_box, profile_box, short
from bptt.report.svg.marks import Box
from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.palette import CHARTS
from bptt.report.svg.reach import in_words, reach_bar, reached
from bptt.report.svg.words import number

_calm = np.errstate(all="ignore")  # what is no finite number is left out, or shown as ∞
WIDTH = 640
SIGNS = {"error": "×", "warning": "!", "note": "i"}
VERDICTS = 5  # that a picture lists
HTML = """
.bptt-card{background:var(--bptt-paper);color:var(--bptt-ink);border:1px solid var(--bptt-line);border-radius:4px;\
padding:12px 14px;max-width:680px;font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;\
font-variant-numeric:tabular-nums}
.bptt-card p{margin:0 0 8px}
.bptt-card table{border-collapse:collapse;margin:8px 0 0;font-size:13px}
.bptt-card th,.bptt-card td{text-align:left;padding:2px 16px 2px 0;vertical-align:top;background:none;color:inherit;\
border:0;white-space:normal}
.bptt-card thead th{color:var(--bptt-quiet);font-weight:400}
.bptt-card .n{text-align:right}
"""


@_calm
def ledger_svg(ledger: Ledger, name: str | None = None) -> str:
    """The contribution map of one parameter (where one was kept) beside its step gradients, as an SVG document.

    Args:
        ledger: what to show.
        name: the parameter; the recurrent weight of the last layer by default.
    """
    return _alone(_ledger(ledger, _name(ledger, name)))


@_calm
def ledger_html(ledger: Ledger, name: str | None = None) -> str:
    """The same as a piece of HTML with its numbers and where they come from."""
    name = _name(ledger, name)
    first = f"{ledger.meta.get('network', 'Ledger')}: {number(ledger.T)} steps, loss {number(ledger.loss, 6)}, " \
            f"residual {number(ledger.residual, 2)}"  # fmt: skip
    rows = [
        (full, number(norm(ledger.gradients[full])), number(ledger.coherence(full)), number(ledger.steps(full)))
        for full in ledger.names
    ]
    table = _table(("parameter", "gradient ‖dW‖", "coherence", "uses"), rows)
    return _card(tag("p", first), _ledger(ledger, name, paper=False), table)


@_calm
def diagnosis_svg(diagnosis: Diagnosis) -> str:
    """How far back the gradient reaches, the verdicts and the lag profile, as an SVG document."""
    return _alone(_diagnosis(diagnosis))


@_calm
def diagnosis_html(diagnosis: Diagnosis) -> str:
    """The same as a piece of HTML, the verdicts in full."""
    rows = [(_said(finding), finding.where, finding.message) for finding in diagnosis.findings]
    table = (
        _table(("verdict", "where", "evidence"), rows)
        if rows
        else tag("p", "No verdict: nothing was found to be wrong.")
    )
    return _card(tag("p", tag("b", diagnosis.source), ". ", in_words(diagnosis)), _diagnosis(diagnosis, False), table)


def _name(ledger: Ledger, name: str | None) -> str:
    return main_parameter(ledger) if name is None else ledger.name(name)


def _alone(picture: Markup) -> str:
    """With its own style, for wherever it is shown."""
    at = picture.index(">") + 1
    return picture[:at] + tag("style", Markup(CHARTS)) + picture[at:]


def _card(*parts: Markup | None) -> str:
    return str(tag("div", tag("style", Markup(CHARTS + HTML)), *parts, cls="bptt bptt-card"))


def _paper(height: float) -> Markup:
    """A ground of its own: nobody knows on what it will lie."""
    return tag("rect", width=WIDTH, height=height, cls="p")


def _ledger(ledger: Ledger, name: str, paper: bool = True) -> Markup:
    has_map = name in ledger.maps
    right = Box(380 if has_map else 64, 34, WIDTH - (392 if has_map else 76), 232)
    content = [_paper(330) if paper else None, tag("text", short(name, 60), x=10, y=20, cls="b")]
    content += [map_box(ledger, name, Box(44, 54, 262, 196))] if has_map else []
    content.append(norms_box(ledger, name, right))
    words = map_words(ledger.map(name)) if has_map else "The norm of each step gradient."
    return svg(f"Where the gradient of {name} comes from", words, *content, width=WIDTH, height=330)


def _diagnosis(diagnosis: Diagnosis, paper: bool = True) -> Markup:
    ledger, reach = diagnosis.ledger, reached(diagnosis)
    profile = ledger is not None and main_parameter(ledger) in ledger.maps and ledger.has_lags(main_parameter(ledger))
    content: list[Any] = [_paper(240) if paper else None, tag("text", short(diagnosis.source, 80), x=10, y=20, cls="b")]
    content.append(reach_bar(diagnosis, 10, 34, WIDTH - 20))
    if paper:  # else a table of them stands below
        content.append(_verdicts(diagnosis.findings, 124, 40 if profile else 80))
    if profile and ledger is not None:
        box = Box(400, 140, WIDTH - 416, 56) if paper else Box(74, 140, WIDTH - 90, 56)
        content.append(profile_box(ledger, main_parameter(ledger), box, reach.steps if reach else None))
    height = 240 if paper or profile else 116
    findings = " ".join(_said(finding) + "." for finding in diagnosis.findings) or "No verdict."
    return svg(
        "How far back the gradient reaches", f"{in_words(diagnosis)} {findings}", *content, width=WIDTH, height=height
    )


def _verdicts(findings: list[Finding], top: float, letters: int) -> Markup:
    """One line each, and how many there are beyond those."""
    if not findings:
        return tag("text", "No verdict: nothing was found to be wrong.", x=10, y=top)
    out = []
    for i, finding in enumerate(findings[:VERDICTS]):
        y = top + 20 * i
        out.append(tag("circle", cx=17, cy=y - 4.5, r=7, cls="f1" if finding.severity == "note" else "f2"))
        out.append(
            tag("text", SIGNS[finding.severity], x=17, y=y, text_anchor="middle", style="fill:var(--bptt-paper)")
        )
        out.append(tag("text", short(", ".join(filter(None, (_said(finding), finding.where))), letters + 8), x=30, y=y))
    more = len(findings) - VERDICTS
    if more > 0:
        out.append(tag("text", f"and {more} more", x=30, y=top + 20 * VERDICTS, cls="q"))
    return join(*out)


def _said(finding: Finding) -> str:
    return f"{finding.severity} {finding.code} {finding.name}"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Markup:
    numbers = [
        bool(rows) and all(row[i][:1].isdigit() or row[i][:1] in "−–∞" for row in rows) for i in range(len(heads))
    ]
    head = tag(
        "tr",
        *(tag("th", head, scope="col", cls="n" if is_n else None) for head, is_n in zip(heads, numbers, strict=True)),
    )
    body = [
        tag("tr", *(tag("td", cell, cls="n" if is_n else None) for cell, is_n in zip(row, numbers, strict=True)))
        for row in rows
    ]
    return tag("table", tag("thead", head), tag("tbody", *body))

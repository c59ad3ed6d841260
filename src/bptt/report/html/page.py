"""The page: its head, its first screen, its sections."""

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.report.html.applied import applied
from bptt.report.html.brief import brief
from bptt.report.html.context import context
from bptt.report.html.cost import cost
from bptt.report.html.measured import measured
from bptt.report.html.origin import origin
from bptt.report.html.parts import Section
from bptt.report.html.style import STYLE
from bptt.report.html.training import training
from bptt.report.html.travel import travel
from bptt.report.html.verdicts import verdicts
from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.words import count, number, steps
from bptt.version import VERSION

GENERATOR = "bptt report"  # by this a file is known as one of ours
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
SECTIONS = (verdicts, origin, travel, cost, context, training, applied, measured)


def html_report(diagnosis: Diagnosis, *, title: str | None = None) -> str:
    """A diagnosis as one page of HTML: no script, no request, under 1 MB for a thousand steps.

    What was not measured is said in one line or left out. Maps with more than 256 cells along a side are added up in
    blocks, so that the total stays what it was.

    Args:
        diagnosis: what to show.
        title: of the page; what was examined by default.
    """
    with np.errstate(all="ignore"):  # what is no finite number is left out, or shown as ∞
        return _page(diagnosis, diagnosis.source if title is None else title)


def _page(diagnosis: Diagnosis, title: str) -> str:
    found = [section for make in SECTIONS if (section := make(diagnosis)) is not None]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"{GENERATOR} {VERSION}"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{title} · bptt"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag("a", "Skip to the verdicts", href="#brief", cls="skip"),
        _header(diagnosis, title),
        tag("main", brief(diagnosis), _contents(found), *(_section(one, i) for i, one in enumerate(found, 1))),
        tag("footer", f"Written by bptt {VERSION}. One file: nothing is loaded, and nothing runs."),
        cls="bptt",
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(diagnosis: Diagnosis, title: str) -> Markup:
    """What was examined."""
    facts = diagnosis.facts
    said = [str(facts[key]) for key in ("network", "data") if facts.get(key) and facts[key] != title]
    said += [f"{steps(facts['T'])} of {count(facts['B'], 'sequence')}"] if facts.get("T") and facts.get("B") else []
    said += [f"iteration {number(facts['iteration'])}"] if facts.get("iteration") is not None else []
    kind = tag("p", "Where in time it learns from, and how far back", cls="kind")
    return tag("header", kind, tag("h1", title), tag("p", " · ".join(said), cls="what") if said else None)


def _contents(sections: list[Section]) -> Markup:
    items = [tag("li", tag("a", one.short or one.title, href=f"#{one.anchor}")) for one in sections]
    return tag("nav", tag("ol", *items), aria_label="Contents", style="padding:0")


def _section(section: Section, i: int) -> Markup:
    head = tag("h2", section.title, id=f"{section.anchor}-title")
    return tag("section", head, join(*section.content), id=section.anchor, aria_labelledby=f"{section.anchor}-title")

"""The first screen: how far back the gradient reaches, what the model uses of it, and what is wrong."""

import math

from bptt.diagnose.diagnosis import Diagnosis
from bptt.report.html.parts import sentence
from bptt.report.svg.chart import svg
from bptt.report.svg.markup import Markup, tag
from bptt.report.svg.reach import TOLERANCE, in_words, reach_bar, reached
from bptt.report.svg.words import between, number, percent

SIGNS = {"error": "×", "warning": "!", "note": "i"}


def brief(diagnosis: Diagnosis) -> Markup:
    """The first screen."""
    keys = [key for key in (_reach(diagnosis), _context(diagnosis), _loss(diagnosis)) if key is not None]
    bar = reach_bar(diagnosis, 0, 0, 440)
    drawn = svg("Steps back from a loss", in_words(diagnosis), bar, width=440, height=70) if bar else None
    return tag(
        "section",
        tag("h2", "How far back the gradient reaches", id="brief-title"),
        tag("div", *keys, cls="keys"),
        tag("div", drawn, cls="bar") if drawn else None,
        listed(diagnosis),
        id="brief",
        aria_labelledby="brief-title",
    )


def _key(label: str, big: str, beside: str, fine: str) -> Markup:
    return tag(
        "div", tag("p", label, cls="label"), tag("p", big, tag("span", beside), cls="big"), tag("p", fine, cls="fine")
    )


def _reach(diagnosis: Diagnosis) -> Markup:
    reach = reached(diagnosis)
    if reach is None:
        why = [note for note in diagnosis.notes if "truncat" in note.lower() or "horizon" in note.lower()]
        why = why if diagnosis.not_finite is None else ["It is not made of finite numbers"]
        return _key("The gradient reaches back", "–", "", sentence("; ".join(why)) if why else "This was not measured.")
    whole = reach.steps >= reach.of
    cut = f"a cut there changes dW of {reach.parameter} by at most {percent(TOLERANCE, 0)}"
    fine = f"{reach.sure}; {'all that was shown, and perhaps further' if whole else cut}"
    return _key(
        "The gradient reaches back",
        number(reach.steps),
        f" of {number(reach.of)} steps",
        fine[0].upper() + fine[1:] + ".",
    )


def _context(diagnosis: Diagnosis) -> Markup | None:
    found = diagnosis.context
    if found is None:
        return None
    interval = "" if found.low == found.high else f"{between(found.low, found.high)}; "
    fine = f"{interval}a foreign past before that raises the loss by no more than {percent(found.tolerance, 0)}."
    unit = " step" if found.steps == 1 else " steps"
    return _key("The model uses (effective context)", number(found.steps), unit, fine[0].upper() + fine[1:])


def _loss(diagnosis: Diagnosis) -> Markup | None:
    ledger = diagnosis.ledger
    if ledger is None or not math.isfinite(ledger.loss):
        return None
    residual = _residual(diagnosis)
    fine = "The ledger's step gradients add up to the gradient" + (
        f" within {number(residual, 2)}." if residual is not None else "."
    )
    return _key("Loss J", number(ledger.loss, 4), "", fine if residual is not None else "")


def _residual(diagnosis: Diagnosis) -> float | None:
    value = diagnosis.facts.get("residual")
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def listed(diagnosis: Diagnosis) -> Markup:
    """The verdicts in one line each: sign, word and colour say how grave one is."""
    if not diagnosis.findings:
        words = tag(
            "p",
            tag("span", "✓", cls="sign", aria_hidden="true"),
            " No verdict: nothing was found to be wrong.",
            cls="fine-sign",
        )
        return words
    items = []
    for i, finding in enumerate(diagnosis.findings, 1):
        name = tag("a", f"{finding.code} {finding.name}", href=f"#verdict-{i}")
        sign = tag("span", SIGNS[finding.severity], cls="sign", aria_hidden="true")
        words = (
            tag("b", finding.severity.capitalize()),
            " ",
            name,
            f", {finding.where}: " if finding.where else ": ",
            sentence(finding.message),
        )
        items.append(tag("li", sign, *words, cls=finding.severity))
    return tag("ul", *items, cls="verdicts")

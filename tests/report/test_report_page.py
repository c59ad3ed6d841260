"""The page: whole, silent, legible, and never a NaN, whatever is missing from a diagnosis."""

import dataclasses
import html.parser
import itertools
import re

import numpy as np
import pytest

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.findings import Finding
from bptt.report.cards import diagnosis_html, diagnosis_svg, ledger_html, ledger_svg
from bptt.report.html import html_report
from bptt.report.html.page import POLICY
from bptt.report.svg.palette import DARK, LIGHT
from oracles import diagnoses

EVIL = '</script><img src=x onerror="alert(1)">&\x00\ud800'
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(html.parser.HTMLParser):
    """The elements of a page, and whether every one is closed."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def all(self, *tags):
        return [(tag, attributes) for tag, attributes, _ in self.elements if tag in tags]

    @property
    def text(self):
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def source():
    return html_report(diagnoses.full())


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def harmless(source):
    """No script, no handler, and no address but of this page and of data."""
    page = Page(source)
    assert not page.all(
        "script", "iframe", "object", "embed", "form", "base", "a:href", "foreignobject", "use", "set", "animate"
    )
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href", "action", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith("#") or (tag in ("image", "link") and value.startswith("data:"))
    assert not re.findall(r"url\(|@import|javascript:", source)
    return page


def test_the_page_loads_nothing_and_runs_nothing(source):
    page = harmless(source)
    policies = [a["content"] for _, a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [POLICY]
    assert "script" not in POLICY
    assert "default-src 'none'" in POLICY


def test_every_picture_has_a_name_a_description_and_a_caption(page):
    pictures = page.all("svg")
    assert len(pictures) > 12
    assert all(attributes["role"] == "img" for _, attributes in pictures)
    assert len(page.all("title")) == len(pictures) + 1  # and that of the page
    assert len(page.all("desc")) == len(pictures)
    assert (
        len(page.all("figure")) == len(page.all("figcaption")) == len(pictures) - 1
    )  # the bar of the first screen has no frame


def test_ids_are_there_once_and_links_lead_to_them(page):
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for _, a in page.all("a")] + [a["aria-labelledby"] for _, a in page.all("section")]
    assert set(targets) <= set(ids)


def test_every_column_of_a_table_has_a_head(source):
    assert not re.search(r"<th scope=.col.[^>]*>\s*</th>", source)


def test_headings_are_in_order_and_landmarks_are_there(page):
    levels = [int(tag[1]) for tag, _ in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert [len(page.all(mark)) for mark in ("header", "main", "nav", "footer")] == [1, 1, 1, 1]
    assert page.all("html")[0][1]["lang"] == "en"
    assert page.all("a")[0][1]["href"] == "#brief"


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name(page):
    for _, attributes in page.all("div"):
        if attributes.get("class") in ("scroll", "plate"):
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]


def test_the_first_screen_says_the_number_its_interval_and_the_verdicts(source):
    first = Page(source[: source.index("<nav")] + "</main></body></html>").text
    reach = next(one for one in diagnoses.truncations(60) if one.scheme == "windowed").horizon()
    assert "runs/adding-1" in first
    assert f"{reach.steps}  of 60 steps" in first
    assert f"{reach.low} to {reach.high} with 95 % confidence, from 32 of 60 losses" in first
    assert "15 to 24" in first
    for finding in diagnoses.findings():
        assert finding.message in first
        assert finding.severity.capitalize() in first


def test_a_ledger_of_a_run_says_the_horizon_that_was_noted_in_it():
    of = diagnoses.ledger(9)
    of.meta["horizon"] = {diagnoses.W: 4}
    text = Page(html_report(Diagnosis("a", {}, of))).text
    assert "4  of 9 steps" in text
    assert "As the run noted it" in text


def test_everything_measured_is_in_the_page(page):
    for words in (
        "Contribution map",
        "Lag profile",
        "Singular values",
        "Lyapunov exponents",
        "Effective rank",
        "Error gain",
        "Saturation",
        "Time scales",
        "Two ways back",
        "Truncation bias",
        "Increase of the loss",
        "Over training",
        "Which use moved",
        "BP101",
        "gated-cell",
        "bptt check runs/adding-1 --seed 0",
        "Flossing was not tried",
        "docs/verdicts.md#bp101",
    ):
        assert words in page.text


def test_a_long_sequence_stays_under_a_megabyte():
    T = 1024
    rng = np.random.default_rng(0)
    of = diagnoses.ledger(8)
    table = np.tril(np.exp(-0.01 * np.subtract.outer(np.arange(T), np.arange(T)) + rng.standard_normal((T, T))))
    norms = {name: rng.random(T) for name in of.names}
    of = dataclasses.replace(
        of,
        losses=np.ones(T),
        uses={},
        loss_uses={},
        maps=dict.fromkeys(of.names, table),
        step_norms=norms,
        step_shares=norms,
        states={"layer0.": rng.random((T + 1, 3))},
        state_parts={},
        recorded_residuals=dict.fromkeys(of.names, 1e-16),
    )
    found = dataclasses.replace(diagnoses.full(40), ledger=of, history=diagnoses.history(T, 40, 20_000))
    source = html_report(found)
    harmless(source)
    assert len(source.encode()) < 1_000_000
    assert "Each cell adds up 4 × 4 contributions" in source


EMPTY = {
    "facts": {},
    "ledger": None,
    "exponents": None,
    "spectrum": None,
    "gates": {},
    "cell_paths": {},
    "gains": {},
    "truncation": {},
    "context": None,
    "history": None,
    "findings": [],
    "notes": [],
    "seconds": 0.0,
}
LEDGERS = {
    "rnn": {"T": 1, "B": 1, "H": 2, "cell": "rnn"},
    "gru": {"T": 1, "B": 1, "H": 2, "cell": "gru"},
    "norms": {"T": 5, "keep": "norms"},
    "both ways": {"T": 5, "layers": 2, "bidirectional": True},
}


def case(what):
    """A diagnosis in which something is missing, or in which numbers are none."""
    if what == "nothing":
        return Diagnosis("a", {})
    if what in LEDGERS:
        return Diagnosis("a", {}, diagnoses.ledger(**LEDGERS[what]))
    if what in EMPTY:
        return dataclasses.replace(diagnoses.full(12), **{what: EMPTY[what]})
    return spoiled(diagnoses.full(12), what)


def spoiled(value, by):
    """The same with every array of floats full of one number."""
    if isinstance(value, np.ndarray):
        return np.full_like(value, by) if value.dtype.kind == "f" else value
    if isinstance(value, dict):
        return {key: spoiled(one, by) for key, one in value.items()}
    if isinstance(value, list):
        return [spoiled(one, by) for one in value]
    if isinstance(value, Finding):
        return dataclasses.replace(value, evidence={"a": by, "b": np.array([by])})
    if dataclasses.is_dataclass(value) and type(value).__name__ not in ("Ledger", "Place"):
        return dataclasses.replace(
            value, **{f.name: spoiled(getattr(value, f.name), by) for f in dataclasses.fields(value) if f.init}
        )
    return by if isinstance(value, float) else value


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e300, 1e-320])
def test_a_ledger_that_is_not_made_of_numbers_has_a_page(value):
    of = diagnoses.ledger(7)
    filled = {name: np.full((7, 7), value) for name in of.names}
    of = dataclasses.replace(
        of,
        losses=np.full(7, value),
        gradients={name: np.full_like(dW, value) for name, dW in of.gradients.items()},
        maps=filled,
        uses={},
        loss_uses={},
        step_norms={name: one[0] for name, one in filled.items()},
        step_shares={name: one[0] for name, one in filled.items()},
        states={key: np.full_like(one, value) for key, one in of.states.items()},
        recorded_residuals=dict.fromkeys(of.names, value),
    )
    found = dataclasses.replace(diagnoses.full(7), ledger=of)
    for source in (html_report(found), ledger_svg(of), ledger_html(of), diagnosis_svg(found), diagnosis_html(found)):
        assert not re.search(r"\b(nan|NaN|inf)\b", harmless(source).text)


@pytest.mark.parametrize("what", ["nothing", *EMPTY, *LEDGERS, np.nan, -np.inf, np.inf, 0.0])
def test_whatever_is_missing_there_is_a_page_and_no_nan(what):
    diagnosis = case(what)
    source = html_report(diagnosis)
    page = harmless(source)
    numbers = " ".join(str(value) for _, attributes, _ in page.elements for value in attributes.values())
    assert not re.search(r"\b(nan|NaN|inf|None)\b", page.text + " " + re.sub(r"data:\S+", "", numbers))
    for card in (diagnosis_svg, diagnosis_html):
        assert not re.search(r"\b(nan|inf)\b", harmless(card(diagnosis)).text)


def test_what_is_not_measured_is_said_with_its_reason():
    source = html_report(Diagnosis("a", {}, notes=["Effective context: the batch has a single sequence"]))
    assert "The effective context was not measured: Effective context: the batch has a single sequence." in source


def test_names_and_texts_are_escaped_wherever_they_come_from():
    found = diagnoses.full(6)
    of = found.ledger
    renamed = {
        field.name: {EVIL if key == diagnoses.W else key: value for key, value in getattr(of, field.name).items()}
        for field in dataclasses.fields(of)
        if field.name in ("gradients", "places", "uses", "loss_uses", "maps", "step_norms", "step_shares")
    }
    of = dataclasses.replace(of, meta={**of.meta, "network": EVIL, "loss": EVIL}, **renamed)
    history = dataclasses.replace(
        found.history,
        plan=EVIL,
        **{key: {EVIL: getattr(found.history, key)[diagnoses.W]} for key in ("profiles", "horizons", "updates")},
    )
    finding = Finding("BP101", EVIL, "error", EVIL, EVIL, {EVIL: 1, "b": EVIL}, {EVIL: 2.0}, (EVIL,))
    found = dataclasses.replace(
        found,
        source=EVIL,
        facts={EVIL: EVIL, "network": EVIL, "command": EVIL},
        ledger=of,
        history=history,
        findings=[finding],
        notes=[EVIL],
        gates={
            EVIL: dataclasses.replace(
                found.gates["layer0."], state=EVIL, gates={EVIL: found.gates["layer0."].gates["i"]}
            )
        },
        truncation={EVIL: diagnoses.truncations(6, EVIL)},
        gains={EVIL: dataclasses.replace(found.gains["layer0."], state=EVIL)},
    )
    for source in (
        html_report(found),
        html_report(found, title=EVIL),
        diagnosis_html(found),
        diagnosis_svg(found),
        ledger_html(of),
        ledger_svg(of),
    ):
        page = harmless(source)
        source.encode()
        assert "\x00" not in source
        assert not page.all("img")
        assert "onerror" in page.text or "<img" not in source


def contrast(a, b):
    """WCAG 2."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_text_can_be_read_on_every_ground(palette):
    for ink in ("ink", "quiet", "first", "second"):
        for ground in ("paper", "surface", "blank") if ink in ("ink",) else ("paper", "surface"):
            assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground)


def test_print_is_never_dark(source):
    assert (
        source.count("prefers-color-scheme:dark") == source.count("@media screen and (prefers-color-scheme:dark)") > 0
    )

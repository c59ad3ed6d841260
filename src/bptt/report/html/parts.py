"""What sections are made of: figures with their captions, tables, notes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.words import number

ROWS = 14  # of a table that stands for a picture
DIGITS = set("0123456789−–∞≤≥ .,%×⁰¹²³⁴⁵⁶⁷⁸⁹⁻±")


class Section(NamedTuple):
    """anchor: its id.  title: its heading.  content: figures, tables, text.  short: its name in the contents."""

    anchor: str
    title: str
    content: Sequence[Markup]
    short: str = ""


def paragraph(*parts: object, cls: str | None = None) -> Markup:
    """A paragraph of text."""
    return tag("p", *parts, cls=cls)


def figure(title: str, drawn: Markup, caption: str, numbers: Markup | None = None, *, wide: bool = False) -> Markup:
    """A picture with what is seen in it, and with its numbers folded away below.

    Args:
        title: of one line.
        drawn: the picture.
        caption: what is seen, what the axes are, and their units.
        numbers: a table that says the same.
        wide: it takes the width of the page; on a narrow one it scrolls within itself.
    """
    folded = (
        None
        if numbers is None
        else tag("details", tag("summary", "Numbers", tag("span", f": {title}", cls="unseen")), numbers)
    )
    plate = tag("div", drawn, cls="plate", tabindex=0, role="group", aria_label=f"Picture: {title}") if wide else drawn
    words = tag("figcaption", tag("strong", title), " ", caption, folded)
    return tag("figure", plate, words, cls="wide" if wide else None)


def row(*figures: Markup | None) -> Markup:
    """Figures beside each other where there is room."""
    return tag("div", *(one for one in figures if one is not None), cls="row")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]], *, first: bool = True) -> Markup:
    """A table that scrolls within itself on a narrow page.

    Args:
        caption: what it shows.
        heads: of its columns.
        rows: cells; what looks like a number is set as one.
        first: whether the first cell of a row is its head.
    """
    listed = [[cell if isinstance(cell, str) else number(cell) for cell in cells] for cells in rows]
    figures = [bool(listed) and all(set(cells[i]) <= DIGITS for cells in listed) for i in range(len(heads))]
    kinds = ["n" if is_number else None for is_number in figures]
    head = tag("tr", *(tag("th", head, scope="col", cls=kind) for head, kind in zip(heads, kinds, strict=True)))
    body = []
    for cells in listed:
        named = [tag("th", cells[0], scope="row", cls=kinds[0])] if first else [tag("td", cells[0], cls=kinds[0])]
        body.append(
            tag("tr", *named, *(tag("td", cell, cls=kind) for cell, kind in zip(cells[1:], kinds[1:], strict=True)))
        )
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", whole, cls="scroll", tabindex=0, role="group", aria_label=caption)


def columns(caption: str, heads: Sequence[str], *values: Any) -> Markup:
    """A table of equally long columns, of which at most `ROWS` rows are shown."""
    n = len(values[0])
    at = picked(n)
    said = caption if len(at) == n else f"{caption} ({len(at)} of {number(n)} rows)"
    return table(said, heads, [[_plain(column[i]) for column in values] for i in at])


def picked(n: int, most: int = ROWS) -> list[int]:
    """At most so many of n places, evenly, with the first and the last.

    >>> picked(3), picked(100, 4)
    ([0, 1, 2], [0, 33, 66, 99])
    """
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, most))}) if n else []


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Names and what they are, as a table with one row each."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in pairs]
    return tag("table", tag("tbody", *rows), cls="facts")


def missing(what: str, notes: Sequence[str], *words: str) -> Markup:
    """One line that says why something is not there: the notes that speak of it, if any do."""
    why = [note for note in notes if any(word in note.lower() for word in words)]
    return paragraph(sentence(f"{what} not measured" + (f": {'; '.join(why)}" if why else "")), cls="missing")


def sentence(words: str) -> str:
    """Closed with a full stop.

    >>> sentence("It vanishes"), sentence("Does it?")
    ('It vanishes.', 'Does it?')
    """
    return words if words.endswith((".", "?", "!")) else f"{words}."


def layer_name(state: str) -> str:
    """How a state is called in a text.

    >>> layer_name("layer0."), layer_name("")
    ('layer0', 'the whole state')
    """
    return state.rstrip(".") or "the whole state"


__all__ = [
    "Section",
    "columns",
    "facts",
    "figure",
    "join",
    "layer_name",
    "missing",
    "paragraph",
    "picked",
    "row",
    "sentence",
    "table",
]

"""Markdown tables that read well as text too, and numbers as people write them."""

import math
import textwrap
from collections.abc import Sequence
from unicodedata import east_asian_width


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first to the left, numbers to the right."""
    lines = [list(head), *map(list, body)]
    widths = [max(3, *(_width(line[i]) for line in lines)) for i in range(len(head))]
    right = [i > 0 and all(_is_number(line[i]) for line in lines[1:]) for i in range(len(head))]
    rule = ["-" * (width - 1) + ":" if to_right else "-" * width for width, to_right in zip(widths, right, strict=True)]
    return "\n".join(
        "| " + " | ".join(_pad(cell, *how) for cell, *how in zip(line, widths, right, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def _pad(cell: str, width: int, right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space


def _width(cell: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in cell)


def _is_number(cell: str) -> bool:
    return cell in ("", "–") or cell.lstrip("+−-×[≤≥")[:1].isdigit()


def digits(value: float | None, count: int = 3) -> str:
    """With so many digits that count, and no exponent: 1234, 12.3, 0.0123."""
    if value is None:
        return "–"
    places = count - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, places)}f}"


def prose(text: str) -> str:
    """In lines of a page's width."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def milliseconds(seconds: float | None) -> str:
    return digits(None if seconds is None else 1000 * seconds)


def percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.1f} %"

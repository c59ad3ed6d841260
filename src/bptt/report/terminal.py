"""What terminals show: numbers, bars and maps. Every colour stands beside a number or a sign that says the same."""

import math
from typing import IO

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from bptt.report.blocks import block_sums
from bptt.typing import Array

SHADES = " ·░▒▓█"  # from nothing to the largest, for maps too large for numbers
# A dark-to-light scale of even lightness (anchors of viridis), safe for the colour-blind.
SCALE = [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)]
DECADES = 4  # the colour scale spans so many powers of ten below the largest value


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; an exact zero is 0, and an underflow is not.

    >>> number(0.0), number(0.25), number(1.5e-9), number(-1234.5), number(12.0)
    ('0', '0.250', '1.50e-9', '-1.23e+3', '12.0')
    """
    value = float(value)
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if 1e-3 <= abs(value) < 10**digits:
        return f"{value:#.{digits}g}".rstrip(".")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent):+d}"


def percent(share: float) -> str:
    """A signed share in percent.

    >>> percent(0.125), percent(-0.03)
    ('12.5 %', '−3.0 %')
    """
    return f"{share * 100:.1f} %".replace("-", "−")


def error(relative: float) -> str:
    """A relative error, as far as float64 can tell.

    >>> error(0.0), error(3.2e-16)
    ('less than 2e-16', '3e-16')
    """
    return "less than 2e-16" if relative < 2e-16 else f"{relative:.0e}"


def bar(fraction: float, width: int = 12) -> str:
    """A bar of a fraction from 0 to 1, in eighths of a character.

    >>> bar(0.5, 4)
    '██'
    """
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def level(value: float, largest: float) -> float:
    """Where a value stands on the logarithmic scale, 0 (a ten-thousandth of the largest, or less) to 1."""
    if value <= 0 or largest <= 0:
        return 0.0
    return max(0.0, min(1.0, 1 + math.log10(value / largest) / DECADES)) if math.isfinite(value / largest) else 1.0


def paint(at: float) -> Style:
    """The colour of the scale at 0…1, with the text in whichever of black and white reads better on it."""
    position = at * (len(SCALE) - 1)
    low = min(int(position), len(SCALE) - 2)
    mix = [round(a + (b - a) * (position - low)) for a, b in zip(SCALE[low], SCALE[low + 1], strict=True)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in mix)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]  # WCAG 2; one of the two has 4.5 : 1
    return Style(color="black" if luminance > 0.179 else "white", bgcolor=f"rgb({mix[0]},{mix[1]},{mix[2]})")


def numbered_map(
    table: Array,
    row_labels: list[str],
    column_labels: list[str],
    rows: Array,
    columns: Array,
    total: float,
    row_head: str,
    column_head: str,
) -> Table:
    """The map with its numbers; at the edges the norms of its row and column sums, in the corner of its grand total."""
    view = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    view.add_column("", no_wrap=True)
    for label in column_labels:
        view.add_column(label, justify="right", no_wrap=True)
    view.add_column(row_head, justify="right", style="bold", no_wrap=True)
    largest = float(table.max())
    for label, values, edge in zip(row_labels, table, rows, strict=True):
        cells = [
            Text("·", style="dim", justify="right") if value == 0 else
            Text(f" {number(value)}", style=paint(level(value, largest)), justify="right")
            for value in values
        ]  # fmt: skip
        view.add_row(label, *cells, number(edge))
    view.add_row(column_head, *(number(value) for value in columns), number(total), style="bold")
    return view


def shaded_map(table: Array, width: int) -> Text:
    """The map as shades, neighbouring cells added up where the terminal is too narrow for all."""
    limit = max(8, min(width // 2, 64))
    sums, down, across = block_sums(table, limit)
    largest, text = float(sums.max()), Text()
    for row in sums:
        for value in row:
            at = level(value, largest)
            sign = SHADES[0] if value == 0 else SHADES[1 + min(4, int(at * 5))]
            text.append(sign * 2, style=Style(color=paint(at).bgcolor) if value else None)
        text.append("\n")
    each = f"each cell adds up {down} × {across} contributions; " if max(down, across) > 1 else ""
    text.append(
        f"{each}{SHADES[5]} {number(largest)}, and down to {SHADES[1]} a ten-thousandth; blank is exactly 0", "dim"
    )
    return text


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for the command line to end quietly; rich would leave with exit code 1


def console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console as this package uses it: no automatic highlighting, NO_COLOR respected."""
    return _Console(file=file, highlight=False, width=width, soft_wrap=False, emoji=False)  # ":100:" is a number

"""A chart: axes, a legend, and marks between them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bptt.report.svg.image import LEVELS, picture
from bptt.report.svg.marks import Box, Mark, Rule
from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.scales import Axis
from bptt.report.svg.words import number
from bptt.report.terminal import DECADES

WIDTH, HEIGHT = 440, 270  # at which text has the size of the text around it
LETTER = 6.6  # mean width of a letter
DIGIT = 7.6  # width of a digit
ROW = 18  # height of a row of the legend


def svg(title: str, description: str, *content: object, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """A picture with a name and a description for who cannot see it."""
    return tag(
        "svg", tag("title", title), tag("desc", description), *content,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {number_of(width)} {number_of(height)}",
        width=number_of(width), height=number_of(height), role="img", cls="bptt bptt-svg",
    )  # fmt: skip


def number_of(value: float) -> str:
    """A size in pixels.

    >>> number_of(12.0), number_of(12.25)
    ('12', '12.2')
    """
    return f"{value:.1f}".removesuffix(".0")


def chart(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    marks: Sequence[Mark],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Markup:
    """One plot with its axes; its legend names the marks that have a label, rules apart, which carry their own."""
    head, used = legend(marks, 0, 13, width)
    top = used + (28 if y.label else 8)
    box = Box(margin(y), top, width - margin(y) - 12, height - top - 42)
    return svg(title, description, head, panel(box, x, y, marks), width=width, height=height)


def margin(y: Axis) -> float:
    """Room that the labels of an axis need."""
    return max([24.0, *(len(label) * DIGIT + 10 for _, label in y.ticks)])


def panel(
    box: Box, x: Axis, y: Axis, marks: Sequence[Mark], *, name_x: bool = True, label_at: float | None = None
) -> Markup:
    """The axes of a box and what is drawn in it; the label of y begins at `label_at`, above its ticks by default."""
    rules = [mark.draw(box, x, y) for mark in marks if isinstance(mark, Rule)]
    others = [mark.draw(box, x, y) for mark in marks if not isinstance(mark, Rule)]
    return join(
        _grid(box, y),
        *others,
        _sides(box, x, y, name_x, box.left - margin(y) + 2 if label_at is None else label_at),
        *rules,
    )


def _grid(box: Box, y: Axis) -> Markup:
    ticks = y(np.array([value for value, _ in y.ticks]), box.bottom, box.top)
    lines = "".join(f"M{number_of(box.left)} {number_of(at)}H{number_of(box.right)}" for at in ticks)
    return tag("path", d=lines, cls="g") if lines else Markup()


def _sides(box: Box, x: Axis, y: Axis, name_x: bool, label_at: float) -> Markup:
    """Labels, and the line at the foot."""
    out = [tag("path", d=f"M{number_of(box.left)} {number_of(box.bottom)}H{number_of(box.right)}", cls="x")]
    for value, label in y.ticks:
        at = float(y(value, box.bottom, box.top))
        out.append(tag("text", label, x=number_of(box.left - 6), y=number_of(at + 4.5), text_anchor="end", cls="q"))
    if name_x:
        out += _foot(box, x)
        out.append(tag("text", x.label, x=number_of((box.left + box.right) / 2), y=number_of(box.bottom + 36),
                       text_anchor="middle"))  # fmt: skip
    if y.label:
        out.append(tag("text", y.label, x=number_of(label_at), y=number_of(box.top - 13)))
    return join(*out)


def _foot(box: Box, x: Axis) -> list[Markup]:
    """Labels below the plot, as many as there is room for."""
    out, taken = [], -np.inf
    for value, label in x.ticks:
        at, half = float(x(value, box.left, box.right)), len(label) * DIGIT / 2
        at_text = min(at, box.right + 11 - half)
        if at_text - half < taken + 6:
            continue
        taken = at_text + half
        out.append(
            tag("text", label, x=number_of(at_text), y=number_of(box.bottom + 18), text_anchor="middle", cls="q")
        )
        out.append(tag("path", d=f"M{number_of(at)} {number_of(box.bottom)}v4", cls="x"))
    return out


def legend(marks: Sequence[Any], left: float, top: float, width: float) -> tuple[Markup, float]:
    """Names beside samples of their lines, in rows; and the height that they took."""
    out, x, y = [], left, top
    for mark in marks:
        label = getattr(mark, "label", "")
        if not label or isinstance(mark, Rule):
            continue
        room = 30 + len(label) * LETTER + 16
        if x + room > left + width + 16 and x > left:
            x, y = left, y + ROW
        out += [_sample(mark, x + 2, y - 4), tag("text", label, x=number_of(x + 30), y=number_of(y))]
        x += room
    return (tag("g", *out), y - top + ROW) if out else (Markup(), 0.0)


def _sample(mark: Any, x: float, y: float) -> Markup:
    style, kind = getattr(mark, "style", 1), type(mark).__name__
    if kind in ("Bars", "Band"):
        faint = " band" if kind == "Band" else ""
        return tag("rect", x=number_of(x + 4), y=number_of(y - 5), width=16, height=10, cls=f"f{style}{faint}")
    dot = tag("circle", cx=number_of(x + 12), cy=number_of(y), r=2.6, cls=f"f{style}")
    if kind == "Errors":
        return dot
    line = tag("path", d=f"M{number_of(x)} {number_of(y)}h24", cls=f"l s{style}")
    return join(line, dot if getattr(mark, "dots", False) else None)


def scale_bar(largest: float, left: float, top: float, width: float) -> Markup:
    """The colours of a map and what they stand for, 34 pixels high."""
    colours = picture(np.arange(1, LEVELS + 1, dtype=np.uint8)[None])
    out = [tag("image", href=Markup(colours), x=left, y=top, width=width, height=10, preserveAspectRatio="none")]
    for i in range(DECADES + 1):
        at = left + width * i / DECADES
        anchor = "start" if i == 0 else "end" if i == DECADES else "middle"
        label = ("≤ " if i == 0 else "") + number(largest * 10.0 ** (i - DECADES), 2)
        if i in (0, DECADES // 2, DECADES):
            out.append(tag("text", label, x=number_of(at), y=top + 25, text_anchor=anchor, font_size=12, cls="q"))
        out.append(tag("path", d=f"M{number_of(at)} {top + 10}v4", cls="x"))
    return join(*out)

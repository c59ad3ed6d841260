"""What is drawn between the axes: lines, bands, bars with their errors, rules, pictures."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.scales import Axis
from bptt.typing import Array

DENSE = 300  # points, from which on a line is drawn thinner


@dataclass(frozen=True)
class Box:
    """The plot within its picture, in pixels of a picture that is shown at its own size."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height


class Mark(Protocol):
    """Something to draw."""

    def draw(self, box: Box, x: Axis, y: Axis) -> Markup:
        """As SVG."""
        ...


def place(box: Box, x: Axis, y: Axis, xs: Any, ys: Any) -> tuple[Array, Array]:
    """Where points stand, in pixels; NaN where one cannot."""
    return x(xs, box.left, box.right), y(ys, box.bottom, box.top)


def path(xs: Array, ys: Array) -> str:
    """Straight lines between points, broken where one is missing.

    >>> path(np.array([0, 1, 2, 3]), np.array([5, 6, np.nan, 7]))
    'M0 5L1 6M3 7h.01'
    """
    out, pen = [], False
    known = np.isfinite(xs) & np.isfinite(ys)
    for i in range(len(xs)):
        if known[i]:
            out.append(f"{'L' if pen else 'M'}{_short(xs[i])} {_short(ys[i])}")
            if not pen and not (i + 1 < len(xs) and known[i + 1]):
                out.append("h.01")  # a point by itself, which round line caps make visible
        pen = bool(known[i])
    return "".join(out)


def thin(xs: Array, ys: Array, width: float) -> tuple[Array, Array]:
    """No more points than can be told apart: of each pixel the first, the lowest, the highest and the last."""
    if len(xs) <= 2 * width or not np.isfinite(xs).all() or (np.diff(xs) < 0).any():
        return xs, ys
    kept = []
    for part in np.split(np.arange(len(xs)), np.flatnonzero(np.diff(np.floor(xs))) + 1):
        if np.isfinite(ys[part]).all():
            kept += sorted({part[0], part[np.argmin(ys[part])], part[np.argmax(ys[part])], part[-1]})
        else:
            kept += list(part)  # gaps stay where they are
    return xs[kept], ys[kept]


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Line:
    """A curve.  style: 1…6, which differ in hue or in dashes.  dots: a mark at each point."""

    x: Any
    y: Any
    label: str = ""
    style: int = 1
    dots: bool = False

    def draw(self, box: Box, x: Axis, y: Axis) -> Markup:
        """As SVG."""
        xs, ys = place(box, x, y, self.x, self.y)
        fine = "stroke-width:1" if len(xs) > DENSE else None
        dots = [
            tag("circle", cx=_short(a), cy=_short(b), r=2.6, cls=f"f{self.style}")
            for a, b in zip(xs, ys, strict=True)
            if self.dots and np.isfinite(a + b)
        ]
        return join(
            tag("path", d=path(*thin(xs, ys, box.width)), cls=f"l s{self.style}", style=fine, stroke_linecap="round"),
            *dots,
        )


@dataclass(frozen=True)
class Band:
    """All between two curves; an end that is missing (or below a logarithmic axis) is the edge."""

    x: Any
    low: Any
    high: Any
    label: str = ""
    style: int = 1

    def draw(self, box: Box, x: Axis, y: Axis) -> Markup:
        """As SVG."""
        xs, low = place(box, x, y, self.x, self.low)
        _, high = place(box, x, y, self.x, self.high)
        low = np.where(np.isfinite(low), low, box.bottom)
        known = np.isfinite(high)
        xs, low, high = xs[known], low[known], high[known]
        (up_x, up), (down_x, down) = thin(xs, high, box.width), thin(xs, low, box.width)
        outline = path(np.append(up_x, down_x[::-1]), np.append(up, down[::-1]))
        return tag("path", d=outline + "Z", cls=f"f{self.style} band") if len(xs) else Markup()


@dataclass(frozen=True)
class Errors:
    """Points with bars of ± their error."""

    x: Any
    y: Any
    errors: Any
    label: str = ""
    style: int = 1

    def draw(self, box: Box, x: Axis, y: Axis) -> Markup:
        """As SVG."""
        centre, error = np.asarray(self.y, np.float64), np.nan_to_num(np.asarray(self.errors, np.float64))
        xs, ys = place(box, x, y, self.x, centre)
        (_, low), (_, high) = place(box, x, y, self.x, centre - error), place(box, x, y, self.x, centre + error)
        low = np.where(np.isfinite(low), low, box.bottom)
        out = []
        for a, b, c, d in zip(xs, ys, low, high, strict=True):
            if np.isfinite([a, b, d]).all():
                bar = f"M{_short(a)} {_short(c)}V{_short(d)}"
                out += [tag("path", d=bar, cls=f"l s{self.style}", style="stroke-dasharray:none")] if c != d else []
                out.append(tag("circle", cx=_short(a), cy=_short(b), r=2.6, cls=f"f{self.style}"))
        return tag("g", *out) if out else Markup()


@dataclass(frozen=True)
class Bars:
    """Upright bars from zero (or from the foot of a logarithmic axis), `wide` units of x each, below 0 in style 2."""

    x: Any
    y: Any
    wide: float = 0.8
    label: str = ""
    style: int = 1

    def draw(self, box: Box, x: Axis, y: Axis) -> Markup:
        """As SVG."""
        zero = float(y(0.0, box.bottom, box.top)) if not y.log else box.bottom
        centre, values = np.asarray(self.x, np.float64), np.asarray(self.y, np.float64)
        left, top = place(box, x, y, centre - self.wide / 2, values)
        right = x(centre + self.wide / 2, box.left, box.right)
        shapes: dict[int, list[str]] = {}
        for a, b, c, value in zip(left, right, top, values, strict=True):
            if np.isfinite(c) and abs(c - zero) >= 0.05:
                style = 2 if value < 0 and self.style == 1 else self.style
                shapes.setdefault(style, []).append(f"M{a:.1f} {zero:.1f}V{c:.1f}H{max(b, a + 0.4):.1f}V{zero:.1f}Z")
        return join(*(tag("path", d="".join(d), cls=f"f{style}") for style, d in shapes.items()))


@dataclass(frozen=True)
class Rule:
    """A line across the plot, with its name beside it (lower: below that of another): at one value of x, or of y."""

    x: float | None = None
    y: float | None = None
    label: str = ""
    strong: bool = False
    lower: bool = False

    def draw(self, box: Box, x: Axis, y: Axis) -> Markup:
        """As SVG."""
        if self.x is not None:
            return self._upright(box, float(x(self.x, box.left, box.right)))
        return self._level(box, float(y(self.y, box.bottom, box.top)))

    def _upright(self, box: Box, at: float) -> Markup:
        right = at > box.left + 0.55 * box.width
        where = {
            "x": _short(at + (-5 if right else 5)),
            "y": box.top + (28 if self.lower else 12),
            "text_anchor": "end" if right else None,
        }
        return self._shown(at, f"M{_short(at)} {_short(box.top)}V{_short(box.bottom)}", where)

    def _level(self, box: Box, at: float) -> Markup:
        above = at > box.top + 16
        where = {"x": box.right - 2, "y": _short(at + (-4 if above else 13)), "text_anchor": "end"}
        return self._shown(at, f"M{_short(box.left)} {_short(at)}H{_short(box.right)}", where)

    def _shown(self, at: float, line: str, where: dict[str, Any]) -> Markup:
        if not np.isfinite(at):
            return Markup()
        kind, colour = ("m", "t2") if self.strong else ("r", "q")
        words = tag("text", self.label, cls=f"{colour} h", font_size=12, **where) if self.label else None
        return join(tag("path", d=line, cls=kind), words)


@dataclass(frozen=True)
class Picture:
    """A table as a picture over the whole plot.  uri: of `image.picture`."""

    uri: str

    def draw(self, box: Box, x: Axis, y: Axis) -> Markup:
        """As SVG."""
        where = {"x": box.left, "y": box.top, "width": box.width, "height": box.height}
        return join(
            tag("rect", cls="z", **where),
            tag("image", href=Markup(self.uri), preserveAspectRatio="none", **where),
        )

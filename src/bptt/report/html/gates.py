"""What the gates do, and which of its two ways back an LSTM takes."""

import numpy as np

from bptt.diagnose.gates import CellPath, Gates
from bptt.report.html.parts import columns, figure, layer_name, table
from bptt.report.svg.chart import WIDTH, chart, svg
from bptt.report.svg.marks import Bars, Line, Mark, Rule
from bptt.report.svg.markup import Markup, tag
from bptt.report.svg.scales import Axis, axis
from bptt.report.svg.words import number, percent

NAMES = {
    "i": "input i",
    "f": "forget f",
    "o": "output o",
    "r": "reset r",
    "z": "update z",
}
SQUASHED = ("h", "g", "n")
NEAR = {"tanh": ("near its lower end", "near its upper end"), "relu": ("at 0", "")}
MEANING = {
    "tanh": "Share of all values near an end: σ below 0.05 or above 0.95, tanh below −0.95 or above 0.95. There a unit "
    "passes hardly any gradient.",
    "relu": "Share of all values that are 0. There a unit passes no gradient; one that always is has died.",
}


def _called(name: str, units: str) -> str:
    return f"{units} {name}" if name in SQUASHED else NAMES.get(name, name)


def saturation(gates: Gates) -> Markup:
    """How much of all values stands near an end, gate by gate."""
    left, right, height = 84, WIDTH - 8, 26
    out = []
    for i, (name, gate) in enumerate(gates.gates.items()):
        y, low, high = 22 + height * i, _share(gate.low), _share(gate.high)
        room = right - left
        out += [
            tag("text", _called(name, gates.units), x=left - 8, y=y + 13, text_anchor="end"),
            tag("rect", x=left, y=y, width=room, height=17, cls="z"),
            tag("rect", x=left, y=y, width=f"{room * low:.1f}", height=17, cls="f2"),
            tag("rect", x=f"{right - room * high:.1f}", y=y, width=f"{room * high:.1f}", height=17, cls="f1"),
            _inside(percent(low, 0), left + 6, y + 13, None, low),
            *([_inside(percent(high, 0), right - 6, y + 13, "end", high)] if gates.units == "tanh" else []),
        ]
    below, above = NEAR[gates.units]
    ends = [
        tag("text", words, x=x, y=12, cls="q", font_size=12, text_anchor=anchor)
        for words, x, anchor in ((below, left, None), (above, right, "end"))
    ]
    title = f"Saturation in {layer_name(gates.state)}"
    words = "; ".join(
        f"{_called(n, gates.units)}: {percent(g.low, 0)} low, {percent(g.high, 0)} high" for n, g in gates.gates.items()
    )
    drawn = svg(title, words, *ends, *out, height=26 + height * len(gates.gates))
    rows = [
        (_called(n, gates.units), number(float(np.mean(g.mean))), percent(g.low), percent(g.high))
        for n, g in gates.gates.items()
    ]
    return figure(title, drawn, MEANING[gates.units], table("Saturation", ("gate", "mean", "low", "high"), rows))


def _share(value: float) -> float:
    return float(np.clip(np.nan_to_num(value), 0, 1))


def _inside(words: str, x: float, y: float, anchor: str | None, share: float) -> Markup:
    """A number on its bar where that is wide enough, else beside it."""
    if share > 0.12:
        return tag("text", words, x=x, y=y, text_anchor=anchor, font_size=12, style="fill:var(--bptt-paper)")
    room = (WIDTH - 92) * share
    return tag("text", words, x=f"{x - room if anchor else x + room:.1f}", y=y, text_anchor=anchor, font_size=12)


def time_scales(gates: Gates) -> Markup | None:
    """How long the units remember; None without gates that forget."""
    if gates.time_scales is None:
        return None
    scales = np.asarray(gates.time_scales, np.float64)
    known = scales[np.isfinite(scales) & (scales > 0)]
    if not len(known):
        return None
    low, high = np.floor(np.log10(known.min()) * 4) / 4, np.ceil(np.log10(known.max()) * 4 + 1e-9) / 4
    edges = np.arange(low, max(high, low + 0.25) + 0.01, 0.25)
    counts = np.histogram(np.log10(known), edges)[0]
    centres = (edges[:-1] + edges[1:]) / 2
    plain = axis("", [10.0**edges], log=True, tight=True)
    x = Axis(
        "time scale −1 / log f̄, steps",
        edges[0],
        edges[-1],
        False,
        tuple((float(np.log10(v)), s) for v, s in plain.ticks),
    )
    y = axis("units", [counts, [0]])
    title = f"Time scales of {layer_name(gates.state)}"
    drawn = chart(title, "A histogram of units, logarithmic across.", x, y, [Bars(centres, counts, 0.23)])
    beyond = len(scales) - len(known)
    caption = (
        "How many units forget by 1/e in how many steps, from their mean forget gate; logarithmic. Median "
        f"{number(float(np.median(known)))} steps" + (f"; {number(beyond)} units never do." if beyond else ".")
    )
    rows = [
        (f"{number(float(10.0**a))} to {number(float(10.0**b))}", int(c))
        for a, b, c in zip(edges, edges[1:], counts, strict=False)
    ]
    return figure(title, drawn, caption, table("Units by time scale", ("steps", "units"), rows))


def paths(path: CellPath) -> Markup:
    """The share that comes back along the cells, and the rest."""
    share = np.where(np.isfinite(path.share), path.share, np.nan) * 100
    x, y = axis("lag, steps", [path.lags], tight=True), axis("share, %", [share, 100 - share, [0.0, 100.0]])
    marks: list[Mark] = [
        Line(path.lags, share, "cell path ∏ f", 1),
        Line(path.lags, 100 - share, "gates and h", 2),
        Rule(y=0.0),
    ]
    title = f"Two ways back in {layer_name(path.state)}"
    drawn = chart(title, "Shares by lag; both sum to 100 %.", x, y, marks)
    caption = (
        "Share of ∂L_k/∂c that comes back along the cells alone (the product of the forget gates), and through gates "
        "and h; they sum to 100 %."
    )
    return figure(
        title,
        drawn,
        caption,
        columns("Shares", ("lag", "cell path"), path.lags, [percent(float(v)) for v in path.share]),
    )

"""The figure: every contender over the fastest plain peer, by cell and shape."""

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contenders import ALL
from benchmarks.derive import Row

INK, QUIET = "#1f2933", "#7b8794"


class Mark(NamedTuple):
    """Colours of Okabe and Ito, which differ for every kind of eye; the shapes differ as well.

    lane: where it stands within its row, so that neighbours do not cover each other.
    """

    colour: str
    shape: str
    lane: float
    filled: bool = True


MARKS = {
    "ledger": Mark("#0072B2", "o", -0.24),
    "compiled": Mark("#0072B2", "o", 0, False),
    "shares": Mark("#0072B2", "D", 0, False),
    "reference": Mark("#56B4E9", "x", 0),
    "torch": Mark("#D55E00", "s", 0.24),
    "jax": Mark("#009E73", "^", 0.24),
    "keras-torch": Mark("#D55E00", "P", 0.24, False),
    "keras-jax": Mark("#009E73", "v", 0.24, False),
    "torch-hooks": Mark("#CC79A7", "+", 0.24),
}


def save(rows: list[Row], path: Path) -> None:
    """Write it as .svg; the same results give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    cells = list(dict.fromkeys(row.cell for row in rows))
    with matplotlib.rc_context({"svg.hashsalt": "bptt", "svg.fonttype": "path"}):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        panels = figure.subplots(1, len(cells), sharex=True, sharey=True, squeeze=False)[0]
        for axes, cell in zip(panels, cells, strict=True):
            _panel(axes, cell, [row for row in rows if row.cell == cell and row.peer])
        _legend(figure, {name for row in rows for name in row.medians})
        figure.supxlabel("time per step over that of the fastest plain peer (left of the line: faster than it)",
                         fontsize=9, color=INK)  # fmt: skip
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)


def _panel(axes: Any, cell: str, rows: list[Row]) -> None:
    axes.set_xscale("log")
    axes.axvline(1, color=INK, lw=1)
    axes.set_title(cell.upper(), fontsize=10, loc="left", color=INK)
    for at, row in enumerate(rows):
        axes.axhspan(at - 0.42, at + 0.42, color="#f2f4f7", lw=0, zorder=0)
        for name, mark in reversed(MARKS.items()):
            if name in row.medians:
                _dot(axes, mark, row.medians[name] / row.medians[row.peer], at)
    axes.set_yticks(range(len(rows)), [str(row.shape) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_ylabel("T, B, X, H" if axes.get_subplotspec().is_first_col() else "", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(which="both", labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _style(mark: Mark) -> dict[str, Any]:
    return {"marker": mark.shape, "color": mark.colour, "markerfacecolor": mark.colour if mark.filled else "none",
            "markersize": 8 if mark.filled else 7, "markeredgewidth": 1.4, "ls": ""}  # fmt: skip


def _dot(axes: Any, mark: Mark, ratio: float, at: int) -> None:
    axes.plot([ratio], [at + mark.lane], **_style(mark), zorder=3 if mark.filled else 2)


def _legend(figure: Any, known: set[str]) -> None:
    from matplotlib.lines import Line2D

    shown = {name: mark for name, mark in MARKS.items() if name in known}
    handles = [Line2D([], [], label=ALL[name].label, **_style(mark)) for name, mark in shown.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=8, labelcolor=INK)

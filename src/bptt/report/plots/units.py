"""What gates and units do along real data, and which path carries an LSTM's gradient."""

from typing import Any

import numpy as np

from bptt.diagnose.gates import CellPath, Gates
from bptt.errors import unknown
from bptt.report.plots.style import (
    FIRST,
    QUIET,
    SECOND,
    STYLES,
    axes_of,
    below,
    finish,
    finite,
    instead,
    legend,
    legend_below,
    log_scale,
    whole_steps,
)

NAMES = {"i": "input i", "f": "forget f", "o": "output o", "r": "reset r", "z": "update z"}
SQUASHED = ("h", "g", "n")  # by tanh, from −1 to 1, or by relu
WORDS = {
    "tanh": {"low": "closed, or −1", "between": "between", "high": "open, or +1"},
    "relu": {"low": "at 0", "between": "above"},
}
PARTS = (  # share of values, look
    ("low", {"facecolor": FIRST, "edgecolor": "white"}),
    ("between", {"facecolor": "#e3e8ec", "edgecolor": "white"}),
    ("high", {"facecolor": "#f0b48c", "edgecolor": SECOND, "hatch": "////"}),
)


def gates(found: Gates, *, show: str = "shares", ax: Any = None) -> Any:
    """How often gates stand at an end, or how long each unit remembers.

    Args:
        found: of one layer, from `bptt.diagnose.gates`.
        show: "shares": what part of all values is near the lower end, between, and near the upper end (σ: 0.05 and
            0.95, tanh: ±0.95); or "time scales": −1 / log f̄ of each unit in steps, sorted.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        UnknownName: another `show`.  MissingExtra: matplotlib is not installed.
    """
    if show not in ("shares", "time scales"):
        raise unknown("show", show, ("shares", "time scales"))
    return _shares(found, ax) if show == "shares" else _time_scales(found, ax)


def _shares(found: Gates, ax: Any) -> Any:
    ax = finish(axes_of(ax), f"Gates at an end, {found.state.rstrip('.')}", "share of all values in %")
    if not found.gates:
        instead(ax, "this layer has no gates")
        return ax
    left = np.zeros(len(found.gates))
    shares = np.array([[gate.low, 1 - gate.low - gate.high, gate.high] for gate in found.gates.values()]) * 100
    for column, (part, look) in enumerate(PARTS[: len(WORDS[found.units])]):
        words = WORDS[found.units][part]
        ax.barh(range(len(left)), shares[:, column], left=left, height=0.65, label=words, lw=0.5, **look)
        left = left + shares[:, column]
    labels = [_label(name, found.units, gate.mean.mean()) for name, gate in found.gates.items()]
    ax.set_yticks(range(len(left)), labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    legend_below(ax, 3, right=True)
    return ax


def _label(name: str, units: str, mean: float) -> str:
    what = NAMES.get(name, f"{units} {name}" if name in SQUASHED else name)
    return f"{what}\nmean {mean:.2f}" if abs(mean) < 100 else f"{what}\nmean {mean:.1e}"


def _time_scales(found: Gates, ax: Any) -> Any:
    ax = finish(axes_of(ax), f"Time scales of the units, {found.state.rstrip('.')}", "unit, the slowest first",
                "−1 / log f̄, in steps")  # fmt: skip
    if found.time_scales is None:
        instead(ax, "a cell without gates\nhas no time scales of its own")
        return ax
    scales = np.sort(np.asarray(found.time_scales, float))[::-1]
    seen = finite(scales)
    if not (seen.count() and seen.max() > 0):
        instead(ax, "every unit forgets at once" if not np.isinf(scales).any() else "no unit forgets")
        return ax
    shown = np.ma.masked_less_equal(seen, 0)
    ax.plot(np.arange(1, len(scales) + 1), shown, marker="o", ms=2.5, **STYLES[0])
    log_scale(ax, shown.filled(0))
    if np.isinf(scales).any():
        below(ax, f"{np.isinf(scales).sum()} of {len(scales)} never forget")
    whole_steps(ax)
    return ax


def cell_path(found: CellPath, *, ax: Any = None) -> Any:
    """By lag, the share of ∂L_k/∂c that came along the cells alone (∏ f), and the rest, through gates and h.

    Shares are signed and sum to 1: one below 0 pulls against the whole (Kanuparthi et al. 2018).

    Args:
        found: of `bptt.diagnose.cell_path`.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    ax = finish(axes_of(ax), f"Which path carries ∂L_k/∂c, {found.state.rstrip('.')}", "lag k − t", "share, sums to 1")
    lags, share = np.asarray(found.lags), finite(found.share)
    if not share.count():
        instead(ax, "no gradient: nothing comes back")
        return ax
    dot = "o" if len(lags) == 1 else ""
    ax.plot(lags, share, label="cells alone, ∏ f", marker=dot, ms=4, **STYLES[0])
    ax.plot(lags, 1 - share, label="through gates and h", marker=dot, ms=4, **STYLES[1])
    for level in (0, 1):
        ax.axhline(level, color=QUIET, lw=0.6)
    whole_steps(ax)
    legend(ax)
    return ax

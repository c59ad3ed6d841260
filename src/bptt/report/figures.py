"""Figures for papers and for the README: where the gradient comes from, and how far it travels."""

from pathlib import Path
from typing import Any

import numpy as np

from bptt.errors import FileError, MissingExtra, unknown
from bptt.ledger import Ledger
from bptt.storage import replacing

FORMATS = ("svg", "png", "pdf")
INK, QUIET, FIRST, SECOND = "#1f2933", "#7b8794", "#1f5f8b", "#c2571a"  # the two hues differ for every kind of eye


def ledger_figure(ledger: Ledger, name: str, horizon: int | None = None) -> Any:
    """A matplotlib Figure: the map beside norms by step, what the state carries, and the lag profile.

    Args:
        ledger: with a map for the left panel; without one the map is left out.
        name: the parameter.
        horizon: marked in the lag profile where given, in steps.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", got="not installed", do="pip install 'bptt[plot]'") from None
    name = ledger.name(name)
    has_map = name in ledger.maps
    figure = Figure(figsize=(10, 4.6) if has_map else (6, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1.25, 1]) if has_map else figure.add_gridspec(2, 1)
    if has_map:
        _map(figure, figure.add_subplot(grid[:, 0]), ledger, name)
    _steps(figure.add_subplot(grid[0, 1] if has_map else grid[0, 0]), ledger, name)
    if has_map:
        _lags(figure.add_subplot(grid[1, 1]), ledger, name, horizon)
    else:
        _gains(figure.add_subplot(grid[1, 0]), ledger, name)
    network = ledger.meta.get("network", "")
    figure.suptitle(f"{name}   {network}", x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def save_figure(ledger: Ledger, name: str, path: str | Path, horizon: int | None = None) -> None:
    """Write `ledger_figure` as .svg, .png or .pdf, whole or not at all.

    Raises:
        UnknownName: another ending.  MissingExtra: matplotlib is not installed.  FileError: the disk refuses.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise unknown("picture format", kind or str(path), FORMATS)
    if not path.parent.is_dir():
        raise FileError(f"cannot write {path}", got="no such folder", do="Make it first.")
    figure = ledger_figure(ledger, name, horizon)
    import matplotlib

    fixed = {"svg.hashsalt": "bptt", "svg.fonttype": "path"}  # the same ledger gives the same bytes
    with matplotlib.rc_context(fixed), replacing(path) as file:
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {}
        figure.savefig(file, format=kind, dpi=160, metadata=metadata)


def _map(figure: Any, axes: Any, ledger: Ledger, name: str) -> None:
    from matplotlib.colors import LogNorm

    table, T = ledger.map(name), ledger.T
    largest = float(table.max()) or 1.0
    shown = np.ma.masked_less_equal(table, 0)
    axes.set_facecolor("#eef1f4")
    scale = LogNorm(largest * 1e-4, largest)
    image = axes.pcolormesh(np.arange(T + 1) + 0.5, np.arange(T + 1) + 0.5, shown, norm=scale, cmap="viridis",
                            rasterized=T > 24)  # fmt: skip
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set(xlabel="use at step t", ylabel="loss at step k")
    axes.set_title("‖C[k, t]‖: what loss k says to use t", fontsize=10, loc="left", color=INK)
    words = ledger.meta.get("words")
    if words and T <= 16:
        axes.set_xticks(range(1, T + 1), words, rotation=45, ha="right")
        axes.set_yticks(range(1, T + 1), ledger.meta["targets"])
    if not any(ledger.reverse.values()) and T > 3:
        axes.text(0.97, 0.96, "exactly 0: no loss\nreaches a later use", transform=axes.transAxes, ha="right", va="top",
                  fontsize=8, color=QUIET)  # fmt: skip
    scale_bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, extend="min")
    scale_bar.ax.tick_params(which="both", labelsize=8, colors=INK)
    _quiet(axes)


def _steps(axes: Any, ledger: Ledger, name: str) -> None:
    steps, norms = np.arange(1, ledger.T + 1), ledger.norms(name)
    axes.semilogy(steps, _positive(norms), color=FIRST, label="step gradient ‖dW_t‖")
    prefix = name.rsplit(".", 1)[0] + "."
    if prefix in ledger.states:
        carried = ledger.state_norms(prefix)[1:]
        carried = carried[::-1] if ledger.reverse[prefix] else carried
        axes.semilogy(steps, _positive(carried), color=SECOND, ls="--", label="state ‖∂J/∂s_t‖")
    axes.set_xlabel("step t")
    axes.set_title("By step", fontsize=10, loc="left", color=INK)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1.02, 0.98), borderpad=0)
    _quiet(axes)


def _lags(axes: Any, ledger: Ledger, name: str, horizon: int | None) -> None:
    profile = ledger.lag_profile(name)
    axes.semilogy(profile.lags, _positive(profile.values), color=FIRST)
    if horizon is not None:
        axes.axvline(horizon - 1, color=SECOND, ls=":")
        text = f" reaches {horizon} steps (1 %) "
        axes.annotate(text, (horizon - 1, 0.97), xycoords=("data", "axes fraction"), va="top",
                      fontsize=8, color=SECOND, ha="right" if horizon > 0.6 * ledger.T else "left")  # fmt: skip
    axes.set_xlabel("lag k − t")
    axes.set_title("How far back: Σ ‖C[k, t]‖ by lag", fontsize=10, loc="left", color=INK)
    _quiet(axes)


def _gains(axes: Any, ledger: Ledger, name: str) -> None:
    prefix = name.rsplit(".", 1)[0] + "."
    layer: Any = prefix if prefix in ledger.states else next(reversed(ledger.states))
    axes.plot(np.arange(1, ledger.T + 1), ledger.gains(layer), color=FIRST)
    axes.axhline(1, color=QUIET, lw=0.8)
    axes.set_xlabel("step t")
    axes.set_title("Gain ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖: below 1 vanishing", fontsize=10, loc="left", color=INK)
    _quiet(axes)


def _positive(values: Any) -> Any:
    """Zeros cannot stand on a logarithmic axis; they leave a gap."""
    return np.ma.masked_less_equal(values, 0)


def _quiet(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(which="both", labelsize=8, colors=INK)
    axes.xaxis.label.set(fontsize=9, color=INK)
    axes.yaxis.label.set(fontsize=9, color=INK)

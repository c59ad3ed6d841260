"""Figures for papers and for the README: where the gradient comes from, and how far it travels."""

from pathlib import Path
from typing import Any

import numpy as np

from bptt.errors import FileError, MissingExtra, unknown
from bptt.ledger import Ledger
from bptt.ledger.export import beside, by_position
from bptt.storage import replacing

FORMATS = ("svg", "png", "pdf")
INK, QUIET, FIRST, SECOND = "#1f2933", "#7b8794", "#1f5f8b", "#c2571a"  # the two hues differ for every kind of eye


def ledger_figure(ledger: Ledger, name: str, horizon: int | None = None) -> Any:
    """A matplotlib Figure: the map beside norms by step, what the state carries, and the lag profile.

    Args:
        ledger: with a map for the left panel; without one the map is left out, and without lags or a state what shows
            them.
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
    lower = _lags if has_map and ledger.has_lags(name) else _gains if ledger.states else None
    rows = 1 if lower is None else 2
    grid = figure.add_gridspec(rows, 2, width_ratios=[1.25, 1]) if has_map else figure.add_gridspec(rows, 1)
    if has_map:
        _map(figure, figure.add_subplot(grid[:, 0]), ledger, name)
    _steps(figure.add_subplot(grid[0, -1]), ledger, name)
    if lower is not None:
        lower(figure.add_subplot(grid[1, -1]), ledger, name, horizon)
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

    table = ledger.map(name)
    K, T = table.shape
    largest = float(table.max()) or 1.0
    shown = np.ma.masked_less_equal(table, 0)
    axes.set_facecolor("#eef1f4")
    scale = LogNorm(largest * 1e-4, largest)
    image = axes.pcolormesh(np.arange(T + 1) + 0.5, np.arange(K + 1) + 0.5, shown, norm=scale, cmap="viridis",
                            rasterized=T > 24)  # fmt: skip
    axes.invert_yaxis()
    axes.set_aspect("equal" if K == T else "auto")
    axes.set(xlabel="use at step t", ylabel="loss at step k" if ledger.loss_steps is None else "loss k")
    axes.set_title("‖C[k, t]‖: what loss k says to use t", fontsize=10, loc="left", color=INK)
    words = ledger.meta.get("words")
    if words and T <= 16:
        axes.set_xticks(range(1, T + 1), words, rotation=45, ha="right")
        axes.set_yticks(range(1, T + 1), ledger.meta["targets"])
    if ledger.lags(name)[0] == 0 and K == T > 3 and ledger.loss_steps is None:
        axes.text(0.97, 0.96, "exactly 0: no loss\nreaches a later use", transform=axes.transAxes, ha="right", va="top",
                  fontsize=8, color=QUIET)  # fmt: skip
    scale_bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, extend="min")
    scale_bar.ax.tick_params(which="both", labelsize=8, colors=INK)
    _quiet(axes)


def _steps(axes: Any, ledger: Ledger, name: str) -> None:
    norms, state = ledger.norms(name), beside(ledger, name)
    steps = np.arange(1, len(norms) + 1)
    axes.semilogy(steps, _positive(norms), color=FIRST, label="step gradient ‖dW_t‖")
    if state:
        carried = state["state_gradient_norm"]
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
        side = "right" if horizon > 0.6 * ledger.steps(name) else "left"
        text = f" reaches {horizon} steps (1 %) "
        axes.annotate(text, (horizon - 1, 0.97), xycoords=("data", "axes fraction"), va="top",
                      fontsize=8, color=SECOND, ha=side)  # fmt: skip
    axes.set_xlabel("lag k − t")
    axes.set_title("How far back: Σ ‖C[k, t]‖ by lag", fontsize=10, loc="left", color=INK)
    _quiet(axes)


def _gains(axes: Any, ledger: Ledger, name: str, horizon: int | None) -> None:
    """Of the state that the parameter works on, or of the last one."""
    gains = by_position(ledger, ledger.place(name).state or next(reversed(ledger.states)))["gain"]
    axes.plot(np.arange(1, len(gains) + 1), gains, color=FIRST)
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

"""The figure of one ledger: where the gradient comes from, and how far it travels."""

from pathlib import Path
from typing import Any

from bptt.ledger import Ledger
from bptt.report import plots
from bptt.report.plots.files import picture_format
from bptt.report.plots.style import INK, new_figure


def ledger_figure(ledger: Ledger, name: str, horizon: int | None = None) -> Any:
    """A matplotlib Figure: the map beside norms by step, and the lag profile or what the state carries.

    Args:
        ledger: with a map for the left panel; without one the map is left out, and without lags or a state what shows
            them.
        name: the parameter.
        horizon: marked in the lag profile where given, in steps.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    name = ledger.name(name)
    has_map = name in ledger.maps
    figure = new_figure(8.4 if has_map else 5, 4.2)
    lags = has_map and ledger.has_lags(name)
    rows = 2 if lags or ledger.states else 1
    grid = figure.add_gridspec(rows, 2, width_ratios=[1.25, 1]) if has_map else figure.add_gridspec(rows, 1)
    if has_map:
        plots.map(ledger, name, ax=figure.add_subplot(grid[:, 0]))
    plots.steps(ledger, name, ax=figure.add_subplot(grid[0, -1]))
    if lags:
        plots.lag_profile(ledger, name, horizon=horizon, ax=figure.add_subplot(grid[1, -1]))
    elif ledger.states:  # of the state that the parameter works on, or of the last one
        plots.gains(ledger, layer=ledger.place(name).state or None, ax=figure.add_subplot(grid[1, -1]))
    network = ledger.meta.get("network", "")
    figure.suptitle(f"{name}   {network}", x=0.01, ha="left", fontsize=10, color=INK)
    return figure


def save_figure(ledger: Ledger, name: str, path: str | Path, horizon: int | None = None) -> None:
    """Write `ledger_figure` as .svg, .png or .pdf, whole or not at all.

    Raises:
        UnknownName: another ending.  MissingExtra: matplotlib is not installed.  FileError: the disk refuses.
    """
    picture_format(path)  # before anything is drawn
    plots.save(ledger_figure(ledger, name, horizon), path)

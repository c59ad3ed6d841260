"""How far back a run learnt from, over its iterations, with its losses above."""

from typing import Any

import numpy as np

from bptt.diagnose.history import History
from bptt.errors import unknown
from bptt.report.blocks import block_sums
from bptt.report.plots.style import BLANK, FIRST, QUIET, SECOND, WIDTH, axes_of, finish, instead, legend, positive

CELLS = 256  # of the heat map along each side
DECADES = 4


def training(history: History, parameter: str, *, ax: Any = None) -> Any:
    """Iteration × lag: Σ ‖C[k, t]‖ of each probe as colours, the horizon as a line, and above it the losses.

    Args:
        history: of a run.
        parameter: its full name, or its end.
        ax: matplotlib axes, shared between the heat map and, above it, the losses.

    Returns:
        The axes of the heat map.

    Raises:
        UnknownName: the run has no lags of such a parameter.  MissingExtra: matplotlib is not installed.
    """
    name = _name(history, parameter)
    ax = axes_of(ax, WIDTH, 3.4)
    finish(ax, "", "iteration", "lag k − t")
    above = _above(ax)
    _losses(above, history)
    above.set_title(f"{name}: Σ ‖C[k, t]‖ by lag, over training", fontsize=8, loc="left")
    above.tick_params(labelbottom=False)
    profile = np.asarray(history.profiles.get(name, np.zeros((0, 0))), float)
    largest = float(positive(profile).max()) if positive(profile).count() else 0.0
    if not largest > 1e-300:
        ax.text(0.5, 0.5, "no probe of this run kept a map", transform=ax.transAxes, ha="center", va="center",
                fontsize=8, color=QUIET)  # fmt: skip
        ax.set_yticks([])
        return ax
    _cells(ax, history, profile, largest)
    _horizon(ax, history, name)
    return ax


def _above(ax: Any) -> Any:
    """Axes for the losses in the upper third of the place that `ax` had."""
    place = ax.get_subplotspec()
    if place is None:  # axes of the caller's own making keep theirs
        return ax.inset_axes((0, 1.06, 1, 0.5), sharex=ax)
    halves = place.subgridspec(2, 1, height_ratios=[1, 2])
    ax.set_subplotspec(halves[1])
    return ax.figure.add_subplot(halves[0], sharex=ax)


def _name(history: History, parameter: str) -> str:
    known = list(dict.fromkeys([*history.profiles, *history.horizons]))
    fits = [name for name in known if name == parameter or name.endswith("." + parameter)]
    if len(fits) != 1 and parameter not in known:
        raise unknown("parameter", parameter, known or ["none: this run has no probes"])
    return parameter if parameter in known else fits[0]


def _losses(ax: Any, history: History) -> None:
    finish(ax, "", "", "loss")
    train, validation = np.asarray(history.train, float), np.asarray(history.validation, float)
    if not (len(train) or len(validation)):
        instead(ax, "no losses")
        return
    if len(train):
        ax.plot(train[:, 0], train[:, 1], color="#9aa5b1", lw=0.7, label="of its batch")
    if len(validation):
        dot = "o" if len(validation) < 20 else ""
        ax.plot(validation[:, 0], validation[:, 1], color=FIRST, marker=dot, ms=2.5, label="validation")
    if history.baseline is not None:
        ax.axhline(history.baseline, color=SECOND, ls=":", lw=1, label="a guess")
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    legend(ax, loc="upper right", labelspacing=0.2, frameon=True, framealpha=0.9, edgecolor="none")


def _cells(ax: Any, history: History, profile: Any, largest: float) -> None:
    from matplotlib.colors import LogNorm

    shown, down, across = block_sums(profile, CELLS)
    x = _edges(np.asarray(history.probes, float))[::down]
    y = np.append(np.asarray(history.lags, float)[::across], history.lags[-1] + 1) - 0.5
    x = x if len(x) == len(shown) + 1 else np.append(x, _edges(np.asarray(history.probes, float))[-1])
    ax.set_facecolor(BLANK)
    largest = float(shown.max())
    image = ax.pcolormesh(x, y, positive(shown).T, norm=LogNorm(largest * 10.0**-DECADES, largest), cmap="viridis",
                          rasterized=shown.size > 24 * 24)  # fmt: skip
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, extend="min")
    bar.ax.tick_params(which="both", labelsize=7)


def _edges(at: Any) -> Any:
    """The borders between iterations: half-way, and as far beyond the ends."""
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middle = (at[1:] + at[:-1]) / 2
    return np.concatenate([[at[0] - (middle[0] - at[0])], middle, [at[-1] + (at[-1] - middle[-1])]])


def _horizon(ax: Any, history: History, name: str) -> None:
    reach = np.asarray(history.horizons.get(name, np.zeros((0, 2))), float)
    if len(reach):
        ax.plot(reach[:, 0], reach[:, 1] - 1, color="white", lw=2.6)
        ax.plot(reach[:, 0], reach[:, 1] - 1, color=SECOND, ls="--", lw=1.2, marker="o", ms=2.5, label="horizon")
        legend(ax, frameon=True, loc="upper left")

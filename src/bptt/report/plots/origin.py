"""Where the gradient comes from: the contribution map, the steps, and how far back."""

from typing import Any

import numpy as np

from bptt.errors import unknown
from bptt.ledger import Ledger
from bptt.ledger.export import beside
from bptt.report.blocks import block_sums
from bptt.report.plots.style import (
    BLANK,
    FIRST,
    QUIET,
    SECOND,
    STYLES,
    WIDTH,
    axes_of,
    below,
    finish,
    instead,
    legend,
    legend_below,
    log_scale,
    note,
    positive,
    whole_steps,
)

LARGEST = 512  # cells of a map along each side; larger ones are block-summed
DECADES = 4  # that the colours span
SMALLEST = 1e-300  # below it the lower end of the colours leaves the range of floats


def map(ledger: Ledger, name: str, *, ax: Any = None) -> Any:
    """‖C[k, t]‖, what each loss k (downwards) says to each use t of a parameter; logarithmic colours, blank is 0.

    A map above 512 × 512 is shown as sums of blocks, so that its total stays the same.

    Args:
        ledger: recorded with map=True or keep="full".
        name: the parameter.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        UnknownName, NotKeptError: as `Ledger.map`.  MissingExtra: matplotlib is not installed.
    """
    table = ledger.map(name)
    ax = axes_of(ax, WIDTH, 2.9)
    K, T = table.shape
    shown, down, across = block_sums(table, LARGEST)
    loss = "loss at step k" if ledger.loss_steps is None else "loss k"
    finish(ax, "‖C[k, t]‖: what loss k says to use t", "use at step t", loss)
    largest = float(shown.max(initial=0))
    if not SMALLEST < largest < np.inf:
        instead(ax, "no gradient:\nevery contribution is 0" if largest <= SMALLEST else "contributions overflow")
        return ax
    _cells(ax, shown, (down, across), (K, T), largest)
    _words(ax, ledger, K, T)
    if not np.triu(table, 1).any() and K == T > 3 and ledger.loss_steps is None:
        everywhere = 2 * table.any(1).sum() > K  # else most rows are blank because no loss stands there
        note(ax, "exactly 0: no loss\nreaches a later use" if everywhere else "blank rows:\nno loss there", 0.97)
    if down * across > 1:
        ax.set_title(f"{ax.get_title('left')}\neach cell adds up {down} × {across}", fontsize=8, loc="left")
    return ax


def _cells(ax: Any, shown: Any, size: tuple[int, int], shape: tuple[int, int], largest: float) -> None:
    from matplotlib.colors import LogNorm

    rows, columns = (
        np.minimum(np.arange(n + 1) * step, end) + 0.5 for n, step, end in zip(shown.shape, size, shape, strict=True)
    )
    ax.set_facecolor(BLANK)
    image = ax.pcolormesh(columns, rows, positive(shown), norm=LogNorm(largest * 10.0**-DECADES, largest),
                          cmap="viridis", rasterized=shown.size > 24 * 24)  # fmt: skip
    ax.invert_yaxis()
    ax.set_aspect("equal" if shape[0] == shape[1] else "auto")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02, extend="min")
    bar.ax.tick_params(which="both", labelsize=7)


def _words(ax: Any, ledger: Ledger, K: int, T: int) -> None:
    """Ticks: the words of a sentence where there are some, else whole steps."""
    from matplotlib.ticker import MaxNLocator

    words, targets = ledger.meta.get("words"), ledger.meta.get("targets")
    if words and targets and len(words) == T <= 16 and len(targets) == K:
        ax.set_xticks(range(1, T + 1), words, rotation=45, ha="right")
        ax.set_yticks(range(1, K + 1), targets)
        return
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def steps(ledger: Ledger, name: str, *, show: str = "norms", ax: Any = None) -> Any:
    """One parameter step by step: ‖dW_t‖ beside ‖∂J/∂s_t‖, or the signed shares.

    A small dW_t alone is not yet a vanishing gradient: its input may be small. So what the state carries stands beside.

    Args:
        ledger: of any kind; shares need its factors or shares=True.
        name: the parameter.
        show: "norms", or "shares": ⟨dW_t, dW⟩ / ‖dW‖², which sum to 1; below 0 (hatched) pulls against the total.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        UnknownName: no such parameter, or another `show`.  NotKeptError: the ledger has no shares.
        MissingExtra: matplotlib is not installed.
    """
    if show not in ("norms", "shares"):
        raise unknown("show", show, ("norms", "shares"))
    full = ledger.name(name)
    return _norms(ledger, full, ax) if show == "norms" else _shares(ledger, full, ax)


def _norms(ledger: Ledger, name: str, ax: Any) -> Any:
    norms, state = ledger.norms(name), beside(ledger, name)
    ax = finish(axes_of(ax), f"{name} by step", "step t")
    at, carried = np.arange(1, len(norms) + 1), state.get("state_gradient_norm")
    if not (positive(norms).count() or (carried is not None and positive(carried).count())):
        instead(ax, "no gradient: every dW_t is 0")
        return ax
    dot = "o" if len(norms) == 1 else ""
    ax.plot(at, positive(norms), label="step gradient ‖dW_t‖", marker=dot, ms=4, **STYLES[0])
    if carried is not None:
        ax.plot(at, positive(carried), label="state ‖∂J/∂s_t‖", marker=dot, ms=4, **STYLES[1])
    log_scale(ax, norms, *([] if carried is None else [carried]))
    whole_steps(ax)
    if not norms.all():
        below(ax, f"dW_t is 0 at {(norms == 0).sum()} of {len(norms)} uses")
    legend_below(ax, 2)
    return ax


def _shares(ledger: Ledger, name: str, ax: Any) -> Any:
    shares = np.asarray(ledger.shares(name), float)
    ax = finish(axes_of(ax), f"{name}: share of each use in dW", "step t", "share ⟨dW_t, dW⟩ / ‖dW‖²")
    if not shares.any():
        instead(ax, "no gradient: every share is 0")
        return ax
    edges = np.arange(len(shares) + 1) + 0.5
    ax.stairs(np.maximum(shares, 0), edges, fill=True, color=FIRST, label="with the total")
    if (shares < 0).any():
        ax.stairs(np.minimum(shares, 0), edges, fill=True, facecolor="#f0c9ae", edgecolor=SECOND, hatch="////",
                  label="against it")  # fmt: skip
        legend_below(ax, 2)
    ax.axhline(0, color=QUIET, lw=0.8)
    whole_steps(ax)
    return ax


def lag_profile(ledger: Ledger, *names: str, horizon: int | None = None, ax: Any = None) -> Any:
    """How far back: Σ ‖C[k, t]‖ along the diagonals of the map, by lag, one line for each parameter.

    Args:
        ledger: recorded with map=True or keep="full".
        names: parameters; by default the recurrent weights that have a map, or all that have one.
        horizon: marked where given, in steps: lag horizon − 1.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        UnknownName, NotKeptError, InputError: as `Ledger.lag_profile`.  MissingExtra: matplotlib is not installed.
    """
    full = [ledger.name(name) for name in names or _recurrent(ledger)]
    profiles = [ledger.lag_profile(name) for name in full]
    ax = finish(axes_of(ax), "How far back: Σ ‖C[k, t]‖ by lag", "lag k − t")
    if not any(positive(profile.values).count() for profile in profiles):
        instead(ax, "no gradient: every contribution is 0" if full else "this ledger has no map")
        return ax
    for i, (name, profile) in enumerate(zip(full, profiles, strict=True)):
        dot = "o" if len(profile.lags) == 1 else ""
        ax.plot(profile.lags, positive(profile.values), label=name, marker=dot, ms=4, lw=1.5 - 0.7 * (i >= len(STYLES)),
                **STYLES[i % len(STYLES)])  # fmt: skip
    log_scale(ax, *(profile.values for profile in profiles))
    whole_steps(ax)
    if len(full) > 1:
        legend(ax)
    if horizon is not None:
        ax.axvline(horizon - 1, color=SECOND, ls=":", lw=1)
        side = "right" if horizon > 0.6 * len(profiles[0].lags) else "left"
        reaches = f" reaches {horizon} step{'s' * (horizon != 1)} (1 %) "
        ax.annotate(reaches, (horizon - 1, 0.97), xycoords=("data", "axes fraction"), va="top", fontsize=7,
                    color=SECOND, ha=side)  # fmt: skip
    return ax


def _recurrent(ledger: Ledger) -> list[str]:
    kept = [name for name in ledger.names if (name in ledger.maps or name in ledger.loss_uses)]
    kept = [name for name in kept if ledger.has_lags(name)]
    return [name for name in kept if name.rpartition(".")[2].startswith(("W_hh", "weight_hh"))] or kept

"""How far the gradient travels: what a step back leaves of it, and the Jacobians behind that."""

from typing import Any

import numpy as np

from bptt.diagnose.exponents import Exponents
from bptt.diagnose.gain import Gain
from bptt.diagnose.spectrum import Spectrum
from bptt.ledger import Ledger
from bptt.ledger.export import by_position
from bptt.report.plots.style import (
    FIRST,
    NEXT,
    QUIET,
    STYLES,
    axes_of,
    below,
    decade_axis,
    decades,
    finish,
    finite,
    instead,
    legend,
    whole_steps,
)

SHOWN = 4  # singular values that get a line of their own


def gains(source: Ledger | Gain, *, layer: str | int | None = None, ax: Any = None) -> Any:
    """What a step back leaves of ∂J/∂s: of a ledger step by step, of a `Gain` by lag with its slope.

    Args:
        source: a ledger with a state: ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖ by step; or a Gain: ‖∂L_k/∂s_{k−lag}‖ over its value
            at lag 0, geometric mean over losses and sequences.
        layer: whose state, of a ledger; the last one by default.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        UnknownName: no such layer.  InputError: the ledger has no state.  MissingExtra: matplotlib is not installed.
    """
    return _by_lag(source, ax) if isinstance(source, Gain) else _by_step(source, layer, ax)


def _by_step(ledger: Ledger, layer: str | int | None, ax: Any) -> Any:
    last = next(reversed(ledger.states), "") if layer is None else layer
    key = ledger.layer(last)
    per_step = np.asarray(by_position(ledger, key)["gain"], float)
    ax = finish(axes_of(ax), f"Gain per step back, {key.rstrip('.')}", "step t", NEXT)
    if not per_step.any():
        instead(ax, "no gain: nothing comes back\nfrom one step to the one before")
        return ax
    at = np.arange(1, len(per_step) + 1)
    ax.plot(at, finite(per_step), marker="o" if len(at) == 1 else "", ms=4, **STYLES[0])
    ax.axhline(1, color=QUIET, lw=0.8)
    ax.set_ylim(bottom=0, top=max(1.15, 1.08 * float(finite(per_step).max())))
    below(ax, "above 1 exploding, below 1 vanishing")
    whole_steps(ax)
    return ax


def _by_lag(gain: Gain, ax: Any) -> Any:
    of = "mean over losses" if gain.losses else "of the whole loss"
    title = f"What is left of ∂J/∂s, {gain.state.rstrip('.') or 'whole state'} ({of})"
    ax = finish(axes_of(ax), title, "lag k − t", "‖∂L_k/∂s_t‖ / ‖∂L_k/∂s_k‖")
    left = decades(gain.logs)
    if not left.count():
        instead(ax, "no gradient: nothing comes back")
        return ax
    lags = np.asarray(gain.lags)
    ax.plot(lags, left, label="measured", marker="o" if len(lags) < 12 else "", ms=3, **STYLES[0])
    if left.count() > 1 and np.isfinite(gain.slope):
        _fit(ax, gain, lags, left)
    decade_axis(ax)
    whole_steps(ax)
    if left.count() < len(lags):
        below(ax, f"exactly 0 at {len(lags) - left.count()} of {len(lags)} lags")
    return ax


def _fit(ax: Any, gain: Gain, lags: Any, left: Any) -> None:
    """The slope through the middle of what was measured, as a factor per step."""
    seen = ~np.ma.getmaskarray(left)
    middle, slope = lags[seen].mean(), gain.slope / np.log(10)
    error = "" if not gain.error > 0 else f" ± {np.exp(gain.slope) * gain.error:.1g}"
    label = f"×{np.exp(gain.slope):.3g}{error} per step back"
    ax.plot(lags[seen], left[seen].mean() + slope * (lags[seen] - middle), label=label, **STYLES[1])
    legend(ax)


def spectrum(found: Spectrum, *, ax: Any = None) -> Any:
    """Singular values of J_k···J_{t+1} by lag: geometric mean over sequences, and for the largest their range.

    Args:
        found: of `bptt.diagnose.spectrum`.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    state = found.state.rstrip(".") or "whole state"
    title = f"Singular values by lag, {state} (S = {found.size})"
    ax = finish(axes_of(ax), title, "lag k − t", "σ of J_k···J_{t+1}")
    logs, lags = np.asarray(found.logs, float), np.asarray(found.lags)
    if not np.isfinite(logs).any():
        instead(ax, "every singular value is 0:\nno step reaches the next" if logs.size else "no lag was measured")
        return ax
    if logs.shape[1] > 1:
        low, high = decades(logs[:, :, 0].min(1)), decades(logs[:, :, 0].max(1))
        ax.fill_between(lags, low, high, color=FIRST, alpha=0.2, lw=0, label="σ_1 over sequences")
    for i, which in enumerate(_picked(logs.shape[2])):
        dot = "o" if len(lags) == 1 else ""
        ax.plot(lags, decades(_mean(logs[:, :, which])), label=f"σ_{which + 1}", marker=dot, ms=4, **STYLES[i])
    ax.axhline(0, color=QUIET, lw=0.8)
    decade_axis(ax)
    whole_steps(ax)
    legend(ax)
    return ax


def _picked(count: int) -> list[int]:
    """The largest, the smallest, and some between."""
    return sorted({round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)})


def _mean(logs: Any) -> Any:
    """Mean over sequences; −∞ where any is −∞, without a warning for it."""
    lost = ~np.isfinite(logs).all(1)
    return np.where(lost, -np.inf, np.where(lost[:, None], 0, logs).mean(1))


def exponents(found: Exponents, *, ax: Any = None) -> Any:
    """Finite-time Lyapunov exponents, largest first, with their standard errors over sequences.

    Args:
        found: of `bptt.diagnose.exponents`.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    state = found.state.rstrip(".") or "whole state"
    ax = finish(axes_of(ax), f"Lyapunov exponents, {state}",
                "number, the largest first", "exponent: log growth per step")  # fmt: skip
    values = finite(found.values)
    if not values.count():
        instead(ax, "every exponent is −∞:\nno step reaches the next")
        return ax
    at, seen = np.arange(1, len(values) + 1), ~np.ma.getmaskarray(values)
    errors = np.where(np.isfinite(found.errors), found.errors, 0)
    ax.errorbar(at[seen], values[seen], errors[seen], color=FIRST, fmt="o", ms=3, lw=0.8, capsize=2 * (len(at) < 40))
    ax.axhline(0, color=QUIET, lw=0.8)
    whole_steps(ax)
    bars = "one sequence: no errors" if len(found.by_sequence) == 1 else "± 1 standard error"
    lost = "" if seen.all() else f"; {(~seen).sum()} of {len(values)} are −∞"
    steps = f"{found.steps} step{'s' * (found.steps != 1)}"
    below(ax, f"above 0 grows; {bars}, {steps}{lost}")
    return ax

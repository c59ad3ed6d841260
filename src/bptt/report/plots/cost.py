"""What truncation costs, and how far back the model uses what it has seen."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bptt.diagnose.context import Context
from bptt.diagnose.truncation import Truncation
from bptt.report.plots.style import (
    FIRST,
    QUIET,
    SECOND,
    STYLES,
    WIDTH,
    axes_of,
    below,
    finish,
    finite,
    instead,
    legend,
    legend_below,
    log_scale,
    positive,
    whole_steps,
)

MANY = 30  # lags beyond which errors are a band


def truncation(found: Sequence[Truncation], tolerance: float = 0.01, *, ax: Any = None) -> Any:
    """b(K) by K, one line for each scheme, with its interval where it was sampled, and the horizon.

    Args:
        found: truncations of one parameter, from `bptt.diagnose.truncation` or `sample_truncation`.
        tolerance: ε, the bias that is let pass; the horizon of the first scheme is marked.
        ax: matplotlib axes to draw on; those of a new figure by default. Its bias is logarithmic, and where it was
            sampled linear from 0 to the tolerance: a sample may see no bias at all.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    names = list(dict.fromkeys(one.parameter for one in found))
    ax = finish(axes_of(ax, WIDTH, 2.9), f"What truncation costs, {', '.join(names)}", "K, steps that are walked back",
                "bias ‖dW_K − dW‖ / ‖dW‖")  # fmt: skip
    if not any(positive(one.bias).count() or positive(one.high).count() for one in found):
        instead(ax, "every bias is 0:\nnothing is lost by cutting" if found else "nothing was measured")
        return ax
    sampled = any(not one.exact for one in found)
    for i, one in enumerate(found):
        label = f"{one.scheme}, {one.parameter}" if len(names) > 1 else one.scheme
        _scheme(ax, one, label, STYLES[i % len(STYLES)], finite if sampled else positive)
    _scale(ax, found, tolerance, sampled)
    ax.axhline(tolerance, color=QUIET, lw=0.8)
    ax.annotate(f"tolerance {100 * tolerance:g} %", (0.01, tolerance), xycoords=("axes fraction", "data"),
                xytext=(0, 2), textcoords="offset points", fontsize=7, color=QUIET)  # fmt: skip
    _mark(ax, found[0], tolerance)
    whole_steps(ax)
    legend_below(ax)
    return ax


def _scheme(ax: Any, one: Truncation, label: str, style: dict[str, Any], shown: Callable[[Any], Any]) -> None:
    K = np.asarray(one.K)
    sampled = "" if one.exact else f" ({one.losses} of {one.of} losses, {100 * one.confidence:.0f} %)"
    ax.plot(K, shown(one.bias), label=label + sampled, marker="o" if len(K) < 24 else "", ms=2.5, **style)
    if not one.exact:
        ax.fill_between(K, one.low, one.high, color=style["color"], alpha=0.2, lw=0)


def _scale(ax: Any, found: Sequence[Truncation], tolerance: float, sampled: bool) -> None:
    """Logarithmic; a sample may see no bias at all, so that its axis is linear from 0 to the tolerance."""
    biases = [one.bias for one in found]
    if not sampled:
        log_scale(ax, *biases, [tolerance])
        smallest = min([tolerance, *(positive(bias).min() for bias in biases if positive(bias).count())])
        ax.set_ylim(bottom=max(smallest / 2, tolerance * 1e-6))
        return
    ax.set_yscale("symlog", linthresh=tolerance, linscale=0.6)
    ax.yaxis.set_major_formatter(lambda value, at: f"{value:g}")
    ax.set_ylim(0, 1.5 * max([tolerance, *(np.max(bias) for bias in biases), *(np.max(one.high) for one in found)]))


def _mark(ax: Any, one: Truncation, tolerance: float) -> None:
    """The horizon of one scheme, and its interval, where it has one: "last step only" may never come so near."""
    if one.bias[-1] > tolerance:
        below(ax, f"no K is within {100 * tolerance:g} %")
        return
    reach = one.horizon(tolerance)
    if reach.low < reach.high:
        ax.axvspan(reach.low, reach.high, color=SECOND, alpha=0.12, lw=0)
    ax.axvline(reach.steps, color=SECOND, ls=":", lw=1)
    between = f" ({reach.low}–{reach.high})" if reach.low < reach.high else ""
    side = "right" if reach.steps > 0.6 * one.K[-1] else "left"
    ax.annotate(f" horizon {reach.steps}{between} ", (reach.steps, 0.97), xycoords=("data", "axes fraction"),
                va="top", fontsize=7, color=SECOND, ha=side)  # fmt: skip


def context(found: Context, *, ax: Any = None) -> Any:
    """What the model uses: how much the loss grows when everything from a lag on belongs to another sequence.

    Args:
        found: of `bptt.diagnose.effective_context`. The scale is linear within ± its tolerance and logarithmic beyond.
        ax: matplotlib axes to draw on; those of a new figure by default.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    ax = finish(axes_of(ax), "What the model uses", "lag from which the past is foreign",
                "change in %")  # fmt: skip
    lags, increase, influence = np.asarray(found.lags), 100 * finite(found.increase), 100 * finite(found.influence)
    if not (increase.count() and (increase.any() or influence.any())):
        instead(ax, "nothing changes:\nthe past is not used" if len(lags) else "no lag was tried")
        return ax
    errors = 100 * np.where(np.isfinite(found.errors), found.errors, 0)
    dot = {"marker": "o", "ms": 3}
    if len(lags) > MANY:
        ax.fill_between(lags, increase - errors, increase + errors, color=FIRST, alpha=0.2, lw=0)
        ax.plot(lags, increase, label="loss, ± 1 standard error", **STYLES[0])
    else:
        ax.errorbar(lags, increase, errors, color=FIRST, lw=1, capsize=2, label="loss, ± 1 standard error", **dot)
    ax.plot(lags, influence, label="output, ‖Δy‖ / ‖y − ȳ‖", **STYLES[1])
    ax.set_yscale("symlog", linthresh=100 * found.tolerance, linscale=0.6)
    ax.yaxis.set_major_formatter(lambda value, at: f"{value:g}")
    ax.axhline(0, color=QUIET, lw=0.6)
    ax.axhline(100 * found.tolerance, color=QUIET, lw=0.8)
    if found.low < found.high:
        ax.axvspan(found.low, found.high, color=SECOND, alpha=0.12, lw=0)
    ax.axvline(found.steps, color=SECOND, ls=":", lw=1)
    between = f" ({found.low}–{found.high})" if found.low < found.high else ""
    below(ax, f"uses {found.steps} step{'s' * (found.steps != 1)}{between} at {100 * found.tolerance:g} %")
    whole_steps(ax)
    legend(ax)
    return ax

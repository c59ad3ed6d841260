"""How every figure looks: sizes of a paper column, ink, and lines that differ in dashes and lightness as in hue."""

from typing import Any

import numpy as np

from bptt.errors import MissingExtra

WIDTH, HEIGHT = 3.4, 2.5  # inches: one column of a two-column paper
INK, QUIET, BLANK = "#1f2933", "#66717d", "#eef1f4"
FIRST, SECOND = "#1f5f8b", "#c2571a"  # the two hues differ for every kind of eye
# Hue, dashes and marker differ together: a figure reads in grey and for the colour-blind.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": FIRST, "ls": "-"},
    {"color": SECOND, "ls": "--"},
    {"color": "#3f9e86", "ls": "-."},
    {"color": "#6d4f8f", "ls": ":"},
    {"color": "#a98a1d", "ls": (0, (5, 1, 1, 1, 1, 1))},
)
NEXT = "‖∂J/∂$s_{t-1}$‖ / ‖∂J/∂$s_t$‖"


def matplotlib_figure() -> Any:
    """The class `matplotlib.figure.Figure`: without pyplot, so that no window and no global state comes with it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", got="not installed", do="pip install 'bptt[plot]'") from None
    return Figure


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Any:
    """An empty figure whose parts make room for each other; inches."""
    return matplotlib_figure()(figsize=(width, height), layout="constrained")


def axes_of(ax: Any, width: float = WIDTH, height: float = HEIGHT) -> Any:
    """The axes that were given, or those of a new figure."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def finish(ax: Any, title: str, xlabel: str, ylabel: str = "") -> Any:
    """Title and labels in one voice, no frame above and to the right; returns the axes."""
    ax.set_title(title, fontsize=8, loc="left", color=INK)
    ax.set_xlabel(xlabel, fontsize=8, color=INK)
    ax.set_ylabel(ylabel, fontsize=8, color=INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(which="both", labelsize=7, colors=INK)
    return ax


def legend(ax: Any, **options: Any) -> None:
    """Without a frame, small."""
    ax.legend(**({"frameon": False, "fontsize": 7, "borderpad": 0.2, "handlelength": 2.2} | options))


def legend_below(ax: Any, columns: int = 1, right: bool = False) -> None:
    """Under the label of the x axis, for panels where no corner is free; however tall the panel is."""
    from matplotlib.transforms import ScaledTranslation

    points = 22 + 10.5 * (1 + ax.get_xlabel().count("\n"))  # ticks, and the lines of the label
    under = ax.transAxes + ScaledTranslation(0, -points / 72, ax.figure.dpi_scale_trans)
    place = {"loc": "upper right" if right else "upper left", "bbox_to_anchor": (1.04 if right else -0.02, 0)}
    legend(ax, ncols=columns, bbox_transform=under, borderpad=0, borderaxespad=0, columnspacing=1, **place)


def note(ax: Any, words: str, x: float = 0.98, y: float = 0.96) -> None:
    """A remark inside of the axes, in fractions of them, where nothing can stand behind it."""
    ha, va = "right" if x > 0.5 else "left", "top" if y > 0.5 else "bottom"
    ax.text(x, y, words, transform=ax.transAxes, ha=ha, va=va, fontsize=7, color=QUIET)


def below(ax: Any, words: str) -> None:
    """A remark under the label of the x axis, where no line can run through it."""
    ax.set_xlabel(f"{ax.get_xlabel()}\n{words}", fontsize=8, color=INK)


def instead(ax: Any, words: str) -> None:
    """What stands in an empty picture: why it is empty."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=8, color=QUIET)
    ax.set(xticks=[], yticks=[])


def positive(values: Any) -> Any:
    """Zeros cannot stand on a logarithmic axis; they leave a gap, and so does what is not finite."""
    values = np.asarray(values, float)
    return np.ma.masked_where(~(np.isfinite(values) & (values > 0)), values)


def finite(values: Any) -> Any:
    """−∞, the logarithm of an exact zero, leaves a gap."""
    return np.ma.masked_invalid(np.asarray(values, float))


def log_scale(ax: Any, *series: Any) -> None:
    """A logarithmic axis, where there is anything to show on it; ticks with numbers even within one decade."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    seen = np.concatenate([positive(values).compressed() for values in series])
    if not len(seen):
        return
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if low > 0 and np.log10(high) - np.log10(low) < 1.5:  # a decade has too few ticks of its own
        fine = [m * 10.0**k for k in range(int(np.floor(np.log10(low))), int(np.log10(high)) + 2) for m in (1, 2, 3, 5)]
        inside = [at for at in fine if low <= at <= high]
        if len(inside) > 1:
            ax.yaxis.set_major_locator(FixedLocator(inside))
            ax.yaxis.set_major_formatter(lambda value, at: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def whole_steps(ax: Any) -> None:
    """Ticks of steps, lags and numbers are whole."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))


def decades(logs: Any) -> Any:
    """Natural logarithms as powers of ten, which stay in the range of floats where the numbers do not; −∞ is masked."""
    return finite(np.asarray(logs, float) / np.log(10))


def decade_axis(ax: Any) -> None:
    """A linear axis of `decades`, whose ticks say what the numbers are."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    low, high = ax.get_ylim()
    fine = [k + np.log10(m) for k in range(int(low) - 1, int(high) + 2) for m in (1, 2, 5)] if high - low < 2 else []
    inside = [at for at in fine if low <= at <= high]
    ax.yaxis.set_major_locator(FixedLocator(inside) if len(inside) > 1 else MaxNLocator(5, integer=not fine))
    ax.yaxis.set_major_formatter(power)


def power(exponent: float, position: int | None = None) -> str:
    """A tick of a decade axis.

    >>> power(0.0), power(-3.0), power(-0.30103)
    ('1', '$10^{-3}$', '0.5')
    """
    if abs(exponent - round(exponent)) < 1e-9:
        return "1" if round(exponent) == 0 else f"$10^{{{round(exponent)}}}$"
    return f"{10**exponent:.3g}" if abs(exponent) < 4 else f"$10^{{{exponent:g}}}$"

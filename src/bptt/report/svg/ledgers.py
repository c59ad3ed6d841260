"""Pictures of a ledger: the contribution map, the step gradients, the lag profile."""

from typing import Any

import numpy as np

from bptt.ledger import Ledger
from bptt.ledger.export import beside
from bptt.report.svg.chart import WIDTH, legend, margin, panel, scale_bar, svg
from bptt.report.svg.image import block_sum, levels, picture
from bptt.report.svg.marks import Box, Line, Mark, Picture, Rule
from bptt.report.svg.markup import Markup, join
from bptt.report.svg.scales import Axis, axis, counted, named
from bptt.report.svg.words import number
from bptt.typing import Array

FEW = 8  # losses that are shown alone where all others have no contribution


def main_parameter(ledger: Ledger) -> str:
    """The one that is shown first: the recurrent weight of the last layer, else the matrix that is used most."""
    recurrent = [name for name in recurrent_parameters(ledger) if not ledger.place(name).reverse]
    if recurrent:
        return recurrent[-1]
    return max(ledger.names, key=lambda name: (ledger.gradients[name].ndim > 1, ledger.steps(name)))


def recurrent_parameters(ledger: Ledger) -> list[str]:
    """The weights that work on a state, as we, PyTorch or ONNX call them."""
    return [name for name in ledger.names if name.rpartition(".")[2].startswith(("W_hh", "weight_hh"))]


def positive(values: Any) -> Array:
    """What can stand on a logarithmic axis; the rest leaves a gap."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def steps_axis(ledger: Ledger, name: str) -> Axis:
    """t = 1…T."""
    return counted("use at step t", ledger.steps(name))


def norm_lines(ledger: Ledger, name: str) -> list[Mark]:
    """‖dW_t‖, and what the state carries back to the same steps."""
    norms, state = ledger.norms(name), beside(ledger, name)
    steps = np.arange(1, len(norms) + 1)
    dots = len(norms) <= 24
    lines: list[Mark] = [Line(steps, positive(norms), "step gradient ‖dW_t‖", 1, dots)]
    if state:
        lines.append(Line(steps, positive(state["state_gradient_norm"]), "state gradient ‖∂J/∂s_t‖", 2, dots))
    return lines


def spans(lines: list[Mark]) -> list[Any]:
    """All values of some lines."""
    return [line.y for line in lines if isinstance(line, Line)]


def map_box(ledger: Ledger, name: str, box: Box) -> Markup:
    """The contribution map in a box, with its axes, and its scale 50 pixels below."""
    table, losses = rows_with_losses(ledger.map(name))
    sums, _, _ = block_sum(table)
    largest = largest_of(sums)
    row = "loss at step k" if ledger.loss_steps is None else "loss k"
    y = named(row, [number(int(k)) for k in losses]) if len(losses) <= FEW else counted(row, len(losses))
    upside_down = Axis(y.label, y.high, y.low, False, y.ticks)  # loss 1 is the top row, as in a matrix
    drawn = panel(box, steps_axis(ledger, name), upside_down, [Picture(picture(levels(sums, largest)))])
    return join(drawn, scale_bar(largest, box.left, box.bottom + 50, box.width))


def rows_with_losses(table: Array) -> tuple[Array, Array]:
    """The map and the numbers of its losses; where only a few of many losses contribute anything, those alone."""
    some = np.flatnonzero(np.nan_to_num(table).any(1))
    kept = some if 0 < len(some) <= FEW and 3 * len(some) < len(table) else np.arange(len(table))
    return table[kept], kept + 1


def largest_of(sums: Array) -> float:
    """The largest finite cell; 1 where all is zero."""
    return float(np.max(sums, where=np.isfinite(sums), initial=0.0)) or 1.0


def map_picture(ledger: Ledger, name: str, *, width: float = WIDTH) -> Markup:
    """‖C[k, t]‖ as a picture of its own."""
    table, losses = rows_with_losses(ledger.map(name))
    K, T = table.shape
    left = max(margin(counted("", int(losses[-1]))), 24.0)
    side = width - left - 12
    height = max(side * min(1.0, K / T), 26.0 * min(K, FEW))
    title = f"Contribution map of {name}"
    content = map_box(ledger, name, Box(left, 26, side, height))
    return svg(title, map_words(ledger.map(name)), content, width=width, height=height + 26 + 84)


def map_words(table: Array) -> str:
    """What a map shows, in words."""
    K, T = table.shape
    k, t = np.unravel_index(int(np.argmax(np.nan_to_num(table))), table.shape)
    return (
        f"{K} losses by {T} uses, logarithmic colours over 4 decades. The largest contribution, {number(table.max())}, "
        f"is that of loss {k + 1} through use {t + 1}. {number(float(np.mean(table == 0) * 100), 2)} % are exactly 0."
    )


def norms_box(ledger: Ledger, name: str, box: Box) -> Markup:
    """‖dW_t‖ by step in a box, its legend in the upper part of it."""
    lines = norm_lines(ledger, name)
    names, used = legend(lines, box.left - 32, box.top + 10, box.width + 32)
    plot = Box(box.left, box.top + used + 8, box.width, box.height - used - 8)
    y = axis("", spans(lines), log=True)
    return join(names, panel(plot, steps_axis(ledger, name), y, lines))


def profile_box(ledger: Ledger, name: str, box: Box, horizon: int | None = None) -> Markup:
    """Σ ‖C[k, t]‖ by lag in a box."""
    profile = ledger.lag_profile(name)
    line = Line(profile.lags, positive(profile.values), dots=len(profile.lags) <= 24)
    x = axis("lag k − t, steps", [profile.lags], tight=True)
    y = axis("Σ ‖C[k,t]‖ by lag", [profile.values], log=True, count=max(2, int(box.height / 30)))
    marks: list[Mark] = [line]
    if horizon is not None:
        marks.append(Rule(x=float(horizon - 1), label=f"reach {number(horizon)}", strong=True))
    return panel(box, x, y, marks)


def short(name: str, room: int) -> str:
    """A name that fits, cut in its middle.

    >>> short("encoder.layers.0.weight_hh_l0", 16)
    'encoder…ht_hh_l0'
    """
    return name if len(name) <= room else f"{name[: room // 2 - 1]}…{name[len(name) - room + room // 2 :]}"

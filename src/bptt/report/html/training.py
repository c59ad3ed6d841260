"""Section 6: how it went over the iterations."""

from typing import Any

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.history import History
from bptt.report.html.parts import Section, columns, figure, paragraph
from bptt.report.svg.chart import legend, panel, scale_bar, svg
from bptt.report.svg.image import SIDE, block_sum, levels, picture
from bptt.report.svg.ledgers import largest_of, positive
from bptt.report.svg.marks import Band, Box, Line, Mark, Picture, Rule
from bptt.report.svg.markup import Markup, join
from bptt.report.svg.scales import Axis, axis, counted
from bptt.report.svg.words import number, percent
from bptt.typing import Array

WIDTH, LEFT, ROW = 720, 64, 128
COLUMNS = 256  # of the heat map


def training(diagnosis: Diagnosis) -> Section | None:
    """Losses, the lag profile by iteration, horizons, gradient norms, exponents: one below the other."""
    history = diagnosis.history
    if history is None or not len(history.train):
        return None
    at = history.train[:, 0]
    first, last = (float(pick(at[np.isfinite(at)], initial=1.0)) for pick in (np.min, np.max))
    x = axis("iteration", [[first, max(last, first + 1)]], tight=True, count=8)
    panels = [_losses(history), *_heat(history, x), *_horizons(history), _norms(history), *_exponents(history)]
    top, drawn = 18.0, []
    for i, (title, y, marks, largest) in enumerate(panels):
        several = [mark for mark in marks if getattr(mark, "label", "") and not isinstance(mark, Rule)]
        names, used = legend(several if len(several) > 1 else [], LEFT, top + 2, WIDTH - LEFT)
        box = Box(LEFT, top + used + 14, WIDTH - LEFT - 12, ROW)
        alone = f": {several[0].label}" if len(several) == 1 else ""  # type: ignore[attr-defined]
        drawn += [
            names,
            panel(
                box,
                x,
                Axis(title + alone, y.low, y.high, y.log, y.ticks),
                marks,
                name_x=i == len(panels) - 1,
                label_at=2,
            ),
        ]
        top = box.bottom + 30
        if largest is not None:
            drawn.append(scale_bar(largest, box.left, box.bottom + 10, 260))
            top += 30
    content = svg("The training over its iterations", _words(history), *drawn, width=WIDTH, height=top + 24)
    caption = "All panels share the iterations below them. " + _caption(history)
    return Section(
        "training",
        "Over training",
        [paragraph(_plan(history)), figure("Over training", content, caption, _numbers(history), wide=True)],
        "Training",
    )


Panel = tuple[str, Axis, list[Mark], float | None]


def _losses(history: History) -> Panel:
    marks: list[Mark] = [Line(history.train[:, 0], positive(history.train[:, 1]), "loss of its batch", 1)]
    values: list[Any] = [positive(history.train[:, 1])]
    if len(history.validation):
        marks.append(
            Line(
                history.validation[:, 0],
                positive(history.validation[:, 1]),
                "validation",
                2,
                len(history.validation) < 60,
            )
        )
        values.append(positive(history.validation[:, 1]))
    if history.baseline is not None and np.isfinite(history.baseline):
        marks.append(Rule(y=history.baseline, label="a guess"))
        values.append([history.baseline])
    flat = np.concatenate([np.asarray(v, float) for v in values])
    flat = flat[np.isfinite(flat)]
    log = len(flat) > 0 and flat.max() > 20 * flat.min()
    return "loss", axis("", [*values, *([] if log else [[0.0]])], log=log, count=4), marks, None


def _heat(history: History, x: Axis) -> list[Panel]:
    """Iteration × lag, of the last recurrent weight: one column for each stretch of iterations."""
    profiles = {name: np.asarray(rows, np.float64) for name, rows in history.profiles.items() if np.any(rows)}
    if not profiles or not len(history.probes):
        return []
    name = ([one for one in profiles if "hh" in one] or list(profiles))[-1]
    rows = profiles[name]
    centres = np.linspace(x.low, x.high, COLUMNS)
    nearest = np.abs(np.asarray(history.probes, float)[:, None] - centres).argmin(0)
    sums, _, _ = block_sum(rows.T[:, nearest], (SIDE, COLUMNS))
    largest = largest_of(sums)
    lags = np.asarray(history.lags)
    last, first = float(lags[-1]), float(lags[0])
    plain = counted("", int(last), int(first), 4)
    y = Axis("", first - 0.5, last + 0.5, False, plain.ticks)
    return [(f"lag k − t, steps: Σ ‖C[k,t]‖ of {name}", y, [Picture(picture(levels(sums[::-1], largest)))], largest)]


def _horizons(history: History) -> list[Panel]:
    known = {name: np.asarray(rows, float) for name, rows in history.horizons.items() if len(rows)}
    if not known:
        return []
    marks: list[Mark] = [
        Line(rows[:, 0], rows[:, 1], name, i, len(rows) < 60) for i, (name, rows) in enumerate(known.items(), 1)
    ]
    return [
        ("horizon at 1 %, steps", axis("", [*(rows[:, 1] for rows in known.values()), [0.0]], count=4), marks, None)
    ]


def _norms(history: History) -> Panel:
    iterations, norms = history.train[:, 0], positive(history.norms)
    marks: list[Mark] = [Line(iterations, norms, "before clipping", 1)]
    values: list[Any] = [norms]
    if history.clip_norm:
        marks.append(Rule(y=history.clip_norm, label="clip limit", strong=True))
        values.append([history.clip_norm])
    return "gradient norm", axis("", values, log=True, count=4), marks, None


def _exponents(history: History) -> list[Panel]:
    if history.exponents is None or not len(history.exponents):
        return []
    at, values, errors = (np.asarray(column, float) for column in history.exponents.T)
    errors = np.nan_to_num(errors)
    marks: list[Mark] = [
        Band(at, values - errors, values + errors, "± standard error"),
        Line(at, values, "largest exponent", 1),
        Rule(y=0.0),
    ]
    return [("exponent, 1/step", axis("", [values - errors, values + errors, [0.0]], count=4), marks, None)]


def _plan(history: History) -> str:
    share = float(np.mean(history.clipped)) if len(history.clipped) else 0.0
    clip = (
        f" {percent(share)} of the updates were clipped, at a norm of {number(history.clip_norm)}."
        if history.clip_norm
        else " Nothing was clipped."
    )
    carried = "carried from one batch to the next" if history.carries else "set back for every batch"
    return f"Plan of the training: {history.plan}. The state is {carried}.{clip}"


def _words(history: History) -> str:
    train = history.train
    first, last = (number(float(train[i, 1])) for i in (0, -1))
    return f"Loss of the batches from {first} to {last} over {number(len(train))} iterations."


def _caption(history: History) -> str:
    said = ["Losses (a rule is what a guess costs)"]
    said += (
        ["how much of the gradient comes from how far back, by iteration and lag, in logarithmic colours"]
        if history.profiles
        else []
    )
    said += ["the horizon at 1 %"] if any(len(rows) for rows in history.horizons.values()) else []
    said += ["the norm of the gradient before clipping, logarithmic"]
    said += ["the largest Lyapunov exponent"] if history.exponents is not None and len(history.exponents) else []
    return "; ".join(said) + "."


def _numbers(history: History) -> Markup:
    train = columns(
        "Of its batch",
        ("iteration", "loss", "gradient norm"),
        history.train[:, 0],
        history.train[:, 1],
        _padded(history),
    )
    if not len(history.validation):
        return train
    return join(
        train,
        columns("Validation", ("iteration", "loss"), history.validation[:, 0], history.validation[:, 1]),
    )


def _padded(history: History) -> Array:
    """The norms, as many as there are iterations."""
    norms = np.full(len(history.train), np.nan)
    n = min(len(norms), len(history.norms))
    norms[:n] = history.norms[:n]
    return norms

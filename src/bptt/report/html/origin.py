"""Section 2: which uses the gradient comes from."""

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.ledger import Ledger
from bptt.ledger.export import beside
from bptt.ledger.norms import norm
from bptt.report.html.parts import Section, columns, figure, paragraph, row, table
from bptt.report.svg.chart import chart
from bptt.report.svg.image import block_sum
from bptt.report.svg.ledgers import (
    main_parameter,
    map_picture,
    map_words,
    norm_lines,
    positive,
    recurrent_parameters,
    rows_with_losses,
    spans,
    steps_axis,
)
from bptt.report.svg.marks import Bars, Line, Mark, Rule
from bptt.report.svg.markup import Markup, tag
from bptt.report.svg.reach import reached
from bptt.report.svg.scales import axis, counted
from bptt.report.svg.words import count, number, percent
from bptt.typing import Array

MAPS = 4  # parameters whose maps are shown
CURVES = 6  # in one picture


def origin(diagnosis: Diagnosis) -> Section | None:
    """The map, the step gradients with their shares, the lag profiles, and the totals of every parameter."""
    ledger = diagnosis.ledger
    if ledger is None or not ledger.names:
        return None
    name = main_parameter(ledger)
    first = paragraph(
        f"The gradient of a shared weight is a sum over its uses, dW = Σ_t dW_t, here over {count(ledger.T, 'step')}. "
        "A small dW_t alone is no vanishing gradient: the input of that use or the losses may be small, so what the "
        "state carries back stands beside it."
    )
    others = [one for one in recurrent_parameters(ledger) if one in ledger.maps and one != name]
    maps = [_map(ledger, one) for one in ([name] if name in ledger.maps else []) + others[: MAPS - 1]]
    profiles, norms = _profiles(diagnosis, ledger, name), _norms(ledger, name)
    shares, gains = _shares(ledger, name), _gains(diagnosis, ledger, name)
    if name in ledger.maps and _is_high(ledger.map(name)):
        figures = _beside(maps[:1], [profiles, norms]) + _beside(maps[1:2], [shares, gains]) + maps[2:]
    else:
        figures = [*maps, profiles, norms, shares, gains]
    absent = [] if maps else [paragraph("No contribution map: this ledger was recorded without one.", cls="missing")]
    return Section(
        "origin", "Where the gradient comes from", [first, row(*figures), *absent, _totals(ledger)], "Where from"
    )


def _is_high(contributions: Array) -> bool:
    """Whether its picture is about as high as it is wide."""
    return 2 * len(rows_with_losses(contributions)[1]) > contributions.shape[1]


def _beside(maps: list[Markup], others: list[Markup | None]) -> list[Markup | None]:
    """A map, which is high, with two others one below the other beside it."""
    return [maps[0], tag("div", *others, cls="stack")] if maps else others


def _map(ledger: Ledger, name: str) -> Markup:
    contributions = ledger.map(name)
    shown, losses = rows_with_losses(contributions)
    _, down, across = block_sum(shown)
    each = _left_out(len(contributions) - len(losses))
    if max(down, across) > 1:
        each += f" Each cell adds up {down} × {across} contributions, so that the total stays what it is."
    caption = (
        "‖C[k,t]‖: what the loss at step k (down) adds to the gradient through the use at step t (across). Colours are "
        f"logarithmic over four powers of ten; where it is blank the contribution is exactly 0.{each}"
    )
    by_loss, by_use = (contributions.astype(np.float64).sum(i) for i in (1, 0))
    if len(by_loss) == len(by_use):
        steps = np.arange(1, len(by_loss) + 1)
        numbers = columns(
            f"{map_words(contributions)} Sums:", ("step", "of loss k", "of use t"), steps, by_loss, by_use
        )
    else:
        numbers = columns(
            f"{map_words(contributions)} Sums:", ("use t", "Σ_k ‖C[k,t]‖"), np.arange(1, len(by_use) + 1), by_use
        )
    return figure(f"Contribution map of {name}", map_picture(ledger, name), caption, numbers)


def _left_out(losses: int) -> str:
    """What is said of losses without any contribution."""
    return f" Left out: {count(losses, 'loss', 'losses')} without any contribution." if losses else ""


def _norms(ledger: Ledger, name: str) -> Markup:
    lines = norm_lines(ledger, name)
    y = axis("", spans(lines), log=True)
    drawn = chart(f"Step gradients of {name}", "Norms by step, logarithmic.", steps_axis(ledger, name), y, lines)
    heads, values = ["step t", "‖dW_t‖"], [np.arange(1, ledger.steps(name) + 1), ledger.norms(name)]
    if state := beside(ledger, name):
        heads, values = [*heads, "‖∂J/∂s_t‖"], [*values, state["state_gradient_norm"]]
    caption = (
        "Norm of what the use at each step adds (‖dW_t‖), and of what the state carries back to it (‖∂J/∂s_t‖)."
        " Logarithmic; a gap is exactly 0."
    )
    return figure(f"Step gradients of {name}", drawn, caption, columns("Norms by step", heads, *values))


def _shares(ledger: Ledger, name: str) -> Markup | None:
    if name not in ledger.uses and name not in ledger.step_shares:
        return None
    shares = np.asarray(ledger.shares(name), np.float64)
    steps = np.arange(1, len(shares) + 1)
    y = axis("share of dW, %", [shares * 100, [0.0]])
    marks: list[Mark] = [Bars(steps, shares * 100, 0.9), Rule(y=0.0)]
    words = f"Signed shares that sum to 1; the largest is {percent(float(shares.max()))}."
    drawn = chart(f"Share of each step, {name}", words, steps_axis(ledger, name), y, marks)
    caption = (
        "⟨dW_t, dW⟩ / ‖dW‖²; all shares sum to 100 %. Below 0, in the other colour, a step pulls against the total. "
        "Coherence "
        f"‖Σ dW_t‖ / Σ ‖dW_t‖ = {number(ledger.coherence(name))}."
    )
    return figure(
        f"Share of each step, {name}",
        drawn,
        caption,
        columns("Shares", ("step t", "share"), steps, [percent(s) for s in shares]),
    )


def _profiles(diagnosis: Diagnosis, ledger: Ledger, name: str) -> Markup | None:
    names = [one for one in ledger.names if one in ledger.maps and ledger.has_lags(one)]
    if not names:
        return None
    names = [one for one in [name, *recurrent_parameters(ledger), *names] if one in names]
    names = list(dict.fromkeys(names))[:CURVES]
    profiles = [ledger.lag_profile(one) for one in names]
    lines: list[Mark] = [
        Line(profile.lags, positive(profile.values), one, i)
        for i, (one, profile) in enumerate(zip(names, profiles, strict=True), 1)
    ]
    reach = reached(diagnosis)
    if reach is not None:
        lines.append(Rule(x=float(reach.steps - 1), label=f"reach {number(reach.steps)}", strong=True))
    x = axis("lag k − t, steps", [profile.lags for profile in profiles], tight=True)
    y = axis("Σ ‖C[k,t]‖ by lag", [profile.values for profile in profiles], log=True)
    drawn = chart("Lag profiles", "Sum of contributions by lag, logarithmic.", x, y, lines, height=300)
    caption = (
        "The map added up along its diagonals: how much of the gradient comes from how many steps back. Logarithmic."
    )
    same = [p for p in profiles if len(p.lags) == len(profiles[0].lags)]
    heads = ("lag", *(one for one, p in zip(names, profiles, strict=True) if len(p.lags) == len(profiles[0].lags)))
    return figure(
        "Lag profile of each parameter",
        drawn,
        caption,
        columns("Σ ‖C[k,t]‖ by lag", heads, same[0].lags, *(p.values for p in same)),
    )


def _gains(diagnosis: Diagnosis, ledger: Ledger, name: str) -> Markup | None:
    state = ledger.place(name).state
    gain = diagnosis.gains.get(state) or diagnosis.gains.get(state.rstrip("."))
    values = gain.per_step if gain is not None else beside(ledger, name).get("gain")
    if values is None or not len(values):
        return None
    steps = np.arange(1, len(values) + 1)
    known = positive(values)
    y = axis("gain per step", [known, [1.0]], log=True)
    x = counted("step t", len(steps))
    words = (
        "‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖ of the whole loss. Below 1 it vanishes on its way back, above 1 it grows. "
        "Logarithmic."
    )
    drawn = chart("Gain per step", words, x, y, [Line(steps, known), Rule(y=1.0, label="keeps its size")])
    return figure("What a step back leaves", drawn, words, columns("Gain", ("step t", "gain"), steps, values))


def _totals(ledger: Ledger) -> Markup:
    heads = ("parameter", "‖dW‖", "Σ ‖dW_t‖", "coherence", "uses", "residual", "shape")
    residuals = ledger.residuals if ledger.uses or ledger.recorded_residuals else {}
    rows = [
        (
            name,
            number(norm(ledger.gradients[name])),
            number(float(ledger.norms(name).sum())),
            number(ledger.coherence(name)),
            number(ledger.steps(name)),
            number(residuals.get(name), 2),
            " × ".join(map(str, ledger.gradients[name].shape)),
        )
        for name in ledger.names
    ]
    return table("All parameters: the gradient ‖dW‖ and what it is the sum of", heads, rows)

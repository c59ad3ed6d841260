"""Section 3: how far what the state carries travels."""

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.exponents import Exponents
from bptt.diagnose.gain import Gain
from bptt.diagnose.spectrum import Spectrum
from bptt.report.html.gates import paths, saturation, time_scales
from bptt.report.html.parts import Section, columns, figure, layer_name, missing, row
from bptt.report.svg.chart import chart
from bptt.report.svg.marks import Band, Errors, Line, Mark, Rule
from bptt.report.svg.markup import Markup, join, tag
from bptt.report.svg.scales import Axis, axis, counted, decades, name_of_power
from bptt.report.svg.words import count, number, percent
from bptt.typing import Array

RANKS = 5  # singular values that are drawn
TEN = np.log(10)


def travel(diagnosis: Diagnosis) -> Section | None:
    """Spectrum, exponents, effective rank, error gain, gates, and the two paths of an LSTM."""
    figures: list[Markup | None] = []
    absent = []
    if diagnosis.spectrum is not None and diagnosis.spectrum.logs.size:
        figures += [_spectrum(diagnosis.spectrum), _rank(diagnosis.spectrum)]
    else:
        absent.append(missing("The spectrum of Jacobian products was", diagnosis.notes, "spectrum", "jacobian"))
    if diagnosis.exponents is not None and len(diagnosis.exponents.values):
        figures.append(_exponents(diagnosis.exponents))
    else:
        absent.append(missing("Lyapunov exponents were", diagnosis.notes, "exponent"))
    figures += [_gain(gain) for gain in diagnosis.gains.values() if len(gain.lags)]
    layers = _layers(diagnosis)
    if not any(figures) and not layers and not diagnosis.notes:
        return None
    return Section("travel", "How far it travels", [row(*figures), *absent, *layers], "How far")


def _layers(diagnosis: Diagnosis) -> list[Markup]:
    """The gates of each layer beside each other."""
    out = []
    for state in dict.fromkeys([*diagnosis.gates, *diagnosis.cell_paths]):
        gates, path = diagnosis.gates.get(state), diagnosis.cell_paths.get(state)
        figures = [saturation(gates), time_scales(gates)] if gates is not None else []
        figures += [paths(path)] if path is not None and len(path.lags) else []
        out.append(join(tag("h3", f"Inside {layer_name(state)}"), row(*figures)))
    return out


def _tenfold(logs: Array) -> Array:
    """Natural logarithms as common ones; NaN where they are infinite."""
    logs = np.asarray(logs, np.float64)
    return np.where(np.isfinite(logs), logs, np.nan) / TEN


def _mean(logs: Array, over: int) -> Array:
    """Mean of what is finite; NaN where nothing is."""
    known = np.isfinite(logs)
    count = known.sum(over)
    total = np.where(known, logs, 0).sum(over)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _spectrum(spectrum: Spectrum) -> Markup:
    logs = _tenfold(spectrum.logs)
    means = _mean(logs, 1)
    r = logs.shape[2]
    ranks = sorted({round(i) for i in np.linspace(0, r - 1, min(r, RANKS))})
    marks: list[Mark] = []
    if logs.shape[1] > 1:
        with np.errstate(invalid="ignore"):
            low, high = (pick(logs[:, :, 0], axis=1) for pick in (np.min, np.max))
        marks.append(Band(spectrum.lags, low, high, "σ₁ over sequences", 1))
    marks += [
        Line(spectrum.lags, means[:, i], f"σ{_low(i + 1)}", n, len(spectrum.lags) < 30) for n, i in enumerate(ranks, 1)
    ]
    x = axis("lag, steps", [spectrum.lags], tight=True)
    y = decades("singular value σ", [means[:, ranks], [0.0]])
    drawn = chart(
        "Singular values by lag",
        "Geometric means over the sequences, logarithmic.",
        x,
        y,
        [*marks, Rule(y=0.0)],
        height=300,
    )
    caption = (
        f"Singular values of J_k···J_{{t+1}} of {layer_name(spectrum.state)} ({number(spectrum.size)} units): how "
        "much of its size a "
        "direction of the state keeps over so many steps. Geometric mean over the sequences, logarithmic; the rule "
        "is 1."
    )
    values = [[_power(value) for value in means[:, i]] for i in ranks]
    return figure(
        "Singular values by lag",
        drawn,
        caption,
        columns("σ by lag", ("lag", *(f"σ{_low(i + 1)}" for i in ranks)), spectrum.lags, *values),
    )


def _low(i: int) -> str:
    return str(i).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _power(log: float) -> str:
    """10^log, though no float may hold it."""
    if not np.isfinite(log):
        return "0"
    if -300 < log < 300:
        return number(float(10.0**log))
    whole = int(np.floor(log))
    return f"{number(float(10.0 ** (log - whole)))}×{name_of_power(whole)}"


def _rank(spectrum: Spectrum) -> Markup | None:
    with np.errstate(all="ignore"):  # of values that are none
        found = np.asarray(spectrum.effective_rank, np.float64)
    if not np.isfinite(found).any():
        return None
    mean = _mean(found, 1)
    with np.errstate(invalid="ignore"):
        marks: list[Mark] = [
            Band(spectrum.lags, found.min(1), found.max(1), "over sequences"),
            Line(spectrum.lags, mean, "mean", 1, len(mean) < 30),
        ]
    x, y = axis("lag, steps", [spectrum.lags], tight=True), axis("effective rank", [mean, found, [0.0]])
    drawn = chart("Effective rank by lag", "Mean and range over the sequences.", x, y, marks)
    known = spectrum.logs.shape[-1]
    of = (
        f"{number(spectrum.size)}"
        if known == spectrum.size
        else f"the {number(known)} largest, of {number(spectrum.size)},"
    )
    caption = (
        f"How many directions of {of} still carry something after so many steps. Mean and range over the sequences."
    )
    return figure(
        "Effective rank by lag", drawn, caption, columns("Effective rank", ("lag", "mean"), spectrum.lags, mean)
    )


def _exponents(exponents: Exponents) -> Markup:
    values = np.where(np.isfinite(exponents.values), exponents.values, np.nan)
    index = np.arange(1, len(values) + 1)
    errors = np.nan_to_num(np.asarray(exponents.errors, np.float64), posinf=0)
    marks: list[Mark] = [Errors(index, values, errors), Rule(y=0.0, label="neither grows nor shrinks")]
    y = axis("exponent, 1/step", [values - errors, values + errors, [0.0]])
    drawn = chart(
        "Lyapunov exponents",
        "The largest first, with standard errors.",
        counted("exponent, by size", len(values)),
        y,
        marks,
    )
    largest = f"{number(float(exponents.values[0]))} ± {number(float(exponents.errors[0]), 2)}"
    caption = (
        f"Growth of the state's directions per step, natural logarithm, over {number(exponents.steps)} steps; bars "
        "are standard errors over "
        f"the sequences. The largest is {largest}: above 0 neighbouring states part (chaos), below 0 the past is "
        "forgotten."
    )
    shown = [number(float(v)) for v in exponents.values]
    return figure(
        "Lyapunov exponents",
        drawn,
        caption,
        columns("Exponents", ("rank", "per step", "standard error"), index, shown, exponents.errors),
    )


def _gain(gain: Gain) -> Markup:
    logs, lags = _tenfold(gain.logs), np.asarray(gain.lags)
    dots = len(lags) < 30
    marks: list[Mark] = [Line(lags, logs, "measured", 1, dots)]
    known = np.isfinite(logs)
    fit = None
    if known.any() and np.isfinite(gain.slope):
        fit = logs[known].mean() + gain.slope / TEN * (lags - lags[known].mean())
        marks.append(Line(lags, fit, "fitted slope", 2))
    marks.append(Rule(y=0.0))
    x, y = axis("lag, steps", [lags], tight=True), decades("error left after so many steps", [logs, fit, [0.0]])
    if len(y.ticks) < 2:
        plain = axis("", [logs, fit, [0.0]])
        y = Axis(y.label, plain.low, plain.high, False, tuple((v, number(float(10.0**v), 2)) for v, _ in plain.ticks))
    drawn = chart(f"Error gain of {layer_name(gain.state)}", "Geometric mean by lag, logarithmic.", x, y, marks)
    whose = (
        f"‖∂L_k/∂s_{{k−lag}}‖ / ‖∂L_k/∂s_k‖ over {count(gain.losses, 'loss', 'losses')}"
        if gain.losses
        else "‖∂J/∂s‖ of the whole loss by lag"
    )
    caption = f"{whose}, geometric mean, logarithmic. {_slope(gain)}"
    return figure(
        f"Error gain of {layer_name(gain.state)}",
        drawn,
        caption,
        columns("What is left", ("lag", "left"), lags, [_power(v) for v in logs]),
    )


def _slope(gain: Gain) -> str:
    if not np.isfinite(gain.slope):
        return "Nothing comes back over a single step."
    said = (
        f"Slope {number(gain.slope)} ± {number(gain.error, 2)} per lag: a step back leaves "
        f"{percent(float(np.exp(min(gain.slope, 700.0))))}"
    )
    if not gain.losses:
        return f"{said}, and every loss on the way adds its own, so that this says little of any one of them."
    if gain.slope < 0:
        return f"{said}, half of an error is left after {number(float(-np.log(2) / gain.slope))} steps."
    return f"{said}; it does not shrink." if gain.slope > 0 else f"{said}."

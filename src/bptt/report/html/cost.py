"""Section 4: what truncation costs."""

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.truncation import Truncation
from bptt.report.html.parts import Section, columns, figure, missing, paragraph, row, table
from bptt.report.svg.chart import chart
from bptt.report.svg.ledgers import positive
from bptt.report.svg.marks import Band, Line, Mark, Rule
from bptt.report.svg.markup import Markup
from bptt.report.svg.reach import TOLERANCE, first_of, horizon_of
from bptt.report.svg.scales import Axis, axis
from bptt.report.svg.words import between, number, percent
from bptt.typing import Array

FLOOR = 1e-5  # bias below which nothing is drawn
SHOWN = 3  # parameters


def cost(diagnosis: Diagnosis) -> Section:
    """b(K) and the cosine, of the main parameters, and a table of all."""
    known = {name: found for name, found in diagnosis.truncation.items() if found}
    title = "What truncation costs"
    if not known:
        return Section(
            "cost",
            title,
            [missing("What a truncated gradient loses was", diagnosis.notes, "truncat", "horizon")],
            "Truncation",
        )
    main = first_of(known, diagnosis.ledger)
    names = [main, *(name for name in known if name != main)]
    figures = [part for name in names[:SHOWN] for part in (_bias(name, known[name]), _cosine(name, known[name]))]
    first = paragraph(
        "Backpropagation that stops after K steps gives dW_K instead of dW. The truncation bias b(K) = ‖dW_K − dW‖ / "
        "‖dW‖ says what is "
        f"lost; the horizon is the smallest K from which on it stays within {percent(TOLERANCE, 0)}."
    )
    return Section("cost", title, [first, row(*figures), _table(known)], "Truncation")


def _ks(found: list[Truncation]) -> Axis:
    values = [one.K for one in found]
    most = max(float(np.max(v)) for v in values)
    return axis("K, steps that are walked back", values, log=most > 40, tight=True, low=1.0, high=max(most, 2.0))


def _bias(name: str, found: list[Truncation]) -> Markup:
    marks: list[Mark] = []
    for i, one in enumerate(found, 1):
        if not one.exact:
            marks.append(Band(one.K, np.maximum(one.low, FLOOR), _shown(one.high), "", i))
        marks.append(Line(one.K, _shown(one.bias), one.scheme, i, len(one.K) < 14))
    marks.append(Rule(y=TOLERANCE, label=percent(TOLERANCE, 0)))
    windowed = next((one for one in found if one.scheme == "windowed"), None)
    reach = None if windowed is None else horizon_of(windowed)
    if reach is not None:
        marks.append(Rule(x=float(reach.steps), label="horizon", strong=True))
    biases = [_shown(one.bias) for one in found]
    with np.errstate(invalid="ignore"):
        low = max(FLOOR, min([TOLERANCE / 3, *(float(np.nanmin(b)) for b in biases if np.isfinite(b).any())]))
    y = axis("truncation bias b(K)", [[low], *biases, *(_shown(one.high) for one in found)], log=True, low=low)
    drawn = chart(f"Truncation bias of {name}", "b(K), logarithmic.", _ks(found), y, marks, height=290)
    how = _how(next((one for one in found if not one.exact), None))
    caption = f"b(K) by scheme, {how}. Logarithmic; what is below {number(FLOOR)} is not drawn."
    return figure(f"Truncation bias of {name}", drawn, caption, _numbers(found))


def _shown(bias: Array) -> Array:
    """Without what is too small to be of interest."""
    return np.where(positive(bias) >= FLOOR, bias, np.nan)


def _how(sampled: Truncation | None) -> str:
    """Exact, or from how many losses."""
    if sampled is None:
        return "exact"
    losses = f"{number(sampled.losses)} of {number(sampled.of)} losses"
    return f"from {losses}, bands are intervals of {percent(sampled.confidence, 0)}"


def _numbers(found: list[Truncation]) -> Markup:
    first = found[0]
    same = [one for one in found if len(one.K) == len(first.K) and (one.K == first.K).all()]
    values: list[object] = []
    for one in same:
        values.append([percent(float(b), 2) for b in one.bias])
        if not one.exact:
            values.append([between_percent(float(a), float(b)) for a, b in zip(one.low, one.high, strict=True)])
    heads = [head for one in same for head in ([one.scheme] if one.exact else [one.scheme, "interval"])]
    return columns("b(K)", ("K", *heads), first.K, *values)


def between_percent(low: float, high: float) -> str:
    """An interval of shares.

    >>> between_percent(0.01, 0.025)
    '1.0 to 2.5 %'
    """
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def _cosine(name: str, found: list[Truncation]) -> Markup:
    marks: list[Mark] = [
        Line(one.K, np.where(np.isfinite(one.cosine), one.cosine, np.nan), one.scheme, i, len(one.K) < 14)
        for i, one in enumerate(found, 1)
    ]
    y = axis("cosine", [*(one.cosine for one in found), [1.0, 0.0]])
    drawn = chart(
        f"Direction of the truncated gradient of {name}",
        "Cosine by K.",
        _ks(found),
        y,
        [*marks, Rule(y=1.0)],
        height=290,
    )
    caption = "Cosine between dW_K and dW: 1 is the same direction; below 0 a truncated update goes the wrong way."
    numbers = columns("Cosine", ("K", found[0].scheme), found[0].K, found[0].cosine)
    return figure(f"Direction of the truncated gradient of {name}", drawn, caption, numbers)


def _table(known: dict[str, list[Truncation]]) -> Markup:
    rows = []
    for name, found in known.items():
        for one in found:
            first = percent(float(one.bias[0]), 1)
            reach = horizon_of(one)
            if reach is None:
                rows.append((name, one.scheme, "–", first, "exact" if one.exact else "sampled"))
                continue
            steps = number(int(reach.steps)) + (
                "" if reach.low == reach.high else f" ({between(int(reach.low), int(reach.high))})"
            )
            rows.append(
                (
                    name,
                    one.scheme,
                    steps,
                    first,
                    "exact" if one.exact else f"{number(one.losses)} of {number(one.of)} losses",
                )
            )
    return table("Horizons of all parameters", ("parameter", "scheme", "horizon, steps", "b(1)", "from"), rows)

"""A diagnosis in a terminal: how far the gradient reaches, what is wrong and what to try, then the tables.

The first lines are what a reader came for. Severity is said by a sign and a word, never by colour alone.
"""

import math

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.exponents import Exponents
from bptt.diagnose.gain import Gain
from bptt.diagnose.truncation import Truncation
from bptt.ledger import Ledger
from bptt.report.ledger import ledger_report
from bptt.report.terminal import number
from bptt.report.verdicts import ORDER, SIGNS, by_gravity, verdict

NARROW = 64  # characters below which there is no room for three columns


def diagnosis_report(
    diagnosis: Diagnosis, name: str | None = None, reach: dict[str, int] | None = None, width: int = 100, *,
    map: bool = True, hint: str = "", trials: RenderableType | None = None,
) -> Group:  # fmt: skip
    """The whole report.

    Args:
        diagnosis: what to show.
        name: parameter whose reach stands first, and whose steps and map are shown.
        reach: parameter → horizon in steps, for the table of parameters.
        width: of the terminal, in characters.
        map: whether the map is shown, where there is one.
        hint: a line on what can be done next, below the verdicts.
        trials: what came of the remedies that were tried, shown below the verdicts.
    """
    parts: list[RenderableType] = [headline(diagnosis), *_second(diagnosis), Text("")]
    parts += [reach_line(diagnosis, name, reach or {}), figures(diagnosis, name, width)]
    parts += [verdict(finding, width) for finding in by_gravity(diagnosis.findings)]
    parts += [Text(""), Text(hint, "dim")] if hint else []
    parts += [Text(""), trials] if trials is not None else []
    parts += _tables(diagnosis, name, reach, width, map)
    parts += _notes(diagnosis)
    return Group(*parts, *_last(diagnosis))


def headline(diagnosis: Diagnosis) -> Text:
    """What was examined, and what came of it in a few words."""
    counts = dict.fromkeys(ORDER, 0)
    for finding in diagnosis.findings:
        counts[finding.severity] += 1
    said = ", ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items() if n)
    gravest = next((word for word, n in counts.items() if n), None)
    sign, style = ("✓", "bold green") if gravest is None else SIGNS[gravest]
    return Text.assemble((f"{diagnosis.source}  ", "bold"), (f"{sign} {said or 'nothing found to be wrong'}", style))


def _second(diagnosis: Diagnosis) -> list[Text]:
    facts = diagnosis.facts
    said = [str(facts[key]) for key in ("network", "data") if facts.get(key)]
    said += [f"iteration {facts['iteration']:,}"] if isinstance(facts.get("iteration"), int) else []
    return [Text("; ".join(said), "dim")] if said else []


def reach_line(diagnosis: Diagnosis, name: str | None, reach: dict[str, int]) -> Text:
    """How far back the gradient reaches, as one number with its interval."""
    name = _measured(diagnosis, name, reach)
    found, T = _windowed(diagnosis, name), _steps(diagnosis, name)
    if (why := _nothing_to_reach(diagnosis, name, T)) is not None:
        return Text(why, "bold")
    if found is not None:
        steps, low, high = found.horizon()
        sampled = "" if found.exact else f", {found.confidence * 100:.0f} %"  # exact: between two K that were measured
        interval = "" if low == high else f" ({low}–{high}{sampled})"
    elif name in reach:
        steps, interval = reach[name], ""
    else:
        return Text("How far back the gradient reaches is not known here; the notes say why.", "bold")
    back = "1 step" if steps == 1 else f"{steps} steps"
    rest = "the rest is below 1 % of dW" if steps < T else "over all that was shown, and perhaps further"
    return Text.assemble((f"{name} reaches back {back}{interval} of {T}", "bold"), f": {rest}.")


def _measured(diagnosis: Diagnosis, name: str | None, reach: dict[str, int]) -> str | None:
    """The parameter itself where its reach is known, else one that works on the same state: the recurrent weight."""
    ledger, known = diagnosis.ledger, [*diagnosis.truncation, *reach]
    if name is None or name in known or ledger is None:
        return name
    same = [one for one in known if one in ledger.places and ledger.place(one).state == ledger.place(name).state]
    return next(iter([*same, *known]), name)


def _nothing_to_reach(diagnosis: Diagnosis, name: str | None, T: int) -> str | None:
    """Why no number of steps would mean anything; None where one does."""
    ledger = diagnosis.ledger
    if diagnosis.not_finite is not None or (ledger is not None and not finite(ledger)):
        return "How far back the gradient reaches cannot be said: it is not made of finite numbers."
    if T == 1:
        return "There is a single step, so there is nothing to reach back over."
    if ledger is not None and name is not None and not ledger.gradients[name].any():
        return f"The gradient of {name} is exactly 0: it reaches nowhere."
    return None


def figures(diagnosis: Diagnosis, name: str | None, width: int = 100) -> RenderableType:
    """What stands beside the reach: what the model uses, the largest exponent, the half-life, and truncation."""
    rows = [*_uses(diagnosis), *_exponent(diagnosis.exponents), *_half_life(diagnosis, name)]
    rows += _cut(diagnosis, name) or _last_alone(diagnosis, name)
    if width < NARROW:
        lines = [Text.assemble((f"{label}: ", "dim"), (shown, "bold"), f", {what}") for label, shown, what in rows]
        return Padding(Group(*lines), (0, 0, 0, 2), expand=False) if rows else Group()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for row in rows:
        table.add_row(*row)
    return Padding(table, (0, 0, 0, 2), expand=False) if rows else Group()


def _uses(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    context = diagnosis.context
    if context is None:
        return []
    interval = "" if context.low == context.high else f" ({context.low}–{context.high})"
    steps = "1 step" if context.steps == 1 else f"{context.steps} steps"
    what = f"a foreign past before them changes the loss by at most {100 * context.tolerance:.0f} %"
    return [("the model uses", f"{steps}{interval}", what)]


def _exponent(exponents: Exponents | None) -> list[tuple[str, str, str]]:
    if exponents is None or not len(exponents.values):
        return []
    largest, error = float(exponents.values[0]), float(exponents.errors[0])
    shown = _signed(largest) + (f" ± {number(error, 2)}" if error > 0 else "")
    if not math.isfinite(largest):
        return [("largest exponent", "−∞", "a small change of the state is gone after one step")]
    change = f"{abs(math.expm1(max(min(largest, 50.0), -50.0))) * 100:.2g} %"
    if largest > 2 * error:
        what = f"a small change of the state grows by {change} per step"
    elif largest < -2 * error:
        what = f"a small change of the state shrinks by {change} per step"
    else:
        what = "a small change of the state keeps its size, within the error"
    return [("largest exponent", shown, what)]


def _half_life(diagnosis: Diagnosis, name: str | None) -> list[tuple[str, str, str]]:
    gain = _gain(diagnosis, name)
    if gain is None or not gain.slope or not math.isfinite(gain.slope):
        return []
    if not gain.losses:  # of all losses together, each of which begins somewhere else: no half-life of any
        return [("gain per step", number(math.exp(min(gain.slope, 700.0))), "of ‖∂J/∂s‖, all losses together")]
    steps = math.log(2) / abs(gain.slope)
    shown = "less than 1 step" if steps < 1 else "1 step" if f"{steps:.2g}" == "1" else f"{_rounded(steps)} steps"
    slope = f"slope {_signed(gain.slope)}" + (f" ± {number(gain.error, 2)}" if gain.error > 0 else "") + " per lag"
    if gain.slope < 0:
        return [("half-life", shown, f"back from a loss, until ‖∂L/∂s‖ is half as large ({slope})")]
    return [("doubles in", shown, f"back from a loss ‖∂L/∂s‖ grows ({slope})")]


def _cut(diagnosis: Diagnosis, name: str | None) -> list[tuple[str, str, str]]:
    """What the training's own truncation loses."""
    plan = "" if diagnosis.history is None else diagnosis.history.plan
    scheme, _, cut = plan.partition(":")
    found = next((one for one in _schemes(diagnosis, name) if one.scheme == scheme), None)
    if found is None or _nothing_to_reach(diagnosis, name, _steps(diagnosis, name)) is not None:
        return []
    if not cut.isdigit() or not found.K[0] <= int(cut) < found.K[-1]:
        return []
    at = int(np.flatnonzero(int(cut) >= found.K)[-1])
    interval = "" if found.exact else f" ({_percent(found.low[at])}–{_percent(found.high[at])} %)"
    where = "at every step" if cut == "1" else f"every {cut} steps"
    near = "" if found.K[at] == int(cut) else f" (measured at {found.K[at]})"
    return [("its training loses", f"{_percent(found.bias[at])} %{interval}", f"of dW, cut {where}{near}")]


def _last_alone(diagnosis: Diagnosis, name: str | None) -> list[tuple[str, str, str]]:
    """What a gradient of one step would lose, where nothing is known of longer ones."""
    found = _schemes(diagnosis, name)
    if [one.scheme for one in found] != ["last step only"] or _steps(diagnosis, name) < 2:
        return []
    if _nothing_to_reach(diagnosis, name, _steps(diagnosis, name)) is not None:
        return []
    return [("its last use alone", f"{_percent(found[0].bias[0])} %", "of dW is lost by a gradient of one step")]


def _percent(share: float) -> str:
    """Of a share, as many digits as say something.

    >>> _percent(0.1234), _percent(0.00004)
    ('12.3', '0.0')
    """
    return f"{share * 100:.1f}"


# ---- tables, notes ---------------------------------------------------------------------------------------------------


def _tables(
    diagnosis: Diagnosis, name: str | None, reach: dict[str, int] | None, width: int, map: bool
) -> list[RenderableType]:
    ledger = diagnosis.ledger
    if ledger is None or name is None:
        return []
    if not finite(ledger):
        return [Text("\nNo tables: the gradient is not made of finite numbers.", "dim")]
    return [Text(""), ledger_report(ledger, name, reach, width, map=map)]


def finite(ledger: Ledger) -> bool:
    """Whether losses and gradients are numbers."""
    return all(bool(np.isfinite(values).all()) for values in (ledger.losses, *ledger.gradients.values()))


def _notes(diagnosis: Diagnosis) -> list[RenderableType]:
    if not diagnosis.notes:
        return []
    lines = [Text(f"{note[:1].upper()}{note[1:]}".rstrip(".") + ".") for note in diagnosis.notes]
    return [Text(""), *lines]


def _last(diagnosis: Diagnosis) -> list[RenderableType]:
    took = f"Examined in {diagnosis.seconds:.1f} s." if diagnosis.seconds else ""
    command = diagnosis.facts.get("command")
    again = f" Again: {command}" if command else ""
    return [Text(f"\n{took}{again}".rstrip(), "dim")] if took or again else []


# ---- where things stand ----------------------------------------------------------------------------------------------


def _schemes(diagnosis: Diagnosis, name: str | None) -> list[Truncation]:
    return diagnosis.truncation.get(name or "", [])


def _windowed(diagnosis: Diagnosis, name: str | None) -> Truncation | None:
    return next((found for found in _schemes(diagnosis, name) if found.scheme == "windowed"), None)


def _steps(diagnosis: Diagnosis, name: str | None) -> int:
    if diagnosis.ledger is not None and name is not None:
        return diagnosis.ledger.steps(name)
    found = _windowed(diagnosis, name)
    return 0 if found is None else int(found.K[-1])


def _gain(diagnosis: Diagnosis, name: str | None) -> Gain | None:
    """Of the state that the parameter works on; else of the first."""
    state = diagnosis.ledger.place(name).state if diagnosis.ledger is not None and name is not None else ""
    return diagnosis.gains.get(state) or next(iter(diagnosis.gains.values()), None)


def _signed(value: float) -> str:
    return number(value).replace("-", "−")


def _rounded(steps: float) -> str:
    """Two digits, without an exponent.

    >>> _rounded(2.34), _rounded(37.4), _rounded(1234.0)
    ('2.3', '37', '1200')
    """
    if steps >= 1e6:
        return "over a million"
    return f"{float(f'{steps:.2g}'):g}"


__all__ = ["diagnosis_report", "figures", "finite", "headline", "reach_line"]

"""One page for a whole diagnosis: the verdicts in words, and a panel for everything that was measured."""

import textwrap
from collections.abc import Callable
from typing import Any

from bptt.diagnose.diagnosis import Diagnosis
from bptt.ledger import Ledger
from bptt.report.plots import cost, course, origin, travel, units
from bptt.report.plots.style import INK, QUIET, new_figure

Panel = Callable[[Any], Any]
PANEL = (3.4, 2.7)  # inches
MARKS = {"error": "✕ error", "warning": "▲ warning", "note": "● note"}


def report(diagnosis: Diagnosis, parameter: str | None = None) -> Any:
    """A matplotlib Figure of one page: verdicts, then where the gradient comes from, how far it travels, and its cost.

    Only what the diagnosis has is drawn.

    Args:
        diagnosis: of `bptt.diagnose`.
        parameter: shown in the panels of one parameter; the recurrent weight of the last layer by default.

    Raises:
        UnknownName: no such parameter.  MissingExtra: matplotlib is not installed.
    """
    name = _parameter(diagnosis, parameter)
    panels = _panels(diagnosis, name)
    lines = _lines(diagnosis)
    across = 2 if len(panels) <= 4 else 3
    rows, words = -(-len(panels) // across), 0.4 + 0.16 * len(lines)
    tall = PANEL[1] * rows
    figure = new_figure(PANEL[0] * across, words + max(tall, 0.2))
    heights = [words, tall] if rows else [1]
    top, *rest = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _write(top, diagnosis, lines, words)
    if rest:
        grid = rest[0].add_gridspec(rows, across)
        for i, panel in enumerate(panels):  # the last one has the rest of its row
            columns = slice(i % across, None if i == len(panels) - 1 else i % across + 1)
            panel(rest[0].add_subplot(grid[i // across, columns]))
    return figure


def main_parameter(ledger: Ledger) -> str:
    """The recurrent weight of the last layer, as we or PyTorch call it; else the matrix that is used most."""
    ends = [(name, name.rpartition(".")[2]) for name in ledger.names if not ledger.place(name).reverse]
    recurrent = [name for name, end in ends if end.startswith(("W_hh", "weight_hh"))]
    return (recurrent or [max(ledger.names, key=lambda n: (ledger.gradients[n].ndim > 1, ledger.steps(n)))])[-1]


def _parameter(diagnosis: Diagnosis, parameter: str | None) -> str:
    ledger = diagnosis.ledger
    if ledger is not None and ledger.names:
        return ledger.name(parameter) if parameter else main_parameter(ledger)
    return parameter or next(reversed(diagnosis.truncation), "")


def _panels(d: Diagnosis, name: str) -> list[Panel]:
    """What there is to draw, in the order in which it is read."""
    panels: list[Panel] = [] if d.ledger is None or not d.ledger.names else _ledger_panels(d.ledger, name)
    panels += [lambda ax, one=one: travel.gains(one, ax=ax) for one in list(d.gains.values())[-1:]]
    if d.spectrum is not None:
        panels.append(lambda ax, one=d.spectrum: travel.spectrum(one, ax=ax))
    if d.exponents is not None:
        panels.append(lambda ax, one=d.exponents: travel.exponents(one, ax=ax))
    panels += [lambda ax, one=one: units.gates(one, ax=ax) for one in list(d.gates.values())[-1:]]
    panels += [lambda ax, one=one: units.cell_path(one, ax=ax) for one in list(d.cell_paths.values())[-1:]]
    truncations = d.truncation.get(name) or next(iter(d.truncation.values()), None)
    if truncations:
        panels.append(lambda ax: cost.truncation(truncations, ax=ax))
    if d.context is not None:
        panels.append(lambda ax, one=d.context: cost.context(one, ax=ax))
    if d.history is not None and name in (*d.history.profiles, *d.history.horizons):
        panels.append(lambda ax, one=d.history: course.training(one, name, ax=ax))
    return panels


def _ledger_panels(ledger: Ledger, name: str) -> list[Panel]:
    panels: list[Panel] = []
    if name in ledger.maps or name in ledger.loss_uses:
        panels.append(lambda ax: origin.map(ledger, name, ax=ax))
    panels.append(lambda ax: origin.steps(ledger, name, ax=ax))
    if panels[1:] and ledger.has_lags(name):
        panels.append(lambda ax: origin.lag_profile(ledger, name, ax=ax))
    return panels


def _lines(diagnosis: Diagnosis) -> list[tuple[str, bool]]:
    """Verdicts in words, wrapped; whether each line is a heading of one."""
    lines: list[tuple[str, bool]] = []
    for found in diagnosis.findings:
        lines.append((f"{MARKS[found.severity]}   {found.code} {found.name}   {found.where}", True))
        lines += [(line, False) for line in textwrap.wrap(found.message, 130)[:3]]
    if not lines:
        lines.append(("no verdict: nothing was found to be wrong", True))
    facts = "   ".join(f"{key} {diagnosis.facts[key]}" for key in ("network", "loss", "iteration") if
                       diagnosis.facts.get(key) is not None)  # fmt: skip
    ledger = diagnosis.ledger
    residual = "" if ledger is None or not (ledger.recorded_residuals or ledger.uses) else ledger.residual
    facts += "" if residual == "" else f"   residual {residual:.0e}"
    return lines + [(line, False) for line in textwrap.wrap(facts, 130)[:2]]


def _write(figure: Any, diagnosis: Diagnosis, lines: list[tuple[str, bool]], height: float) -> None:
    figure.text(0.012, 1 - 0.06 / height, diagnosis.source[-100:], fontsize=10, weight="bold", va="top", color=INK)
    for i, (line, head) in enumerate(lines):
        y = 1 - (0.3 + 0.16 * i) / height
        figure.text(0.012 if head else 0.03, y, line, fontsize=7.5, va="top", color=INK if head else QUIET,
                    weight="bold" if head else "normal")  # fmt: skip

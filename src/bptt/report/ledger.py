"""A ledger as tables in a terminal: where it came from, its parameters, its map, what the state carries."""

from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.report.lesson import heading
from bptt.report.terminal import bar, number, percent, shaded_map

PROVENANCE = ("network", "engine", "dtype", "gradient", "loss", "plan", "keep", "source", "version")
ROWS = 16  # steps shown one by one; longer sequences are shown in so many stretches


def ledger_report(ledger: Ledger, name: str, reach: dict[str, int] | None = None, width: int = 100) -> Group:
    """The whole report of one ledger.

    Args:
        ledger: what to show.
        name: parameter whose steps and map are shown.
        reach: parameter → horizon in steps, where it was computed.
        width: of the terminal, in characters.
    """
    parts: list[RenderableType] = [provenance(ledger), heading("1", "Parameters", _meaning(reach))]
    parts += [
        parameters(ledger, reach or {}, width),
        heading("2", "Steps", f"uses of {name}, and what the state carries"),
    ]
    parts += [steps(ledger, name)]
    if name in ledger.maps:
        parts += [
            heading("3", "Map", f"‖C[k,t]‖ of {name}: rows are losses, columns are uses"),
            shaded_map(ledger.map(name), width),
        ]
    return Group(*parts)


def _meaning(reach: dict[str, int] | None) -> str:
    reaches = "; reaches: steps back after which a cut changes dW by less than 1 %" if reach else ""
    return f"all uses together{reaches}"


def provenance(ledger: Ledger) -> Table:
    """Where the numbers came from."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("loss J", f"{ledger.loss:.6g} over {ledger.T} steps and {ledger.meta.get('B', '?')} sequences")
    for key in PROVENANCE:
        if key in ledger.meta:
            table.add_row(key, str(ledger.meta[key]))
    table.add_row("residual", f"{ledger.residual:.1e}  (Σ_t dW_t against the engine's gradient)")
    return table


def parameters(ledger: Ledger, reach: dict[str, int], width: int = 100) -> Table:
    """One row per parameter; in a narrow terminal with fewer columns, since half a number is none."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    heads = ["parameter", "‖dW‖", "coherence", "reaches", "‖dW_1‖", f"‖dW_{ledger.T}‖", "Σ‖dW_t‖", "shape"]
    rows = [_row(ledger, name, reach) for name in ledger.names]
    shown = [i for i, head in enumerate(heads) if head != "reaches" or reach]
    widths = [max(len(head), *(len(row[i]) for row in rows)) + 2 for i, head in enumerate(heads)]
    while sum(widths[i] for i in shown) - 2 > width and len(shown) > 2:
        shown.pop()
    for i in shown:
        table.add_column(heads[i], justify="left" if heads[i] in ("parameter", "shape") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    return table


def _row(ledger: Ledger, name: str, reach: dict[str, int]) -> list[str]:
    """One parameter's entries, in the order of their importance."""
    norms, dW = ledger.norms(name), ledger.gradients[name]
    reaches = "" if name not in reach else "1 step" if reach[name] == 1 else f"{reach[name]} steps"
    coherence = f"{ledger.coherence(name):.3f}"
    numbers = [number(value) for value in (norms[0], norms[-1], norms.sum())]
    return [name, number(norm(dW)), coherence, reaches, *numbers, " × ".join(map(str, dW.shape))]


def steps(ledger: Ledger, name: str) -> Table:
    """Step by step, or in stretches of steps where there are many."""
    prefix = name.rsplit(".", 1)[0] + "."
    layer: Any = prefix if prefix in ledger.states else next(reversed(ledger.states))
    carried, gains = ledger.state_norms(layer)[1:], ledger.gains(layer)
    if ledger.reverse[ledger.layer(layer)]:
        carried, gains = carried[::-1], gains[::-1]
    norms = ledger.norms(name)
    shares = ledger.shares(name) if (name in ledger.uses or name in ledger.step_shares) else None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("steps", "mean ‖dW_t‖", "share", "", "mean ‖∂J/∂s_t‖", "gain per step"):
        table.add_column(head, justify="left" if head == "" else "right")
    for part in np.array_split(np.arange(ledger.T), min(ROWS, ledger.T)):
        share = None if shares is None else float(shares[part].sum())
        label = f"{part[0] + 1}" if len(part) == 1 else f"{part[0] + 1}–{part[-1] + 1}"
        table.add_row(
            label,
            number(norms[part].mean()),
            "" if share is None else percent(share),
            "" if share is None else bar(abs(share)),
            number(carried[part].mean()),
            number(_geometric_mean(gains[part])),
        )
    return table


def _geometric_mean(gains: Any) -> float:
    """The gain per step that gives the product; 0 where any is 0."""
    gains = np.asarray(gains, float)
    return 0.0 if (gains <= 0).any() else float(np.exp(np.log(gains).mean()))


def run_report(info: dict[str, Any]) -> Group:
    """A run: its settings on one line each, and how its losses and its reach went.

    Args:
        info: `title`; `settings`, name → value; `rows`, dicts with iteration and, where known, train, validation and
            horizon (parameter → steps).
    """
    settings = "   ".join(f"{key} {value}" for key, value in info["settings"].items())
    rows = info["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row.get("horizon", {}) if name.endswith("W_hh")))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("iteration", "loss of its batch", "validation loss", ""):
        table.add_column(head, justify="left" if head == "" else "right")
    for name in names:
        table.add_column("reach" if len(names) == 1 else f"reach of {name}", justify="right")
    largest = max((row["validation"] for row in rows if "validation" in row), default=1) or 1
    for row in rows[:: max(1, -(-len(rows) // 24))]:
        losses = [f"{row[key]:.4f}" if key in row else "" for key in ("train", "validation")]
        reach = [f"{row['horizon'][name]} steps" if name in row.get("horizon", {}) else "" for name in names]
        table.add_row(str(row["iteration"]), *losses, bar(row.get("validation", 0) / largest, 20), *reach)
    return Group(Text(info["title"], "bold cyan"), Text(settings, "dim"), Text(""), table)

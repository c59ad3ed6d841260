"""A ledger as tables in a terminal: where it came from, its parameters, its map, what the state carries."""

from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bptt.ledger import Ledger
from bptt.ledger.export import beside
from bptt.ledger.norms import norm
from bptt.report.lesson import heading
from bptt.report.svg.words import count
from bptt.report.terminal import bar, number, percent, shaded_map
from bptt.typing import Array

PROVENANCE = ("network", "engine", "dtype", "gradient", "loss", "plan", "keep", "source", "version")
ROWS = 16  # steps shown one by one; longer sequences are shown in so many stretches


def ledger_report(
    ledger: Ledger, name: str, reach: dict[str, int] | None = None, width: int = 100, *, map: bool = True
) -> Group:
    """The whole report of one ledger.

    Args:
        ledger: what to show.
        name: parameter whose steps and map are shown.
        reach: parameter → horizon in steps, where it was computed.
        width: of the terminal, in characters.
        map: whether the map is shown, where there is one.
    """
    parts: list[RenderableType] = [provenance(ledger), heading("1", "Parameters", _meaning(reach))]
    parts += [
        parameters(ledger, reach or {}, width),
        heading("2", "Steps", f"uses of {name}" + (", and what the state carries" if beside(ledger, name) else "")),
    ]
    parts += [steps(ledger, name)]
    if map and name in ledger.maps and ledger.maps[name].any():
        table, rows = _counted(ledger, ledger.map(name))
        parts += [
            heading("3", "Map", f"‖C[k,t]‖ of {name}: rows are {rows}, columns are uses"),
            shaded_map(table, width),
        ]
    return Group(*parts)


def _counted(ledger: Ledger, table: Array) -> tuple[Array, str]:
    """The map, and what its rows are; where few of the losses count, without the empty rows of the others."""
    counts = ledger.losses != 0
    if not counts.any() or counts.sum() > len(counts) / 2:
        return table, "losses"
    return table[counts], "the losses that count"


def _meaning(reach: dict[str, int] | None) -> str:
    reaches = "; reaches: steps back after which a cut changes dW by less than 1 %" if reach else ""
    return f"all uses together{reaches}"


def provenance(ledger: Ledger) -> Table:
    """Where the numbers came from."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    losses = "" if ledger.K == ledger.T else f" of {ledger.K} {'loss' if ledger.K == 1 else 'losses'}"
    over = [count(ledger.T, "step"), *([count(int(ledger.meta["B"]), "sequence")] if "B" in ledger.meta else [])]
    table.add_row("loss J", f"{ledger.loss:.6g}{losses} over {' and '.join(over)}")
    for key in PROVENANCE:
        if key in ledger.meta:
            table.add_row(key, str(ledger.meta[key]))
    table.add_row("residual", f"{ledger.residual:.1e}  (Σ_t dW_t against the engine's gradient)")
    return table


def parameters(ledger: Ledger, reach: dict[str, int], width: int = 100) -> Table:
    """One row per parameter; in a narrow terminal with fewer columns, since half a number is none."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    differ = len({ledger.steps(name) for name in ledger.names}) > 1
    last = "‖dW_T‖" if differ else f"‖dW_{ledger.T}‖"
    heads = ["parameter", "‖dW‖", "coherence", "reaches", "uses", "‖dW_1‖", last, "Σ‖dW_t‖", "shape"]
    rows = [_row(ledger, name, reach) for name in ledger.names]
    absent = (set() if reach else {"reaches"}) | (set() if differ else {"uses"})
    shown = [i for i, head in enumerate(heads) if head not in absent]
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
    uses = str(len(norms))
    return [name, number(norm(dW)), coherence, reaches, uses, *numbers, " × ".join(map(str, dW.shape))]


def steps(ledger: Ledger, name: str) -> Table:
    """Step by step, or in stretches of steps where there are many."""
    norms, state = ledger.norms(name), beside(ledger, name)
    shares = ledger.shares(name) if (name in ledger.uses or name in ledger.step_shares) else None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("steps", "mean ‖dW_t‖", "share", "", *(["mean ‖∂J/∂s_t‖", "gain per step"] if state else [])):
        table.add_column(head, justify="left" if head == "" else "right")
    for part in np.array_split(np.arange(len(norms)), min(ROWS, len(norms))):
        share = None if shares is None else float(shares[part].sum())
        label = f"{part[0] + 1}" if len(part) == 1 else f"{part[0] + 1}–{part[-1] + 1}"
        cells = [label, number(norms[part].mean())]
        cells += ["", ""] if share is None else [percent(share), bar(abs(share))]
        if state:
            cells += [number(state["state_gradient_norm"][part].mean()), number(_geometric_mean(state["gain"][part]))]
        table.add_row(*cells)
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

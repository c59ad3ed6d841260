"""Remedies that were tried, as a table: what each changed, and what was measured with it and without."""

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from bptt.report.terminal import number

HEADS = ("remedy", "what it changes", "reaches", "slope per lag", "half-life", "loss", "helped?")
WIDE = 100  # characters; below it, what a remedy changes stands below the table
LESS = {"half-life": 66, "slope per lag": 54}  # characters that the table takes with it
LEFT = ("remedy", "what it changes", "helped?")


class trials_table:
    """One row for the unchanged training and one for each remedy, and below it every verdict in words.

    In a narrow terminal what a remedy changes stands below the table, and half-life and slope are left out.

    Args:
        trials: a `bptt.train.Trials`, or its `to_dict()`.
    """

    def __init__(self, trials: Any):
        self.facts = trials if isinstance(trials, dict) else trials.to_dict()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        facts, wide = self.facts, options.max_width >= WIDE
        if facts["base"] is None:
            yield Text("No finding names a remedy that applies here, so none was tried.")
            return
        left_out = {head for head, needed in LESS.items() if options.max_width < needed}
        yield _table(facts, left_out if wide else left_out | {"what it changes"})
        for row in facts["rows"]:
            told = f"{row['remedy']}: {row['words']}"
            yield Text(told if wide or not row["changes"] else f"{told}   [{_changes(row['changes'])}]")
        yield Text(_how(facts), "dim")


def _table(facts: dict[str, Any], left_out: set[str]) -> Table:
    heads = [head for head in HEADS if head not in left_out]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        table.add_column(head, justify="left" if head in LEFT else "right", no_wrap=head != "what it changes")
    for row in [facts["base"], *facts["rows"]]:
        cells = dict(zip(HEADS, _cells(row, facts["T"]), strict=True))
        table.add_row(*(cells[head] for head in heads), style="bold" if row["helped"] else "")
    return table


def _cells(row: dict[str, Any], T: int) -> list[str]:
    """One row, in the order of `HEADS`."""
    loss = "" if row["loss"] is None else number(row["loss"])
    if row["diverged"] is not None:
        loss = f"diverged at {row['diverged']}"
    reach = "" if row["horizon"] is None else f"{row['horizon']} of {T}"
    slope = "" if row["slope"] is None else f"{row['slope']:+.4f}".replace("-", "−")
    known = row["loss"] is not None
    half = "" if not known else "none" if row["half_life"] is None else f"{number(row['half_life'])} steps"
    helped = {True: "yes", False: "no", None: ""}[row["helped"]]
    return [row["remedy"], _changes(row["changes"]), reach, slope, half, loss, helped]


def _changes(changes: dict[str, Any]) -> str:
    """Fields as they are in a configuration, options one by one.

    >>> _changes({"init": "identity", "options": {"nonlinearity": "relu"}, "learning_rate": 0.001})
    'init identity, nonlinearity relu, learning rate 0.001'
    """
    plain = {name: value for name, value in changes.items() if name != "options"}
    flat = {key: value for name, value in changes.items() if name == "options" for key, value in value.items()}
    ordered = [(name, value) for name, value in plain.items() if name != "learning_rate"] + list(flat.items())
    ordered += [(name, value) for name, value in plain.items() if name == "learning_rate"]
    return ", ".join(f"{name.replace('_', ' ')} {'none' if value is None else value}" for name, value in ordered)


def _how(facts: dict[str, Any]) -> str:
    guess = "" if facts["baseline"] is None else f"; a guess costs {number(facts['baseline'])}"
    early = "; stopped before the last" if facts["interrupted"] else ""
    each = f"{facts['iterations']:,} iterations each, the same data, seed {facts['seed']}"
    return (
        f"{each}, {facts['seconds']:.0f} s{guess}{early}. reaches: steps back after which a cut changes the recurrent "
        f"weight's gradient by less than 1 %; slope: of log ‖∂L/∂s‖."
    )


__all__ = ["trials_table"]

"""What an audit says, for people and for programs."""

from typing import Any, NamedTuple

import numpy as np

from bptt.trace.torch.audit.classify import CUT, NONE, RIGHT, WRONG, Table, patterns, reach, states
from bptt.trace.torch.audit.findings import Finding

SIGNS = {NONE: "·", RIGHT: "█", CUT: "0", WRONG: "x"}
MAP = 40  # rows and columns of a picture


class Row(NamedTuple):
    """One parameter or input. uses: how many.  reach, values_reach: in steps, of a right gradient and of values."""

    name: str
    uses: int
    reach: int
    values_reach: int
    verdict: str
    error: float


class Audit:
    """Whether a model's gradient is that of its values, use by use.

    findings: what is wrong, by code.  rows: each parameter that is used more than once, and inputs.  tables: numbers
    D[k, t] behind it.  model: a line about it.  K, T: losses and steps.  runs: forward passes that it took.
    """

    def __init__(self, model: str, tables: dict[str, Table], findings: list[Finding], T: int, runs: int):
        self.model, self.tables, self.findings, self.T, self.runs = model, tables, findings, T, runs
        self.K = max((len(table.values) for table in tables.values()), default=0)
        self.rows = [self._row(name, table) for name, table in tables.items()]

    def _row(self, name: str, table: Table) -> Row:
        codes = [finding.code for finding in self.findings if name in finding.parameters]
        apart = np.abs(table.values - table.claims).max(initial=0.0)
        size = max(np.abs(table.values).max(initial=0.0), np.sqrt(table.noise.max(initial=0.0)), 1e-300)
        error = float(apart / size)
        return Row(
            name,
            table.values.shape[1],
            *reach(table),
            " ".join(codes) or ("partly frozen" if self._left(name, table) else "right"),
            error,
        )

    def _left(self, name: str, table: Table) -> bool:
        """Whether a table shows something that is no finding: an input that is seen through a frozen part too."""
        return name.startswith("input") and bool(patterns(table))

    @property
    def ok(self) -> bool:
        """Whether there is no finding."""
        return not self.findings

    @property
    def reach(self) -> int:
        """How many steps back a right gradient reaches."""
        return max((row.reach for row in self.rows), default=0)

    @property
    def values_reach(self) -> int:
        """How many steps on values have an influence."""
        return max((row.values_reach for row in self.rows), default=0)

    def only(self, select: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> "Audit":
        """The same with the findings whose codes begin so, and without others."""
        kept = [f for f in self.findings if (not select or f.code.startswith(select)) and not f.code.startswith(ignore)]
        return Audit(self.model, self.tables, kept, self.T, self.runs)

    def map(self, name: str) -> list[str]:
        """A picture of a table: a line for each loss k, a sign for each use t.

        · nothing reaches   █ right   0 the gradient is zero and should not be   x wrong
        """
        return ["".join(SIGNS[int(state)] for state in row) for row in states(self.tables[name])]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "ok": self.ok,
            "reach": self.reach,
            "values_reach": self.values_reach,
            "losses": self.K,
            "steps": self.T,
            "runs": self.runs,
            "parameters": [row._asdict() for row in self.rows],
            "findings": [finding.to_dict() for finding in self.findings],
            "maps": {f.parameters[0]: self.map(f.parameters[0]) for f in self.findings if f.parameters},
        }

    def __str__(self) -> str:
        from rich.console import Console

        screen = Console(width=110, color_system=None, force_terminal=False, emoji=False)
        with screen.capture() as text:
            screen.print(self)
        return text.get().rstrip()

    __repr__ = __str__

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        yield Text(f"{self.model}; {self.K} losses, {self.T} steps, {self.runs} runs in float64", style="bold")
        yield self._table()
        for finding in self.findings:
            yield Text("")
            yield from _lines(finding)
            if finding.parameters and finding.parameters[0] in self.tables:
                yield from self._picture(finding)
        yield Text("")
        yield self._summary()

    def _table(self) -> Any:
        from rich.table import Table as Grid

        from bptt.trace.torch.audit.show import figure

        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head in ("parameter", "uses", "reach", "of values", "apart", "verdict"):
            grid.add_column(head, justify="left" if head in ("parameter", "verdict") else "right", no_wrap=True)
        for row in self.rows:
            style = "" if row.verdict == "right" else "bold red"
            counts = (str(row.uses), str(row.reach), str(row.values_reach), figure(row.error))
            grid.add_row(row.name, *counts, row.verdict, style=style)
        return grid

    def _picture(self, finding: Finding) -> Any:
        from rich.text import Text

        name = finding.parameters[0]
        lines = self.map(name)
        if finding.parameters and len(lines) > 1 and len(lines[0]) > 1:
            wide = (
                f" (the first {MAP} of {len(lines)} × {len(lines[0])})" if max(len(lines), len(lines[0])) > MAP else ""
            )
            yield Text(f"  losses k down, uses t across, of {name}{wide}: █ right, 0 missing, x wrong", style="dim")
            for line in lines[:MAP]:
                yield Text(f"  {line[:MAP]}")

    def _summary(self) -> Any:
        from rich.text import Text

        steps = f"The gradient reaches {self.reach} steps back; values reach {self.values_reach}."
        count = len(self.findings)
        verdict = "Nothing is wrong. " if self.ok else f"{count} finding{'s' if count > 1 else ''}. "
        return Text(verdict + steps, style="bold" if self.ok else "bold red")


def _lines(finding: Finding) -> Any:
    from rich.text import Text

    of = ", ".join(finding.parameters[:4]) + (
        f" and {len(finding.parameters) - 4} more" * (len(finding.parameters) > 4)
    )
    border = "" if finding.border is None else f" · from (k, t) = ({finding.border[0]}, {finding.border[1]})"
    yield Text(f"{finding.code} {finding.name}{border}" + (f" · {of}" if of else ""), style="bold red")
    yield Text(f"  {finding.says[0].upper()}{finding.says[1:]}.")
    if finding.cause is not None:
        yield Text(f"  {finding.cause_line or '?'}: {finding.cause}")
    if finding.use is not None and finding.use != finding.cause_line:
        yield Text(f"  {finding.use}: the use")
    yield Text(f"  {finding.do}", style="italic")

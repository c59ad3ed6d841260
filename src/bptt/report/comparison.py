"""Two sides against each other, as a table in a terminal."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bptt.report.terminal import number


def comparison_report(found: dict[str, Any]) -> Group:
    """What differs, the table of all measures, and what to keep in mind.

    Args:
        found: as `bptt.train.Comparison.to_dict` gives it.
    """
    parts: list[RenderableType] = [_side("A", found["a"], found["seeds_a"]), _side("B", found["b"], found["seeds_b"])]
    parts += [_differences(found), Text("")]
    if found["measures"]:
        parts += [_table(found["measures"]), Text("")]
    parts += [Text(note, "dim") for note in found["notes"]]
    return Group(*parts)


def _side(letter: str, paths: tuple[str, ...], seeds: tuple[int, ...]) -> Text:
    shown = paths[0] if len(paths) == 1 else f"{paths[0]} … {paths[-1]}, {len(paths)} of them"
    seeded = f"   seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}" if seeds else ""
    return Text.assemble((f"{letter}  ", "bold cyan"), shown, (seeded, "dim"))


def _differences(found: dict[str, Any]) -> Text:
    differs = found["differs"]
    seeds = sorted(found["seeds_a"]) != sorted(found["seeds_b"])
    rest = "all else equal" + (" but the seeds" if seeds else "")
    if not differs:
        return Text(f"Same settings: {rest}.", "dim")
    said = "; ".join(f"{name.replace('_', ' ')} {_values(a)} → {_values(b)}" for name, (a, b) in differs.items())
    return Text(f"Differs, A → B: {said}; {rest}.")


def _values(values: tuple[Any, ...]) -> str:
    said = ["none" if value is None else str(value) for value in values]
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def _table(measures: list[dict[str, Any]]) -> Table:
    """Median with the spread below it; the least and largest, and from four runs on the quartiles."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for head in ("A", "B", "B / A", "p"):
        table.add_column(head, justify="right")
    for measure in measures:
        ratio = "" if measure["ratio"] is None else number(measure["ratio"])
        if measure["interval"]:
            ratio += f"\n{number(measure['interval'][0])}–{number(measure['interval'][1])}"
        p = "" if measure["p"] is None else f"{measure['p']:.3g}"
        steps = measure["name"].startswith("horizon")
        table.add_row(measure["name"], _spread(measure["a"], steps), _spread(measure["b"], steps), ratio, p)
    return table


def _spread(side: dict[str, Any], steps: bool) -> str:
    """Steps are whole, and only the middle of two of them is not."""
    said = (lambda value: f"{value:g}") if steps else number
    if side["n"] == 1:
        return said(side["median"])
    lines = [said(side["median"]), f"{said(side['low'])}–{said(side['high'])}"]
    if side["quartiles"]:
        lines.append("IQR {}–{}".format(*map(said, side["quartiles"])))
    return "\n".join(lines)

"""Measure it all, side by side in one run, and write docs/benchmarks.md, .json and images/benchmarks.svg.

make bench                         all of it, a quarter of an hour
make bench ARGS="--only lstm"      less of it: --shapes 0,3  --contenders ledger,torch  --sections races,growth
make bench-quick                   small sizes, under two minutes
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import figure, machine
from benchmarks.children import ROOT, cores
from benchmarks.contenders import RACE
from benchmarks.derive import rows
from benchmarks.page import page
from benchmarks.problem import CELLS
from benchmarks.program import DRY, FULL, QUICK, SECTIONS, Program, tasks
from benchmarks.progress import Progress

DOCS = ROOT / "docs"
PICTURE = "images/benchmarks.svg"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; write into docs/ if nothing was left out, or where --out says."""
    options = parser().parse_args(arguments)
    if options.render:
        results = json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))
    else:
        results = measure(program(options), options.threads)
    print(json.dumps(results, indent=2) if options.json else page(results))
    folder = destination(options)
    if folder is not None:
        write(results, folder)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = found.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes, under two minutes")
    size.add_argument("--dry", action="store_true", help="once through everything, as tiny as can be")
    size.add_argument("--render", action="store_true", help="measure nothing: page and figure of docs/benchmarks.json")
    found.add_argument("--only", type=_names(CELLS), metavar="CELLS", help=f"of {','.join(CELLS)}")
    found.add_argument("--shapes", type=_numbers, metavar="NUMBERS", help="of the shapes, from 0")
    found.add_argument("--contenders", type=_names(RACE), metavar="NAMES", help=f"of {','.join(RACE)}")
    found.add_argument("--sections", type=_names(SECTIONS), metavar="NAMES", help=f"of {','.join(SECTIONS)}")
    found.add_argument("--rounds", type=int, help="how often each contender is timed")
    found.add_argument("--threads", type=int, default=cores(), help="for every contender; all cores by default")
    found.add_argument("--json", action="store_true", help="print the raw results, not the tables")
    found.add_argument("--no-write", action="store_true", help="only print")
    found.add_argument("--out", type=Path, metavar="FOLDER", help="write there")
    return found


def program(options: argparse.Namespace) -> Program:
    """Full, quick or dry, less what was left out."""
    chosen = QUICK if options.quick else DRY if options.dry else FULL
    if options.only:
        chosen = chosen._replace(cells=options.only)
    if options.shapes is not None:
        known = dict(enumerate(chosen.shapes))
        if not set(options.shapes) <= set(known):
            raise SystemExit(f"--shapes: {'; '.join(f'{number} is {shape}' for number, shape in known.items())}")
        chosen = chosen._replace(shapes=[known[number] for number in options.shapes])
    if options.contenders:
        chosen = chosen._replace(contenders=options.contenders)
    if options.sections:
        chosen = chosen._replace(sections=options.sections)
    if options.rounds:
        chosen = chosen._replace(pace=chosen.pace._replace(rounds=options.rounds))
    return chosen


def measure(program: Program, threads: int) -> dict[str, Any]:
    """The raw results: section → what its tasks found, in order."""
    settings = {"mode": program.mode, "rounds": program.pace.rounds, "seconds_each": program.pace.share}
    results: dict[str, Any] = {"machine": machine.describe(threads, cores()), "settings": settings}
    todo = tasks(program, threads)
    progress = Progress([task.seconds for task in todo])
    for task in todo:
        progress.begin(task.title)
        results.setdefault(task.section, []).extend(task.run(progress.note))
    progress.end()
    return rounded(results)


def rounded(value: Any) -> Any:
    """Five digits of every number: no clock here is better."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value


def destination(options: argparse.Namespace) -> Path | None:
    """docs/ for a whole run; a part of one would take the place of the whole."""
    partial = options.quick or options.dry or options.only or options.contenders or options.sections
    if options.no_write or (options.out is None and (partial or options.shapes is not None)):
        return None
    return options.out or DOCS


def write(results: dict[str, Any], folder: Path) -> None:
    (folder / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "benchmarks.json").write_text(text + "\n", encoding="utf-8")
    (folder / "benchmarks.md").write_text(page(results, PICTURE), encoding="utf-8")
    if results.get("races"):
        figure.save(rows(results["races"]), folder / PICTURE)


def _names(known: Any) -> Any:
    def names(text: str) -> tuple[str, ...]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return tuple(text.split(","))

    return names


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()

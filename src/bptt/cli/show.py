"""`bptt show`: a run or a ledger, as tables and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bptt.cli.output import out, print_json
from bptt.errors import DamagedFile, FileError

if TYPE_CHECKING:
    from bptt.ledger import Ledger


def show(source: str, /, *, parameter: str | None = None, plot: str | None = None, json: bool = False) -> int:
    """Show a ledger file, or a run: how its losses went, and its newest ledger.

    Example: bptt show runs/text-1 --plot reach.svg

    Parameters
    ----------
    source: str
        A ledger file (.safetensors) or a run folder.
    parameter: str
        The weight whose steps and map are shown; the recurrent weight of the last layer by default.
    plot: str
        Also write a picture (.svg, .png or .pdf); needs the extra "plot".
    json: bool
        Print one JSON document instead of tables.
    """
    path = Path(source)
    run = _run_info(path) if path.is_dir() else None
    ledger = None
    if run is None or run["ledgers"]:
        ledger, path = find_ledger(source)
    reach: dict[str, int] = {} if ledger is None else reach_of(ledger)
    name = None if ledger is None else ledger.name(parameter) if parameter else default_name(ledger, reach)
    if plot and ledger is not None and name is not None:  # first: what it refuses is said before anything is printed
        from bptt.report.figures import save_figure

        save_figure(ledger, name, plot, reach.get(name))
    if json:
        print_json({"run": run, "ledger": None if ledger is None else document(ledger, str(path), reach)})
        return 0
    screen = out()
    from bptt.report.ledger import ledger_report, run_report

    if run is not None:
        screen.print(run_report(run))
    if ledger is not None and name is not None:
        screen.print(f"\n{path}", style="bold", markup=False)
        screen.print(ledger_report(ledger, name, reach, screen.width))
    if plot:
        done = "no picture: this run has no ledger" if ledger is None else f"picture written to {plot}"
        screen.print(done, markup=False)
    return 0


def find_ledger(source: str) -> "tuple[Ledger, Path]":
    """The ledger of a file, or the newest one of a run folder, and its path."""
    from bptt.ledger import Ledger

    path = Path(source)
    if path.is_dir():
        ledgers = sorted((path / "ledgers").glob("*.safetensors"))
        if not ledgers:
            do = "Train with --probe-every, or name a ledger file."
            raise FileError(f"{path}", got="a folder without ledgers", expected="a run folder", do=do)
        path = ledgers[-1]
    return Ledger.load(path), path


def default_name(ledger: "Ledger", reach: dict[str, int]) -> str:
    """The recurrent weight of the last layer, as we or PyTorch call it; else the matrix used most, reached furthest."""
    ends = [(name, name.rpartition(".")[2]) for name in ledger.names if not ledger.place(name).reverse]
    recurrent = [name for name, end in ends if end.startswith(("W_hh", "weight_hh"))]
    if recurrent:
        return recurrent[-1]
    return max(ledger.names, key=lambda n: (ledger.gradients[n].ndim > 1, ledger.steps(n), reach.get(n, 0)))


def reach_of(ledger: "Ledger") -> dict[str, int]:
    """Horizon of each recurrent parameter: as the run's probe noted it, or from the contributions where kept."""
    from bptt.diagnose import horizon

    if "horizon" in ledger.meta:
        noted: dict[str, int | None] = ledger.meta["horizon"]
        return {name: steps for name, steps in noted.items() if steps is not None}
    plan = ledger.meta.get("plan", "Full()")
    if not plan.startswith(("Full", "Checkpointed", "autograd")):
        return {}
    by_hand = plan.startswith("autograd") and not ledger.states  # a loop of somebody's own, whose state has no name
    reaching = [n for n in ledger.loss_uses if (ledger.place(n).state or by_hand) and ledger.has_lags(n)]
    return {name: horizon(ledger, name) for name in reaching}


def _run_info(path: Path) -> dict[str, Any]:
    """What `run_report` shows of a run folder: its settings, and what was seen every so many iterations."""
    import msgspec

    from bptt.train.folder import read_config
    from bptt.train.metrics import read_metrics

    settings = msgspec.to_builtins(read_config(path))
    rows: dict[int, dict[str, Any]] = {}
    for event in read_metrics(path):
        if not {"kind", "iteration"} <= event.keys():
            raise DamagedFile(f"{path / 'metrics.jsonl'}", got="a line without kind or iteration", expected="events")
        row = rows.setdefault(event["iteration"], {"iteration": event["iteration"]})
        if event["kind"] == "train":
            row["train"] = event["loss"]
        elif event["kind"] == "validation":
            row["validation"] = event["loss"]
        elif event["kind"] == "probe":
            row["horizon"] = {name: steps for name, steps in event.get("horizon", {}).items() if steps is not None}
    return {
        "title": str(path),
        "settings": {key: value for key, value in settings.items() if value not in (None, {}, False)},
        "rows": [row for row in rows.values() if "validation" in row or "horizon" in row],
        "ledgers": sorted(str(found) for found in (path / "ledgers").glob("*.safetensors")),
    }


def document(ledger: "Ledger", path: str, reach: dict[str, int]) -> dict[str, Any]:
    """A ledger as JSON has it."""
    from bptt.ledger.export import by_position

    return {
        "path": path,
        "meta": ledger.meta,
        "loss": ledger.loss,
        "losses": ledger.losses,
        "residual": ledger.residual,
        "horizon": reach,
        "parameters": {
            name: {
                "norms": ledger.norms(name),
                "coherence": ledger.coherence(name),
                **({"shares": ledger.shares(name)} if (name in ledger.uses or name in ledger.step_shares) else {}),
                **({"map": ledger.maps[name]} if name in ledger.maps else {}),
            }
            for name in ledger.names
        },
        "layers": {key[:-1]: by_position(ledger, key) for key in ledger.states},
    }

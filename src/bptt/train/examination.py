"""A run, or one of its checkpoints, examined: the network as it was saved, on the data that it would have seen next.

Nothing is written and nothing is locked, so that a run can be examined while it trains.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.remedies import only_fitting
from bptt.engine import choose_engine
from bptt.errors import BpttError, FileError, InputError, MissingExtra
from bptt.model import Batch, States
from bptt.train.config import Config
from bptt.train.history import Past, carries, effective_plan, newest_ledger, read_history
from bptt.train.problem import Problem, open_problem, settings_of
from bptt.train.saved import Checkpoint, load_model
from bptt.typing import Array
from bptt.version import VERSION

SEQUENCES = 32  # of the batch that is examined, at most
ENTRIES = 200 * SEQUENCES  # steps times sequences, about: of longer sequences fewer are taken
STEPS = 200  # of a stream, about: several windows, so that what the cut between them costs can be seen
LONGEST = 512  # steps up to which a second window is added


class Saved(NamedTuple):
    """checkpoint: as saved.  home: the run folder it belongs to, None for a lone file.

    until: the iteration after which its history is left out; None for a run, to which all of it belongs.
    """

    checkpoint: Checkpoint
    home: Path | None
    until: int | None


class Drawn(NamedTuple):
    """batch: B sequences.  states: that came before it, None for the initial ones."""

    batch: Batch
    states: States | None


def examine(
    path: str | Path, *, batch: int | None = None, samples: int = 32, seed: int = 0,
    select: Iterable[str] | None = None, ignore: Iterable[str] | None = None,
    thresholds: Mapping[str, float] | None = None, engine: str | None = None, quick: bool = False,
    progress: Callable[[str], None] | None = None, command: str | None = None,
) -> Diagnosis:  # fmt: skip
    """Examine a run folder (its newest intact checkpoint) or one checkpoint file.

    The batch is what the training would have seen next: of a task a fresh one from the generator as it was saved, of
    a text or series the next windows of up to `batch` tracks, with the state that was carried to them. Several windows
    are walked as one sequence, so that what the cut at a window's edge costs can be seen. Where the data is gone, or is
    no longer what the run was trained on, the newest ledger of the run is examined in its place, and a note says so.

    Args:
        path: of a run folder or a checkpoint.
        batch: most sequences B, and no more than the training had; None for 32, or fewer of more than 200 steps.
        samples, seed, select, ignore, thresholds, quick, progress: as `bptt.diagnose`.
        engine: "auto", "reference" or "compiled"; None for that of the run.
        command: that reproduces it, for the facts.

    Returns:
        The diagnosis, with the history of the run.

    Raises:
        FileError, DamagedFile: no run, no intact checkpoint; or the data is gone and there is no ledger either.
        InputError, UnknownName: an option that cannot be used.
    """
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1):
        raise InputError("batch", got=batch, expected="a whole number of sequences, at least 1")
    began = time.perf_counter()
    if progress is not None:
        progress("reading the run")
    saved = open_saved(path)
    problem, gone = _problem(saved.checkpoint)
    past = _past(saved, None if problem is None else next(iter(problem.baselines.values()), None))
    notes = list(past.notes) if past is not None else []
    options: dict[str, Any] = {
        "select": select, "ignore": ignore, "thresholds": thresholds, "samples": samples, "seed": seed,
        "source": str(path), "history": None if past is None else past.history, "quick": quick, "progress": progress,
        "plan": effective_plan(saved.checkpoint.config),
        "facts": facts(saved.checkpoint, problem, command or f"bptt check {path}"),
    }  # fmt: skip
    if problem is None:
        found = _of_ledger(saved, path, gone, options)
        notes.insert(0, gone)
    else:
        name, note = _engine(saved.checkpoint, engine)
        notes += note
        found = _of_network(saved.checkpoint, problem, batch, options | {"engine": name})
    return dataclasses.replace(found, notes=[*notes, *found.notes], seconds=time.perf_counter() - began)


def open_saved(path: str | Path) -> Saved:
    """The newest intact checkpoint of a run folder, or a checkpoint file, and the run that it belongs to.

    Raises:
        FileError: neither.  DamagedFile: no checkpoint is intact.
    """
    path = Path(path)
    if path.is_dir():
        try:
            return Saved(load_model(path), path, None)
        except FileError as error:  # of a run that trains, the file may have gone since the folder was listed
            if "no such file" not in str(error):
                raise
            return Saved(load_model(path), path, None)
    checkpoint = Checkpoint.load(path)
    home = path.absolute().parent.parent
    lone = path.absolute().parent.name != "checkpoints" or not (home / "metrics.jsonl").is_file()
    return Saved(checkpoint, None if lone else home, checkpoint.iteration)


def draw(problem: Problem, checkpoint: Checkpoint, most: int | None = None) -> Drawn:
    """What the training would see next, cut to at most so many sequences; neither data nor checkpoint is changed."""
    config, at = checkpoint.config, checkpoint.iteration
    if problem.train is None:
        rng = np.random.default_rng()
        rng.bit_generator.state = checkpoint.rng
        return Drawn(_sequences(problem.batch(at, rng, config.batch), most), None)
    wanted = _windows(config.steps)
    left = len(problem.train) - at % len(problem.train)
    if left < min(2, wanted, len(problem.train)):  # one window says nothing of the cut behind it: go to the beginning
        at, left = at + left, len(problem.train)
    windows = [problem.train.window(at + i) for i in range(min(wanted, left))]
    joined = Batch(*(np.concatenate([getattr(w, part) for w in windows]) for part in ("x", "targets")))
    batch = _sequences(joined, most)
    fresh = checkpoint.states is None or problem.starts_over(at)
    return Drawn(batch, None if fresh else _first(checkpoint.states, batch.x.shape[1]))


def facts(checkpoint: Checkpoint, problem: Problem | None, command: str) -> dict[str, Any]:
    """What a reader wants to know of the examined network before any number."""
    config = checkpoint.config
    name = _data_name(config) if problem is None else problem.name
    plan = f"{config.plan}, in windows of {config.steps} steps" if carries(config) else config.plan
    return {
        "network": checkpoint.network.describe(),
        "data": name,
        "iteration": checkpoint.iteration,
        "plan": plan,
        "dtype": config.dtype,
        "version": VERSION,
        "command": command,
    }


def _windows(steps: int) -> int:
    """How many windows of a stream are walked as one sequence.

    >>> [_windows(steps) for steps in (1, 32, 64, 256, 300)]
    [200, 6, 3, 2, 1]
    """
    return max(1, min(max(2, STEPS // steps), LONGEST // steps))


def _sequences(batch: Batch, B: int | None) -> Batch:
    """The first B of them; None for as many as are examined soon enough."""
    B = max(1, min(SEQUENCES, ENTRIES // len(batch.x))) if B is None else B

    def cut(values: Array | None) -> Array | None:
        return None if values is None else values[:, :B]

    lengths = None if batch.lengths is None else batch.lengths[:B]
    return Batch(batch.x[:, :B], batch.targets[:, :B], lengths, cut(batch.mask))


def _first(states: States | None, B: int) -> States | None:
    return states and {prefix: type(state)(*(part[:B] for part in state)) for prefix, state in states.items()}


def _problem(checkpoint: Checkpoint) -> tuple[Problem | None, str]:
    """The data, or None and why there is none."""
    config = checkpoint.config
    try:
        problem = open_problem(config)
    except BpttError as error:
        return None, f"the data cannot be read, so the newest ledger was examined and not the network ({error})"
    if problem.digest == checkpoint.digest:
        return problem, ""
    name = _data_name(config)
    differs = f"the data, {name}, is not what this run was trained on"
    return None, f"{differs}, so the newest ledger was examined and not the network"


def _data_name(config: Config) -> str:
    return "the text that Python ships" if config.data is None else Path(config.data).name


def _past(saved: Saved, baseline: float | None) -> Past | None:
    if saved.home is None:
        return None
    return read_history(saved.home, saved.checkpoint.config, until=saved.until, baseline=baseline)


def _engine(checkpoint: Checkpoint, asked: str | None) -> tuple[str, list[str]]:
    """The engine: as asked, else that of the run, else the reference where that one is not installed."""
    network = checkpoint.network
    if asked is not None:
        return choose_engine(asked, network.dtype, network.cell), []
    try:
        return choose_engine(checkpoint.config.engine, network.dtype, network.cell), []
    except MissingExtra:
        return "reference", ["the run was trained by the compiled engine, which is not installed: the reference ran"]


def _of_network(checkpoint: Checkpoint, problem: Problem, most: int | None, options: dict[str, Any]) -> Diagnosis:
    from bptt import diagnose as room

    batch, states = draw(problem, checkpoint, most)
    T, B = batch.x.shape[:2]
    loss = problem.loss
    said = options["facts"] | {
        "loss": f"{loss.kind}, {loss.reduction}, {loss.steps} steps", "T": T, "B": B, "engine": options["engine"]
    }  # fmt: skip
    found = room.diagnose(checkpoint.network, batch, loss, states=states, **options | {"facts": said})
    settings = settings_of(checkpoint.config, problem)
    return dataclasses.replace(found, findings=only_fitting(settings, found))


def _of_ledger(saved: Saved, path: str | Path, gone: str, options: dict[str, Any]) -> Diagnosis:
    """The newest ledger of the run. FileError where it has none."""
    from bptt import diagnose as room

    ledger = None if saved.home is None else newest_ledger(saved.home, saved.until)
    if ledger is None:
        name = _data_name(saved.checkpoint.config)
        got = f"a {'run' if saved.home else 'checkpoint'} whose data, {name}, is gone or changed, and no ledger"
        raise FileError(f"{path}", got=got, expected="the data that it was trained on", do="Restore the file.")
    meta = ledger.meta
    taken = {key: meta[key] for key in ("network", "loss", "T", "B", "dtype", "engine", "iteration") if key in meta}
    return room.diagnose(ledger, **options | {"facts": options["facts"] | taken})

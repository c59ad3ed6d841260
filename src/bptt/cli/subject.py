"""Whatever a user names, examined: a run, a checkpoint, a ledger, a factory, a file of weights.

PyTorch is neither imported nor needed for the first three.
"""

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bptt.errors import InputError, unknown
from bptt.storage import format_of

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis
    from bptt.ledger import Ledger

OF_MODELS, OF_RUNS = ("auto", "compiled", "torch"), ("auto", "reference", "compiled")
EXPECTED = (
    "a run folder, a checkpoint or ledger of bptt, module:factory, file.py:factory, or weights in .safetensors or .pt"
)


class Options(NamedTuple):
    """What can be said beside a source; see `bptt.diagnose` and `bptt check --help`."""

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    thresholds: Mapping[str, float] | None = None
    samples: int = 32
    seed: int = 0
    engine: str | None = None
    kind: str | None = None
    layer: str | None = None
    data: str | None = None
    map: bool | None = None


class Subject(NamedTuple):
    """A source and what was found.

    diagnosis: its ledger without the contributions, which are large.  reach: parameter → horizon.
    probe: what was made up to examine it.  left_out: arrays of a file that were not used.  note: why there is no map.
    trained: a run or a checkpoint, which can be trained on.
    """

    diagnosis: "Diagnosis"
    reach: dict[str, int]
    probe: str = ""
    left_out: tuple[str, ...] = ()
    note: str = ""
    trained: bool = False


def examined(source: str, *, progress: Callable[[str], None] | None = None, **options: Any) -> "Diagnosis":
    """The diagnosis of whatever a user names.

    Args:
        source: a run folder; a checkpoint or ledger of ours; module:factory or file.py:factory; a file of weights.
        progress: called with the name of each measurement as it begins.
        options: fields of `Options`.

    Raises:
        BpttError: one line for everything that cannot be examined.
    """
    return subject(source, Options(**options), progress).diagnosis


def subject(source: str, options: Options, progress: Callable[[str], None] | None = None) -> Subject:
    """`examined`, with what else was found on the way."""
    path = Path(source)
    if trainable(source):
        return _of_run(source, options, progress)
    if format_of(path) == "bptt.ledger":
        return _of_ledger(source, options, progress)
    from bptt.trace import SUFFIXES, room

    weights = path.suffix in SUFFIXES and (path.exists() or ":" not in source)
    if not weights:
        _refuse(source, options, "a file of weights", "kind", "layer", "data")
    if not weights and ":" not in source:
        raise InputError("what to check", got=repr(source), expected=EXPECTED)
    room("torch")  # or what to install
    return _of_model(source, options, weights, progress)


def trainable(source: str) -> bool:
    """Whether it is a run folder or a checkpoint, as far as its kind says."""
    return Path(source).is_dir() or format_of(Path(source)) == "bptt.checkpoint"


def command_of(source: str, options: Options) -> str:
    """The command that gives the same diagnosis again.

    >>> command_of("runs/my run", Options(seed=3, select=("BP1",), thresholds={"slope": 0.1}))
    "bptt check 'runs/my run' --select BP1 --threshold slope=0.1 --seed 3"
    """
    parts = ["bptt", "check", source]
    for name, value in options._asdict().items():
        if value is None or value == Options._field_defaults[name]:
            continue
        if name == "thresholds":
            parts += [word for key, limit in value.items() for word in ("--threshold", f"{key}={limit:g}")]
        elif name == "map":
            parts.append("--map" if value else "--no-map")
        else:
            parts += [f"--{name}", ",".join(value) if isinstance(value, tuple) else str(value)]
    return shlex.join(parts)


# ---- each kind of source ---------------------------------------------------------------------------------------------


def _of_run(source: str, options: Options, progress: Callable[[str], None] | None) -> Subject:
    from bptt.train import examine

    _refuse(source, options, "a file of weights", "kind", "layer", "data")
    _check_engine(options.engine, OF_RUNS)
    command = command_of(source, options)
    found = examine(source, engine=options.engine, command=command, progress=progress, **_asked(options))
    return _finished(found, trained=True)


def _of_ledger(source: str, options: Options, progress: Callable[[str], None] | None) -> Subject:
    from bptt.ledger import Ledger

    _refuse(source, options, "a file of weights", "kind", "layer", "data")
    _refuse(source, options, "a model or a run", "engine")
    ledger = Ledger.load(source)
    return _finished(_diagnosed(ledger, source, options, progress))


def _of_model(source: str, options: Options, weights: bool, progress: Callable[[str], None] | None) -> Subject:
    from bptt.trace.torch.factory import load
    from bptt.trace.torch.one_step import one_step
    from bptt.trace.torch.weights import from_file

    _check_engine(options.engine, OF_MODELS)
    if progress is not None:
        progress("one traced step")
    probe, left_out = "", ()
    if weights:
        data = None if options.data is None else Path(options.data)
        given, probe, names = from_file(Path(source), kind=options.kind, layer=options.layer, data=data)
        left_out = tuple(names)
    else:
        given = load(source)
    with np.errstate(all="ignore"):  # what is not finite is a verdict
        found = one_step(given, source, map=options.map, engine=options.engine or "auto")
    if probe:
        found.ledger.meta["loss"] = probe
    made = {"probe": probe} if probe else {}
    diagnosis = _diagnosed(found.ledger, source, options, progress, made)
    more = [f"left out: {_some(left_out)}"] if left_out else []
    diagnosis = dataclasses.replace(diagnosis, notes=[*diagnosis.notes, *more, *([found.note] if found.note else [])])
    return _finished(diagnosis)._replace(probe=probe, left_out=left_out, note=found.note)


def _diagnosed(
    ledger: "Ledger", source: str, options: Options, progress: Callable[[str], None] | None,
    made: Mapping[str, Any] | None = None,
) -> "Diagnosis":  # fmt: skip
    from bptt import diagnose as room

    facts = {"command": command_of(source, options), **(made or {})}
    facts |= {"iteration": ledger.meta["iteration"]} if "iteration" in ledger.meta else {}
    return room.diagnose(ledger, source=source, facts=facts, progress=progress, **_asked(options))


def _finished(diagnosis: "Diagnosis", trained: bool = False) -> Subject:
    """With the horizon noted in the ledger, and without the contributions."""
    ledger, reach = diagnosis.ledger, reach_of(diagnosis)
    if ledger is not None and (ledger.loss_uses or reach):
        meta = ledger.meta | ({"horizon": reach} if reach else {})
        changes: dict[str, Any] = {"meta": meta}
        if ledger.loss_uses:
            with np.errstate(all="ignore"):
                residuals = dict(ledger.residuals)
            meta |= {"keep": "factors", "horizon": reach}
            changes = {"meta": meta, "loss_uses": {}, "recorded_residuals": residuals}
        diagnosis = dataclasses.replace(diagnosis, ledger=dataclasses.replace(ledger, **changes))
    return Subject(diagnosis, reach, trained=trained)


def reach_of(diagnosis: "Diagnosis") -> dict[str, int]:
    """Parameter → horizon in steps, as the windowed truncation says, else as the ledger noted it."""
    from bptt.cli.show import reach_of as of_ledger

    if diagnosis.ledger is not None and not finite(diagnosis.ledger):
        return {}
    sampled = {
        name: found.horizon().steps
        for name, schemes in diagnosis.truncation.items() for found in schemes if found.scheme == "windowed"
    }  # fmt: skip
    return sampled or ({} if diagnosis.ledger is None else of_ledger(diagnosis.ledger))


def finite(ledger: "Ledger") -> bool:
    """Whether every gradient is made of numbers."""
    return all(bool(np.isfinite(dW).all()) for dW in ledger.gradients.values())


def _asked(options: Options) -> dict[str, Any]:
    names: Iterable[str] = ("select", "ignore", "thresholds", "samples", "seed")
    return {name: getattr(options, name) for name in names}


def _refuse(source: str, options: Options, beside: str, *names: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise InputError(f"--{name}", got=f"it beside {source}", expected=f"it beside {beside} only")


def _check_engine(engine: str | None, known: tuple[str, ...]) -> None:
    if engine is not None and engine not in known:
        raise unknown("--engine", engine, known)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more

"""What `compare` compares: runs or ledgers, found by name, and the numbers that each of them ended with."""

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bptt.diagnose import horizon
from bptt.errors import BusyError, DamagedFile, FileError, InputError, NotKeptError
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.train.folder import read_config
from bptt.train.metrics import read_metrics
from bptt.train.saved import load_model

Names = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Subject:
    """One run or one ledger.

    path: of it.  kind: "run" or "ledger".  seed: of a run, None of a ledger.
    settings: what made it, name → value.  data: what tells its data from others, as one string.
    numbers: measure → value, of its end.
    """

    path: str
    kind: str
    seed: int | None
    settings: dict[str, Any]
    data: str
    numbers: dict[str, float]


def find(names: Names) -> list[Subject]:
    """The runs and ledgers of one side: folders of a run, folders of such folders, ledger files, globs, with commas.

    Raises:
        FileError: nothing of that kind is there, or it cannot be read.  InputError: runs beside ledgers, or one twice.
        BusyError: a run that is being trained.
    """
    pieces = _pieces(names)
    paths = [path for piece in pieces for path in _paths(piece)]
    places = [path.resolve() for path in paths]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise InputError(f"{paths[i]}", got="it twice", expected="every run once")
    subjects = [_run(path) if path.is_dir() else _ledger(path) for path in paths]
    kinds = {one.kind for one in subjects}
    if len(kinds) > 1:
        raise InputError(", ".join(pieces), got="runs and ledgers together", expected="one or the other")
    return subjects


def _pieces(names: Names) -> list[str]:
    given = [names] if isinstance(names, str | Path) else list(names)
    out = []
    for name in map(str, given):
        parts = [name] if Path(name).exists() else [part.strip() for part in name.split(",")]
        out += [part for part in parts if part]
    if not out:
        raise InputError("what to compare", got="nothing", expected="a run folder or a ledger file")
    return out


def _paths(piece: str) -> list[Path]:
    path = Path(piece)
    if not path.exists() and any(sign in piece for sign in "*?["):
        fits = sorted(Path(found) for found in glob.glob(piece))
        fits = [found for found in fits if found.suffix == ".safetensors" or (found / "config.json").is_file()]
        if not fits:
            raise FileError(f"{piece}", got="no run folder and no ledger file that fits", expected="at least one")
        return fits
    if path.is_file() or (path / "config.json").is_file():
        return [path]
    if not path.exists():
        raise FileError(f"{piece}", got="no such file or folder", expected="a run folder or a ledger file")
    inside = sorted(found.parent for found in path.glob("*/config.json"))
    if not inside:
        raise FileError(f"{piece}", got="no run (no config.json)", expected="a run folder, or a folder of such")
    return inside


# ---- a run -------------------------------------------------------------------------------------------------------


def _run(path: Path) -> Subject:
    _refuse_busy(path)
    config = read_config(path)
    events = read_metrics(path)
    last = max((event.get("iteration", 0) for event in events), default=0)
    end = next((event for event in reversed(events) if event.get("kind") == "end"), None)
    if end is None or end.get("iteration") != last:
        got = f"a run that has not ended (iteration {last} of {config.iterations})"
        raise InputError(f"{path}", got=got, do=f"Go on with it: bptt train --resume {path}")
    if not isinstance(end.get("validation"), int | float):
        raise DamagedFile(f"{path / 'metrics.jsonl'}", got="an end without a validation loss", expected="one")
    probe = next((event for event in reversed(events) if event.get("kind") == "probe"), {})
    numbers = {"validation loss": end["validation"], "validation score": end.get("score")} | _of_probe(probe)
    known = {name: float(value) for name, value in numbers.items() if value is not None and np.isfinite(value)}
    settings = msgspec.to_builtins(config)
    settings["iterations"] = last
    return Subject(str(path), "run", int(settings.pop("seed")), settings, _data(path, settings), known)


def _refuse_busy(path: Path) -> None:
    """A run whose lock is held is still being trained: its last numbers are not its last."""
    try:
        import fcntl

        with (path / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"{path}", got="a run that is being trained", do="Wait until it ends.") from None
    except (ImportError, OSError):  # no such lock on this system, or none was ever taken
        return


def _of_probe(probe: dict[str, Any]) -> dict[str, float | None]:
    norms = probe.get("gradient_norms", {})
    numbers: dict[str, float | None] = {}
    numbers |= {f"horizon {name}": steps for name, steps in probe.get("horizon", {}).items()}
    numbers |= {f"state gain {name}": gain for name, gain in probe.get("state_gain", {}).items()}
    numbers |= {f"decay per lag {name}": left for name, left in probe.get("decay_per_lag", {}).items()}
    numbers |= {f"coherence {n}": value for n, value in probe.get("coherence", {}).items() if n.endswith("W_hh")}
    numbers |= {"gradient norm": float(np.sqrt(sum(value**2 for value in norms.values())))} if norms else {}
    return numbers | {"residual": probe.get("residual")}


def _data(path: Path, settings: dict[str, Any]) -> str:
    """Digest of the data where a checkpoint has it, and which part of it is held out."""
    held_out = "" if settings["kind"] == "task" else f", {settings['validation']} held out, {settings['steps']} steps"
    try:
        return load_model(path).digest + held_out
    except FileError:
        return f"{settings['kind']} {settings['data']} {settings['unit']} {settings['columns']}{held_out}"


# ---- a ledger ----------------------------------------------------------------------------------------------------


def _ledger(path: Path) -> Subject:
    ledger = Ledger.load(path)
    numbers: dict[str, float] = {"loss": ledger.loss}
    recurrent = [name for name in ledger.names if name.rpartition(".")[2].startswith(("W_hh", "weight_hh"))]
    for name in recurrent or ledger.names:
        reach = _horizon(ledger, name)
        numbers |= {} if reach is None else {f"horizon {name}": float(reach)}
    numbers |= {f"state gain {key.rstrip('.')}": _gain(ledger, key) for key in ledger.states}
    for name, left in (ledger.meta.get("decay_per_lag") or {}).items():
        numbers |= {} if left is None else {f"decay per lag {name}": float(left)}
    numbers |= {f"coherence {name}": ledger.coherence(name) for name in recurrent or ledger.names}
    numbers["gradient norm"] = float(np.sqrt(sum(norm(dW) ** 2 for dW in ledger.gradients.values())))
    numbers |= {"residual": float(ledger.residual)} if ledger.residuals else {}
    settings = {key: ledger.meta.get(key) for key in ("source", "network", "engine", "dtype", "gradient", "plan")}
    data = f"{ledger.T} steps, {ledger.meta.get('B', '?')} sequences, {ledger.meta.get('loss', 'a loss')}"
    finite = {name: value for name, value in numbers.items() if np.isfinite(value)}
    return Subject(str(path), "ledger", None, settings, data, finite)


def _horizon(ledger: Ledger, name: str) -> int | None:
    """As the run's probe noted it, else from the contributions where they were kept."""
    noted = ledger.meta.get("horizon") or {}
    if name in noted:
        return noted[name]
    try:
        return horizon(ledger, name)
    except (NotKeptError, InputError):
        return None


def _gain(ledger: Ledger, key: str) -> float:
    """Geometric mean of ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖ over the steps that have digits; 0 where nothing comes back."""
    gains = np.asarray(ledger.gains(key), float)
    gains = gains[gains > 0]
    return float(np.exp(np.log(gains).mean())) if len(gains) else 0.0

"""What a run says of itself over its iterations: read from its configuration, its events and its ledgers, for people
and for the diagnosis. Nothing is written, so that a run can be read while it trains.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt.diagnose.history import History
from bptt.engine import Chunked, Windowed, parse_plan
from bptt.errors import BpttError, FileError
from bptt.ledger import Ledger
from bptt.ledger.lags import LagProfile
from bptt.train.config import Config
from bptt.train.metrics import read_metrics
from bptt.typing import Array

LEDGERS = 40  # of a run, at most so many are opened, evenly spread
Events = list[dict[str, Any]]


class Past(NamedTuple):
    """history: of a run.  notes: what of it could not be read, a clause each."""

    history: History
    notes: list[str]


def read_history(
    folder: str | Path, config: Config, *, until: int | None = None, baseline: float | None = None
) -> Past:
    """A run over its iterations; what is damaged or missing is left out and noted.

    Args:
        folder: of the run.
        config: of the run.
        until: leave out what came after this iteration; None for nothing.
        baseline: what a guess costs, where the data says so.
    """
    events, notes = _events(Path(folder), until)
    ledgers, damaged = _ledgers(Path(folder), until)
    if damaged:
        notes.append(f"{damaged[0]} could not be read" + (f", nor {len(damaged) - 1} more" if damaged[1:] else ""))
    train = [e for e in _of(events, "train") if _finite(e.get("loss"), e.get("gradient_norm"))]
    lags, profiles = _profiles([ledger for _, ledger in ledgers])
    history = History(
        train=_columns(train, "iteration", "loss"),
        validation=_columns([e for e in _of(events, "validation") if _finite(e.get("loss"))], "iteration", "loss"),
        norms=np.array([e["gradient_norm"] for e in train], float),
        clipped=np.array([bool(e.get("clipped")) for e in train], bool),
        clip_norm=config.clip_norm or None,
        plan=effective_plan(config),
        probes=np.array([iteration for iteration, _ in ledgers], int),
        lags=lags,
        profiles=profiles,
        horizons=_horizons(_of(events, "probe")),
        exponents=_exponents(_of(events, "jacobian")),
        updates=_updates(_of(events, "update")),
        carries=carries(config),
        baseline=baseline,
    )
    return Past(history, notes)


def carries(config: Config) -> bool:
    """Whether the state is carried from one batch to the next: of text and series, not of tasks.

    >>> carries(Config()), carries(Config(kind="task", data="adding:100", steps=100))
    (True, False)
    """
    return config.kind != "task"


def effective_plan(config: Config) -> str:
    """How far back the training really walks: a carried stream is also cut at every window's edge.

    >>> effective_plan(Config(steps=64)), effective_plan(Config(steps=64, plan="windowed:20"))
    ('chunked:64', 'windowed:20')
    >>> effective_plan(Config(kind="task", data="adding:100", steps=100))
    'full'
    """
    plan = parse_plan(config.plan)
    if not carries(config) or (isinstance(plan, Chunked | Windowed) and config.steps >= plan.K):
        return config.plan
    return f"chunked:{config.steps}"


def newest_ledger(folder: str | Path, until: int | None = None) -> Ledger | None:
    """The newest ledger of a run that is intact, None where there is none."""
    for _, path in reversed(_ledger_files(Path(folder), until)):
        try:
            return Ledger.load(path)
        except FileError:
            continue
    return None


# ---- events ----------------------------------------------------------------------------------------------------------


def _events(folder: Path, until: int | None) -> tuple[Events, list[str]]:
    try:
        found = read_metrics(folder)
    except BpttError as error:
        return [], [f"no history: {error}"]
    whole = [e for e in found if isinstance(e, dict) and isinstance(e.get("iteration"), int) and "kind" in e]
    notes = ["metrics.jsonl has lines without kind or iteration"] if len(whole) < len(found) else []
    return [e for e in whole if until is None or e["iteration"] <= until], notes


def _of(events: Events, kind: str) -> Events:
    return [event for event in events if event["kind"] == kind]


def _finite(*values: Any) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _columns(events: Events, *names: str) -> Array:
    return np.array([[event[name] for name in names] for event in events], float).reshape(-1, len(names))


def _horizons(probes: Events) -> dict[str, Array]:
    out: dict[str, list[tuple[int, int]]] = {}
    for event in probes:
        for name, steps in (event.get("horizon") or {}).items():
            if _finite(steps):
                out.setdefault(name, []).append((event["iteration"], steps))
    return {name: np.array(rows, int) for name, rows in out.items()}


def _exponents(events: Events) -> Array | None:
    rows = [e for e in events if _finite(e.get("exponent"), e.get("error"))]
    return _columns(rows, "iteration", "exponent", "error") if rows else None


def _updates(events: Events) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for event in events:
        for name, facts in (event.get("parameters") or {}).items():
            out[name] = {"iteration": event["iteration"], **facts}
    return out


# ---- ledgers ---------------------------------------------------------------------------------------------------------


def _ledger_files(folder: Path, until: int | None) -> list[tuple[int, Path]]:
    """Iteration and file, in order of time."""
    found = []
    for path in (folder / "ledgers").glob("iteration-*.safetensors"):
        number = path.stem.removeprefix("iteration-")
        if number.isdigit() and (until is None or int(number) <= until):
            found.append((int(number), path))
    return sorted(found)


def _ledgers(folder: Path, until: int | None) -> tuple[list[tuple[int, Ledger]], list[str]]:
    """Iteration and ledger of up to LEDGERS files, and the names of those that cannot be read."""
    files = _ledger_files(folder, until)
    if len(files) > LEDGERS:
        files = [files[i] for i in np.linspace(0, len(files) - 1, LEDGERS).round().astype(int)]
    found, damaged = [], []
    for iteration, path in files:
        try:
            found.append((iteration, Ledger.load(path)))
        except FileError:
            damaged.append(path.name)
    return found, damaged


def _profiles(ledgers: list[Ledger]) -> tuple[Array, dict[str, Array]]:
    """All lags (L,), and of every parameter with a map Σ ‖C[k, t]‖ by lag, (p, L)."""
    tables = [dict(_lag_profiles(ledger)) for ledger in ledgers]
    seen = [profile.lags for table in tables for profile in table.values()]
    if not seen:
        return np.zeros(0, int), {}
    lags = np.arange(min(part[0] for part in seen), max(part[-1] for part in seen) + 1)
    names = list(dict.fromkeys(name for table in tables for name in table))
    profiles = {name: np.zeros((len(ledgers), len(lags))) for name in names}
    for row, table in enumerate(tables):
        for name, profile in table.items():
            profiles[name][row, profile.lags - lags[0]] = profile.values
    return lags, profiles


def _lag_profiles(ledger: Ledger) -> Iterable[tuple[str, LagProfile]]:
    for name in ledger.maps:
        if ledger.has_lags(name):
            yield name, ledger.lag_profile(name)

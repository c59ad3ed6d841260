"""Remedies tried: each on its own, trained from scratch beside the unchanged training, and measured in the same way.

Every training begins with the same seed, sees the same data and makes the same number of updates. Then all networks are
asked the same questions on the same batches: how far the gradient reaches, what one more step back leaves of it, and
the loss on the validation part. A remedy has helped if the gradient reaches further *and* the loss is lower, both by
more than chance would explain; otherwise the row says what it did not do.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bptt.diagnose import Diagnosis
from bptt.diagnose.remedies import Changes, find_remedy, propose
from bptt.errors import BpttError, NotFiniteError
from bptt.model import Network
from bptt.train.config import Config
from bptt.train.loop import fit
from bptt.train.measured import Measured, Measuring
from bptt.train.problem import open_problem, settings_of
from bptt.train.progress import TrialProgress

ITERATIONS = 1000  # of each training, where there is time for so many
SECONDS = 60.0  # that all trainings together may take by default
PACE = 12  # iterations by which the time is measured
LEAST, ROUND = 50, 50  # iterations


@dataclass(frozen=True)
class Trial:
    """One training.

    remedy: its name; "unchanged" of the one that the others are held against.  summary: what it does.
    changes: fields of the configuration, as they were changed.
    parameters: numbers that were learnt.  seconds: of the training.
    measured: what it came to; None where it was not trained to the end.
    diverged: the iteration at which a number was no longer finite; None otherwise.
    helped: whether it reaches further and has a lower loss; None of the unchanged one.
    words: the same in words.
    """

    remedy: str
    summary: str
    changes: Changes
    parameters: int = 0
    seconds: float = 0.0
    measured: Measured | None = None
    diverged: int | None = None
    helped: bool | None = None
    words: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All of it but the arrays."""
        plain = {key: value for key, value in self.__dict__.items() if key != "measured"}
        return plain | (Measured.nothing() if self.measured is None else self.measured.to_dict())


@dataclass(frozen=True)
class Trials:
    """All trainings.

    base: the unchanged one; None where there was no remedy to try.  rows: one for each remedy.
    iterations: of each.  seconds: of all.  baseline: what a guess costs.  T: steps that the reach is measured over.
    seed: of all.  interrupted: whether Ctrl-C ended it early; what was measured before is there.
    """

    base: Trial | None
    rows: list[Trial]
    iterations: int
    seconds: float
    baseline: float | None = None
    T: int = 0
    seed: int = 0
    interrupted: bool = False

    @property
    def helped(self) -> list[Trial]:
        """The rows that helped, the lowest loss first."""
        found = [row for row in self.rows if row.helped and row.measured is not None]
        return sorted(found, key=lambda row: row.measured.loss if row.measured is not None else np.inf)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        own = {key: getattr(self, key) for key in ("iterations", "seconds", "baseline", "T", "seed", "interrupted")}
        base = None if self.base is None else self.base.to_dict()
        return {"base": base, "rows": [row.to_dict() for row in self.rows], **own}


def try_remedies(
    config: Config, diagnosis: Diagnosis, *, iterations: int | None = None, remedies: list[str] | None = None,
    progress: Any = None,
) -> Trials:  # fmt: skip
    """Train the configuration as it is and once with each remedy, and measure all of them.

    Args:
        config: of the training that was diagnosed.
        diagnosis: whose findings name the remedies; at most 4 are tried, each finding's first before its second.
        iterations: of each training; None for 1000, or for as many as about a minute allows where that is fewer.
        remedies: names, to try these instead.
        progress: a rich `Console`; a bar with the time left where it is a terminal. None is silent.

    Raises:
        UnknownName: a remedy that there is not.  InputError: iterations below 1.
        DataError, FileError: the data is no longer there.

    >>> from bptt.diagnose import Diagnosis
    >>> from bptt.train import configure
    >>> trials = try_remedies(configure("adding:6", cell="rnn", hidden=4, batch=4), Diagnosis("a run", {}),
    ...                       iterations=3, remedies=["gated-cell"])
    >>> [trial.remedy for trial in (trials.base, *trials.rows)], trials.rows[0].changes["cell"]
    (['unchanged', 'gated-cell'], 'lstm')
    """
    began = time.perf_counter()
    quiet = {"probe_every": 0, "validate_every": 0, "sample_every": 0, "checkpoint_every": 0, "jacobian_every": 0}
    config = config.replace(**quiet, **({} if iterations is None else {"iterations": iterations}))
    problem = open_problem(config)
    proposed = propose(settings_of(config, problem), diagnosis, remedies)
    if not proposed:
        return Trials(None, [], 0, 0.0, seed=config.seed)
    with TrialProgress(progress) as bar:
        runs = [_Run("unchanged", "the training as it is", {}, config)]
        runs += [_Run(name, find_remedy(name).summary, changes, config) for name, changes in proposed.items()]
        for run in runs[1:]:
            run.look()
        count = iterations or _affordable(runs, bar)
        for run in runs:
            run.config = run.config.replace(iterations=count)
        bar.begin(len(runs) * count)
        measuring = Measuring(problem, config, max(run.config.steps for run in runs if not run.idle))
        trials = list(_train(runs, measuring, bar))
    if not trials:
        raise KeyboardInterrupt  # before there was anything to show
    base, seconds = trials[0], time.perf_counter() - began
    rows = [_judge(base, row, measuring) for row in trials[1:]]
    return Trials(
        base, rows, count, seconds, measuring.baseline, measuring.T, config.seed, len(trials) < len(runs)
    )  # fmt: skip


@dataclass
class _Run:
    """One training that is planned."""

    name: str
    summary: str
    changes: Changes
    base: Config
    config: Config = field(init=False)
    idle: str = ""

    def __post_init__(self):
        self.config = self.base.replace(**self.changes)

    def look(self) -> None:
        """Note in `idle` why there is nothing to train: nothing would change, or the data does not allow it."""
        if not self.changes:
            self.idle = f"not tried: it needs {find_remedy(self.name).needs}"
            return
        try:
            Config.__post_init__(self.config)
            open_problem(self.config)
        except BpttError as error:
            self.idle = f"not tried: {error}"

    def row(self, **facts: Any) -> Trial:
        return Trial(self.name, self.summary, self.changes, **facts)


def _affordable(runs: list[_Run], bar: TrialProgress) -> int:
    """Iterations of each training so that all of them take about a minute, at most 1000."""
    per_round = sum(_pace(run, bar) for run in runs if not run.idle)
    if per_round * ITERATIONS <= SECONDS:
        return ITERATIONS
    return max(LEAST, int(SECONDS / per_round) // ROUND * ROUND)


def _pace(run: _Run, bar: TrialProgress) -> float:
    """Seconds of one iteration; 0 where it diverges at once, which its row will say."""
    bar.about(f"timing {run.name}")
    ticks: list[float] = []
    try:
        done = fit(run.config.replace(iterations=PACE, floss=0), each=lambda n: ticks.append(time.perf_counter()))
    except NotFiniteError:
        return 0.0
    if done.interrupted:
        raise KeyboardInterrupt
    return float(np.median(np.diff(ticks))) if len(ticks) > 1 else 0.0


def _train(runs: list[_Run], measuring: Measuring, bar: TrialProgress) -> Iterator[Trial]:
    """One row after the other; stops early at Ctrl-C."""
    for number, run in enumerate(runs):
        bar.about(run.name)
        if run.idle:
            yield run.row(helped=False, words=run.idle)
            continue
        done: list[int] = [0]
        began = time.perf_counter()

        def each(n: int, number: int = number, run: _Run = run, done: list[int] = done) -> None:
            done[0] = n
            bar.step(number * run.config.iterations + n)

        try:
            result = fit(run.config, each=each)
            if result.interrupted:
                return
            seconds = time.perf_counter() - began
            yield run.row(parameters=_size(result.network), seconds=seconds, measured=measuring.measure(result.network))
        except NotFiniteError:
            at = min(done[0] + 1, run.config.iterations)  # after the last, where it is measured
            yield run.row(
                diverged=at, helped=False, seconds=time.perf_counter() - began, words=f"diverged at iteration {at}"
            )  # fmt: skip


def _size(network: Network) -> int:
    return sum(value.size for value in network.params.values())


def _judge(base: Trial, row: Trial, measuring: Measuring) -> Trial:
    """The row with its verdict, held against the unchanged training."""
    if row.measured is None:
        return row
    now, before = row.measured, base.measured
    if before is None:
        learns = measuring.beats_a_guess(now)
        more = "" if learns else ", but its loss is no better than a guess"
        told = f"the unchanged training diverged, this one ended with loss {now.loss:.3g}{more}"
        return replace(row, helped=learns, words=("helped: " if learns else "did not help: ") + told)
    lower, longer = now.lower_than(before), measuring.longer(now, before)
    learns = measuring.beats_a_guess(now)
    helped = lower and longer and learns
    facts = f"loss {before.loss:.3g} → {now.loss:.3g}"
    if now.horizon is not None and before.horizon is not None:
        facts += f", reaches {before.horizon} → {now.horizon} of {measuring.T} steps"
    missing = [] if longer else ["no longer reach"]
    missing += [] if lower else ["loss not lower" if now.loss >= before.loss else "loss not clearly lower"]
    missing += ["no better than a guess"] if lower and not learns else []
    words = f"helped: {facts}" if helped else f"did not help ({', '.join(missing)}): {facts}"
    return replace(row, helped=helped, words=words)


__all__ = ["Trial", "Trials", "try_remedies"]

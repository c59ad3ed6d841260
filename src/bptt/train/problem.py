"""What a network learns from, as the loop sees it: a batch for every iteration, a validation part, and a baseline."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bptt.data import Stream, Text, make_task, read_series, read_text, split
from bptt.errors import InputError
from bptt.model import Batch, Loss
from bptt.train.config import Config
from bptt.typing import Array

TASK_VALIDATION = 200  # sequences
TAIL = 256  # rows of a series that are kept to start a forecast from


@dataclass(frozen=True, eq=False)
class Problem:
    """Data that a run learns from.

    name: for people.  inputs: D.  outputs: O.  loss: what is minimised.
    baselines: what a guess without the network costs, by the name of the guess; the first is the one to beat.
    train: windows that continue each other, None where every batch is fresh.  draw: makes a fresh one.
    validation: batches that are never trained on.  continues: whether each continues the one before.
    score: "accuracy", or None where the loss says it all.
    digest: of all the data, so that a resumed run is known to see the same.
    facts: what a checkpoint must hold to use the network without the data; arrays under "arrays".
    """

    name: str
    inputs: int
    outputs: int
    loss: Loss
    baselines: dict[str, float]
    train: Stream | None
    draw: Any
    validation: "Validation"
    score: str | None
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)

    def batch(self, position: int, rng: np.random.Generator, size: int) -> Batch:
        """The batch of an iteration, counted from 0."""
        return self.draw(rng, size) if self.train is None else self.train.window(position)

    def starts_over(self, position: int) -> bool:
        """Whether the recurrent state must be the initial one."""
        return self.train is None or self.train.starts_over(position)


@dataclass(frozen=True, eq=False)
class Validation:
    """The part that is never trained on: windows of a stream, or one batch of a task."""

    stream: Stream | None = None
    fixed: Batch | None = None

    def __len__(self) -> int:
        return 1 if self.stream is None else len(self.stream)

    def batch(self, i: int) -> Batch:
        """Batch i of `len`, each the continuation of the one before."""
        if self.stream is not None:
            return self.stream.window(i)
        assert self.fixed is not None
        return self.fixed


def open_problem(config: Config) -> Problem:
    """The data that a configuration names.

    Raises:
        FileError, DataError, UnknownName: as the readers in `bptt.data`.
    """
    return {"text": _text, "series": _series, "task": _task}[config.kind](config)


def _text(config: Config) -> Problem:
    text = read_text(config.data, unit=config.unit, max_vocabulary=config.max_vocabulary)
    size = len(text.vocabulary)
    train, validation = split(text.ids, config.validation, steps=config.steps)
    facts = {"unit": text.unit, "vocabulary": list(text.vocabulary)}
    name = f"{text.name}: {len(text):,} {'characters' if text.unit == 'char' else 'words'}, {size} different"
    baselines = {"unigram entropy": text.unigram_entropy}
    digest = _digest(text.ids, "\0".join(text.vocabulary))
    return Problem(
        name, size, size, Loss("cross_entropy"), baselines, Stream(train, batch=config.batch, steps=config.steps),
        None, _validation_windows(validation, config), None, digest, facts,
    )  # fmt: skip


def _series(config: Config) -> Problem:
    assert config.data is not None
    series = read_series(config.data, columns=chosen_columns(config))
    values, mean, std = series.standardised(1 - config.validation)
    train, validation = split(values, config.validation, steps=config.steps)
    D = values.shape[1]
    name = f"{series.name}: {len(values):,} rows of {D} column{'s' * (D > 1)}"
    baselines = {
        "variance": float(np.square(validation[1:]).mean()),
        "same as the step before": float(np.square(np.diff(validation, axis=0)).mean()),
    }
    facts = {"columns": list(series.columns), "arrays": {"mean": mean, "std": std, "tail": values[-TAIL:]}}
    return Problem(
        name, D, D, Loss("squared_error"), baselines, Stream(train, batch=config.batch, steps=config.steps),
        None, _validation_windows(validation, config), None, _digest(series.values, "\0".join(series.columns)), facts,
    )  # fmt: skip


def chosen_columns(config: Config) -> list[str] | None:
    """The columns of a series, by name or by number in words; None for all."""
    return None if config.columns is None else list(config.columns)


def _validation_windows(values: Array, config: Config) -> Validation:
    batch = min(config.batch, (len(values) - 1) // config.steps)
    return Validation(Stream(values, batch=batch, steps=config.steps))


def _task(config: Config) -> Problem:
    assert config.data is not None
    task = make_task(config.data)
    if config.steps != task.steps:
        raise InputError("steps", got=config.steps, expected=f"{task.steps}, those of {task.name}")
    held_out = task.batch(np.random.default_rng([config.seed, 1]), TASK_VALIDATION)  # another seed than the training's
    score = "accuracy" if task.loss == "cross_entropy" else None
    name = f"{task.name}: {task.steps} steps, lag {task.lag}"
    return Problem(
        name, task.inputs, task.outputs, Loss(task.loss), {"a guess without input": task.baseline}, None,
        task.batch, Validation(fixed=held_out), score, task.name, {"lag": task.lag},
    )  # fmt: skip


def _digest(values: Array, names: str) -> str:
    digest = hashlib.sha256(names.encode(errors="surrogatepass"))
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def settings_of(config: Config, problem: Problem) -> dict[str, Any]:
    """What remedies are told of a training: its fields, and how wide the network's inputs and outputs are."""
    return msgspec.structs.asdict(config) | {"inputs": problem.inputs, "outputs": problem.outputs}


def short_name(config: Config) -> str:
    """A name for a run folder: that of the file without its ending, or of the task."""
    if config.kind == "task":
        return str(config.data).replace(":", "-")
    return "text" if config.data is None else Path(config.data).stem


def decoder(facts: dict[str, Any]) -> Text:
    """The vocabulary of a run as an empty text, which encodes and decodes."""
    return Text("run", facts["unit"], tuple(facts["vocabulary"]), np.empty(0, np.int32))

"""Synthetic tasks whose lag is known: how far back a network must look is a property of the task, not a guess.

The baseline of each is exact: the lowest expected loss, as a mean over the counted steps, of a guess that knows the
number of the step and the statistics of the task but has seen none of the input. A network below it has used its input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from math import log
from types import MappingProxyType
from typing import Literal

import numpy as np

from bptt.data.counts import whole
from bptt.errors import DataError, unknown
from bptt.model.batch import Batch
from bptt.typing import Array

Draw = Callable[[np.random.Generator, int], Batch]


@dataclass(frozen=True)
class Task:
    """A source of batches.

    name: the specification that `make_task` turns into the same task.
    inputs: D, the width of the input; for ids, how many there are.  outputs: O, values or classes.
    loss: "cross_entropy" (nats) or "squared_error".  steps: T.
    lag: how many steps back the farthest input lies that a counted target depends on.
    baseline: lowest expected loss, mean over counted steps, without any look at the input.
    score_name: what to call the score: "accuracy" or "mse".

    >>> task = make_task("echo:2:5")
    >>> batch = task.batch(np.random.default_rng(0), 1)
    >>> batch.x[:, 0].tolist(), batch.targets[:, 0].tolist(), batch.mask[:, 0].tolist()
    ([6, 5, 4, 2, 2], [0, 0, 6, 5, 4], [0.0, 0.0, 1.0, 1.0, 1.0])
    """

    name: str
    inputs: int
    outputs: int
    loss: Literal["cross_entropy", "squared_error"]
    steps: int
    lag: int
    baseline: float
    score_name: str
    draw: Draw = field(repr=False, compare=False)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """`size` fresh sequences: x (T, B) int32 or (T, B, D) float64, targets, and a mask if not every step counts."""
        if not isinstance(rng, np.random.Generator):
            raise DataError("rng", got=type(rng).__name__, expected="np.random.Generator", do=_SEED)
        return self.draw(rng, whole("batch size", size))


_SEED = "Make one with np.random.default_rng(seed)."


def echo(lag: int, steps: int | None = None, symbols: int = 8) -> Task:
    """Say again what came `lag` steps ago: y_t = x_{t-lag}, x uniform; the first `lag` steps do not count.

    steps: T, four times the lag unless given. Baseline: log(symbols), all symbols being equally likely.

    >>> echo(5).steps, f"{echo(5).baseline:.4f}"
    (20, '2.0794')
    """
    lag = whole("lag of echo", lag)
    steps = whole("steps of echo", 4 * lag if steps is None else steps)
    symbols = whole("symbols of echo", symbols, least=2)
    if steps <= lag:
        raise DataError("steps of echo", got=steps, expected=f"more than the lag, {lag}", do="No step would count.")

    def draw(rng: np.random.Generator, size: int) -> Batch:
        x = _ids(rng, symbols, steps, size)
        targets = np.concatenate([np.zeros((lag, size), np.int32), x[:-lag]])
        return Batch(x, targets, mask=_counting(steps, size, lag))

    name = _name("echo", (lag, None), (steps, 4 * lag), (symbols, 8))
    return Task(name, symbols, symbols, "cross_entropy", steps, lag, log(symbols), "accuracy", draw)


def adding(steps: int) -> Task:
    """Add the two marked numbers: D = 2, values uniform in [0, 1] and a mark; the sum counts at the last step only.

    One mark stands in the first half, one in the second. Baseline: 1/6, the variance of the sum, by always saying 1.
    Hochreiter & Schmidhuber 1997, in the form of Le, Jaitly & Hinton 2015, arXiv 1504.00941.

    >>> f"{adding(100).baseline:.4f}"
    '0.1667'
    """
    steps = whole("steps of adding", steps, least=2)

    def draw(rng: np.random.Generator, size: int) -> Batch:
        b, half = np.arange(size), steps // 2
        x = np.zeros((steps, size, 2))
        x[:, :, 0] = rng.random((steps, size))
        for marked in rng.integers(0, half, size), rng.integers(half, steps, size):
            x[marked, b, 1] = 1
        targets = np.zeros((steps, size, 1))
        targets[-1, :, 0] = (x[:, :, 0] * x[:, :, 1]).sum(axis=0)
        return Batch(x, targets, mask=_counting(steps, size, steps - 1))

    return Task(f"adding:{steps}", 2, 1, "squared_error", steps, steps - 1, 1 / 6, "mse", draw)


def copy(lag: int, symbols: int = 8, width: int = 10) -> Task:
    """Remember `width` symbols over `lag` steps, then say them in order; every step counts.

    Input: `width` symbols, lag - 1 blanks (id `symbols`), the delimiter (id symbols + 1), `width` blanks. Target: blank
    for lag + width steps, then the symbols. T = lag + 2·width, and each symbol is asked for lag + width steps later.
    Baseline: width·log(symbols) / T, by saying blank and then guessing.
    Arjovsky, Shah & Bengio 2016, arXiv 1511.06464, where `lag` is called T.

    >>> copy(20).steps, copy(20).lag, f"{copy(20).baseline:.4f}"
    (40, 30, '0.5199')
    """
    return _copy("copy", lag, symbols, width, recall_only=False)


def copy_recall(lag: int, symbols: int = 8, width: int = 10) -> Task:
    """`copy`, but only the last `width` steps count, where the symbols are recalled. Baseline: log(symbols).

    >>> copy_recall(20).batch(np.random.default_rng(0), 3).mask.sum(axis=0)
    array([10., 10., 10.])
    """
    return _copy("copy-recall", lag, symbols, width, recall_only=True)


def _copy(name: str, lag: int, symbols: int, width: int, *, recall_only: bool) -> Task:
    lag, width = whole(f"lag of {name}", lag), whole(f"width of {name}", width)
    symbols = whole(f"symbols of {name}", symbols, least=2)
    wait, steps = lag + width, lag + 2 * width

    def draw(rng: np.random.Generator, size: int) -> Batch:
        memory = _ids(rng, symbols, width, size)
        x, targets = np.full((2, steps, size), symbols, np.int32)
        x[:width] = targets[wait:] = memory
        x[wait - 1] = symbols + 1
        return Batch(x, targets, mask=_counting(steps, size, wait) if recall_only else None)

    spec = _name(name, (lag, None), (symbols, 8), (width, 10))
    baseline = log(symbols) if recall_only else width * log(symbols) / steps
    return Task(spec, symbols + 2, symbols + 1, "cross_entropy", steps, wait, baseline, "accuracy", draw)


def temporal_order(steps: int) -> Task:
    """Which two signals came, in which order: X or Y at two places among noise; 4 classes at the last step only.

    Ids: noise a, b, c, d = 0…3, X, Y = 4, 5, start E = 6, end B = 7. Classes: XX, XY, YX, YY = 0…3. The first signal
    stands at a step from T/10 to T/5, the second from T/2 to 3T/5 (counted from 1). Baseline: log 4.
    Hochreiter & Schmidhuber 1997, experiment 6a, whose places 10…20 and 50…60 of about 100 are scaled with T.

    >>> temporal_order(60).inputs, temporal_order(60).outputs
    (8, 4)
    """
    steps = whole("steps of temporal-order", steps, least=10)
    first, last = max(steps // 10, 2), steps // 5  # step 1 is E

    def draw(rng: np.random.Generator, size: int) -> Batch:
        b = np.arange(size)
        x = _ids(rng, 4, steps, size)
        x[0], x[-1] = 6, 7
        signals = _ids(rng, 2, 2, size)
        x[rng.integers(first, last, size, endpoint=True) - 1, b] = 4 + signals[0]
        x[rng.integers(steps // 2, 3 * steps // 5, size, endpoint=True) - 1, b] = 4 + signals[1]
        targets = np.zeros((steps, size), np.int32)
        targets[-1] = 2 * signals[0] + signals[1]
        return Batch(x, targets, mask=_counting(steps, size, steps - 1))

    name = f"temporal-order:{steps}"
    return Task(name, 8, 4, "cross_entropy", steps, steps - first, log(4), "accuracy", draw)


def parity(steps: int) -> Task:
    """Running parity: at every step, whether the number of ones so far is odd; bits are fair and every step counts.

    Asked at every step and not only at the last: so it can be learnt at all. Baseline: log 2, the parity of fair bits.

    >>> batch = parity(5).batch(np.random.default_rng(0), 1)
    >>> batch.x[:, 0].tolist(), batch.targets[:, 0].tolist()
    ([1, 1, 1, 0, 0], [1, 0, 1, 1, 1])
    """
    steps = whole("steps of parity", steps, least=2)

    def draw(rng: np.random.Generator, size: int) -> Batch:
        x = _ids(rng, 2, steps, size)
        return Batch(x, (x.cumsum(axis=0) % 2).astype(np.int32))

    return Task(f"parity:{steps}", 2, 2, "cross_entropy", steps, steps - 1, log(2), "accuracy", draw)


TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        "adding": adding,
        "copy": copy,
        "copy-recall": copy_recall,
        "echo": echo,
        "parity": parity,
        "temporal-order": temporal_order,
    }
)


def make_task(spec: str) -> Task:
    """The task that a specification names: its name and its numbers, in the order of the builder's arguments.

    UnknownName: no such task, with the nearest one. DataError: a number that is missing, none, or makes no sense.

    >>> make_task("adding:100").name, make_task("echo:5:40").steps
    ('adding:100', 40)
    """
    name, *numbers = (part.strip() for part in spec.split(":"))
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    arguments = signature(TASKS[name]).parameters.values()
    needed = sum(argument.default is Parameter.empty for argument in arguments)
    form = name + "".join(f":{a.name}" if a.default is Parameter.empty else f"[:{a.name}]" for a in arguments)
    if not needed <= len(numbers) <= len(arguments) or not all(_is_whole(number) for number in numbers):
        do = f"For example {name}:20."
        raise DataError("task", got=repr(spec), expected=f"{form} with whole numbers", do=do)
    return TASKS[name](*map(int, numbers))


def _is_whole(number: str) -> bool:
    digits = number.removeprefix("-")  # a minus is a number that the builder refuses with a better reason
    return digits.isascii() and digits.isdigit() and len(digits) <= 9


def _name(name: str, *numbers: tuple[int, int | None]) -> str:
    shown = list(numbers)
    while shown[-1][0] == shown[-1][1]:
        shown.pop()
    return ":".join([name, *(str(value) for value, _ in shown)])


def _ids(rng: np.random.Generator, count: int, steps: int, size: int) -> Array:
    return rng.integers(0, count, (steps, size), dtype=np.int32)


def _counting(steps: int, size: int, skipped: int) -> Array:
    mask = np.ones((steps, size))
    mask[:skipped] = 0
    return mask

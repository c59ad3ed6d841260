"""One long sequence as windows that continue each other, for stateful truncated BPTT."""

from typing import SupportsIndex

import numpy as np

from bptt.data.counts import training_rows, whole
from bptt.errors import DataError, NotFiniteError, ShapeError
from bptt.model.batch import Batch
from bptt.typing import Array


class Stream:
    """B contiguous tracks of one sequence, read T steps at a time; window i + 1 continues window i in every track.

    inputs: (N,) ids, or (N,) or (N, D) floats.
    targets: as long as the inputs; what stands at n is the target of the input at n - 1. None: the inputs themselves,
        so the task is the next unit. Of a series, pass the columns to predict.
    batch: B, the number of tracks.  steps: T, the length of a window.

    A position is one integer that counts on through the epochs, so it is all that a run must keep to resume. What
    does not fill a window in every track is left out at the end of the sequence.
    ShapeError: inputs and targets differ in length. DataError: too short for one window. NotFiniteError: NaN, infinity.

    >>> stream = Stream(np.arange(14), batch=2, steps=3)
    >>> len(stream), stream.window(0).x.T.tolist(), stream.window(1).x.T.tolist()
    (2, [[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]])
    >>> stream.window(1).targets.T.tolist()
    [[4, 5, 6], [10, 11, 12]]
    """

    def __init__(self, inputs: Array, targets: Array | None = None, *, batch: int, steps: int):
        self.batch, self.steps = whole("batch", batch), whole("steps", steps)
        inputs = _sequence("inputs", inputs)
        targets = inputs if targets is None else _sequence("targets", targets)
        if len(targets) != len(inputs):
            do = "Do not shift them: the stream does."
            raise ShapeError(
                "targets", got=f"length {len(targets)}", expected=f"that of the inputs, {len(inputs)}", do=do
            )
        needed = self.batch * self.steps + 1
        if len(inputs) < needed:
            noun = "units" if inputs.ndim == 1 else "rows"
            expected = f"at least {needed} {noun} = batch {self.batch} × steps {self.steps} + 1"
            do = "Use a longer text or series, a smaller batch, or fewer steps."
            raise DataError("sequence", got=f"{len(inputs)} {noun}", expected=expected, do=do)
        self._windows = (len(inputs) - 1) // (self.batch * self.steps)
        self._inputs, self._targets = self._tracks(inputs[:-1]), self._tracks(targets[1:])

    def _tracks(self, values: Array) -> Array:
        length = self._windows * self.steps
        return values[: self.batch * length].reshape(self.batch, length, *values.shape[1:]).swapaxes(0, 1)

    def __len__(self) -> int:
        """Windows per epoch."""
        return self._windows

    def window(self, position: SupportsIndex) -> Batch:
        """(T, B) ids or (T, B, D) floats, and their targets, at `position` ≥ 0; past the end it starts over.

        >>> Stream(np.arange(7), batch=1, steps=3).window(3).x.T.tolist()
        [[3, 4, 5]]
        """
        first = whole("position", position, least=0) % self._windows * self.steps
        steps = slice(first, first + self.steps)
        return Batch(self._inputs[steps].copy(order="C"), self._targets[steps].copy(order="C"))

    def starts_over(self, position: SupportsIndex) -> bool:
        """Whether the window at `position` begins its tracks, so that the state before it must be the initial one.

        >>> [Stream(np.arange(7), batch=1, steps=3).starts_over(i) for i in range(4)]
        [True, False, True, False]
        """
        return whole("position", position, least=0) % self._windows == 0


def split(values: Array, validation: float = 0.1, *, steps: int = 1) -> tuple[Array, Array]:
    """The training part and the validation part, which is the tail: the future is never trained on.

    values: (N,) or (N, D), in order of time.  validation: its share, 0 ≤ v < 1; 0 leaves the second part empty.
    steps: each part must hold a window of so many steps, and one value more to predict. DataError otherwise.

    >>> train, validation = split(np.arange(10), 0.2)
    >>> train.tolist(), validation.tolist()
    ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9])
    """
    if not 0 <= validation < 1:
        raise DataError("validation", got=validation, expected="a share from 0 to below 1")
    needed = whole("steps", steps) + 1
    cut = training_rows(len(values), 1 - validation)
    parts = values[:cut], values[cut:]
    for name, part in zip(("training part", "validation part"), parts, strict=True):
        if len(part) < needed and not (validation == 0 and part is parts[1]):
            got = f"{len(part)} of {len(values)} units"
            do = "Use a longer sequence, fewer steps, or another share for validation."
            raise DataError(name, got=got, expected=f"at least {needed} = steps {needed - 1} + 1", do=do)
    return parts


def _sequence(name: str, values: Array) -> Array:
    values = np.asarray(values)
    if values.dtype.kind in "iu" and values.ndim == 1:
        return values
    if values.dtype.kind != "f" or values.ndim not in (1, 2) or values.shape[1:] == (0,):
        got = f"shape {values.shape} of {values.dtype}"
        raise ShapeError(name, got=got, expected="(N,) ids, or (N,) or (N, D) floats")
    values = values if values.ndim == 2 else values[:, None]
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        step = int(np.argmin(finite)) + 1
        raise NotFiniteError(f"{name} at step {step}", got=values[step - 1], expected="finite numbers")
    return values

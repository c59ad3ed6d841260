"""What a network is shown at once: B sequences of up to T steps, and what it should have said."""

from typing import NamedTuple

from bptt.typing import Array


class Batch(NamedTuple):
    """B sequences, time-major.

    x: (T, B, D) inputs, or (T, B) integer ids, each standing for a one-hot row of width D.
    targets: (T, B) integer classes for cross-entropy, (T, B, O) values for squared error.
    lengths: (B,) number of steps of each sequence, None when all have T.
    mask: (T, B) weight of the loss at each step, None for 1 everywhere inside the lengths.
    """

    x: Array
    targets: Array
    lengths: Array | None = None
    mask: Array | None = None

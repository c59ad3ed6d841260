"""A large table made small enough to be shown: neighbouring cells added up, so that the total stays the same."""

import math

import numpy as np

from bptt.typing import Array


def block_sums(table: Array, limit: int) -> tuple[Array, int, int]:
    """A table of at most limit × limit cells, and how many rows and columns each of its cells adds up.

    table: (R, C), any numbers.  Blocks at the lower and right edge may hold fewer.

    >>> block_sums(np.ones((5, 4)), 3)
    (array([[4., 4.],
           [4., 4.],
           [2., 2.]]), 2, 2)
    """
    down, across = (max(1, math.ceil(n / limit)) for n in table.shape)
    if down == across == 1:
        return table, 1, 1
    padded = np.zeros([math.ceil(n / size) * size for n, size in zip(table.shape, (down, across), strict=True)])
    padded[: table.shape[0], : table.shape[1]] = table
    return padded.reshape(len(padded) // down, down, -1, across).sum((1, 3)), down, across

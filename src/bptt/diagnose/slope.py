"""A slope per lag from many paths back in time, and how far it can be trusted.

A path is one loss in one sequence. Its lags are anything but independent, and paths of one loss share its step, those
of one sequence its data. So the error is a jackknife that leaves out whole sequences, and one that leaves out whole
losses; their squares are added, and what both count is taken off (Cameron, Gelbach & Miller 2011).
"""

import numpy as np

from bptt.typing import Array

BLOCKS = 8  # stretches of lags, left out one by one where there is a single path


class Paths:
    """Collects log ‖∂L/∂s‖ by lag, each relative to lag 0.

    T: the largest lag there can be.
    """

    def __init__(self, T: int):
        self.T = T
        self.rows: list[Array] = []  # (T + 1,) each, 0 where not known
        self.known: list[Array] = []
        self.losses: list[int] = []
        self.sequences: list[int] = []

    def add(self, norms: Array, seen: Array, loss: int, sequence: int) -> None:
        """One path: norms from lag 0 on, and where they have digits; lag 0 must have."""
        row, known = np.zeros(self.T + 1), np.zeros(self.T + 1, bool)
        known[: len(seen)] = seen
        row[known] = np.log(norms[seen].astype(np.float64)) - np.log(float(norms[0]))
        self.rows.append(row)
        self.known.append(known)
        self.losses.append(loss)
        self.sequences.append(sequence)

    def mean(self) -> tuple[Array, Array]:
        """Lags that any path has digits at, and the mean over the paths that do."""
        if not self.rows:
            return np.zeros(0, int), np.zeros(0)
        count = np.sum(self.known, 0)
        lags = np.flatnonzero(count)
        return lags, np.sum(self.rows, 0)[lags] / count[lags]

    def slope(self) -> tuple[float, float]:
        """Per lag, and its standard error."""
        if not self.rows:
            return 0.0, 0.0
        known, rows, lags = np.array(self.known, np.float64), np.array(self.rows), np.arange(self.T + 1.0)
        if known.sum(0).astype(bool).sum() < 2:  # lag 0 alone: all is gone one step back, unless there is no such step
            return (float("-inf") if self.T else 0.0), 0.0
        terms = np.stack([known, known * lags, known * lags**2, rows, rows * lags], -1)  # (paths, lags, 5)
        sums = terms.sum(1)
        losses, sequences = np.array(self.losses), np.array(self.sequences)
        variances = [_jackknife(sums, groups) for groups in (losses, sequences)]
        if max(variances) == 0:
            edges = np.minimum(np.arange(self.T + 1) * BLOCKS // (np.flatnonzero(known.any(0))[-1] + 1), BLOCKS - 1)
            variance = _jackknife(terms.sum(0), edges)
        else:
            single = _jackknife(sums, np.arange(len(sums)))
            variance = max(sum(variances) - single, *variances)
        return float(_fit(sums.sum(0))), float(np.sqrt(variance))


def _jackknife(sums: Array, groups: Array) -> float:
    """Variance of the slope when groups of `sums` (n, 5) are left out one by one; 0 for a single group."""
    labels, at = np.unique(groups, return_inverse=True)
    if len(labels) < 2:
        return 0.0
    parts = np.zeros((len(labels), 5))
    np.add.at(parts, at, sums)
    slopes = _fit(parts.sum(0) - parts)
    n = len(labels)
    return float((n - 1) / n * np.square(slopes - slopes.mean()).sum())


def _fit(sums: Array) -> Array:
    """The least-squares slope from Σ1, Σlag, Σlag², Σlog and Σlag·log, (..., 5); 0 where there is only one lag."""
    n, x, xx, y, xy = np.moveaxis(np.asarray(sums), -1, 0)
    below = n * xx - x * x
    return np.divide(n * xy - x * y, below, out=np.zeros_like(below), where=below > 0.5)

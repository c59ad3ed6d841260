"""‖Σ_k D_k‖² of N vectors from m of them, with an interval: what `sampled` draws losses with, and adds them up by.

    ‖Σ_k D_k‖² ≈ Σ_{i≠j} p_ij⁻¹ ⟨D_i, D_j⟩ + Σ_i p_i⁻¹ ‖D_i‖²           (Horvitz & Thompson 1952)

p_ij is the chance that both were drawn, so that this is unbiased. The norm of the scaled-up sum is not: it also has the
variance of that sum in it, and would find a long reach wherever there is noise.

The steps are divided into stretches of about the same length, and two are drawn from each. The last two are always
taken, for only they tell anything at the longest lags, and so is every loss whose own adjoint ‖∂L_k/∂y‖, which is known
beforehand, is more than its share of all. The variance is that of the linear part, 4 Var⟨Σ D, ε⟩, and of
the square of the error, 2 tr(Σ²), and its degrees of freedom are Satterthwaite's (1946). docs/reach.md has the
coverage, and what else was tried.
"""

import itertools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bptt.errors import InputError
from bptt.typing import Array

CERTAIN = 2  # the last ones, which are always taken
EACH = 2  # drawn from every stretch


@dataclass(frozen=True, eq=False)
class Draw:
    """Which of N were drawn.

    chosen: (m,) of them, ascending, from 0.  stretch: (m,) to which of H stretches each belongs.
    members: (N,) the same for all.  sizes, counts: (H,) how many there are in each, and how many were drawn.
    """

    chosen: Array
    stretch: Array
    members: Array
    sizes: Array
    counts: Array

    @property
    def scale(self) -> Array:
        """(m,) how many each one stands for."""
        return (self.sizes / self.counts)[self.stretch]

    @property
    def pairs(self) -> Array:
        """(m, m) how many pairs each pair stands for; on the diagonal, how many each one stands for."""
        N, n = self.sizes, self.counts
        both = np.where(n > 1, N * (N - 1) / np.maximum(n * (n - 1), 1), 0.0)
        same = self.stretch[:, None] == self.stretch
        pairs = np.where(same, both[self.stretch][:, None], np.outer(self.scale, self.scale))
        np.fill_diagonal(pairs, self.scale)
        return pairs


def draw(N: int, samples: int, rng: np.random.Generator, sizes: Array | None = None) -> Draw:
    """`samples` of N, or all of them where there are no more.

    sizes: (N,) how much each is expected to matter, if that is known: one with more than its share is always taken.

    Raises:
        InputError: fewer than 4 samples of more.
    """
    if samples >= N:
        every = np.arange(N)
        return Draw(every, every, every, np.ones(N, int), np.ones(N, int))
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < CERTAIN + EACH:
        raise InputError("samples", got=samples, expected=f"at least {CERTAIN + EACH}, or one for each of {N} losses")
    taken = _certain(N, samples, np.ones(N) if sizes is None else sizes)
    rest, H = np.flatnonzero(~taken), (samples - int(taken.sum())) // EACH
    edges = np.round(np.linspace(0, len(rest), H + 1)).astype(int)
    members = np.zeros(N, int)
    members[rest] = np.repeat(np.arange(H), np.diff(edges))
    members[taken] = H + np.arange(taken.sum())
    counts = np.where(np.arange(H + taken.sum()) < H, EACH, 1)
    chosen = [rest[low + rng.choice(high - low, EACH, replace=False)] for low, high in itertools.pairwise(edges)]
    chosen = np.sort(np.concatenate([*chosen, np.flatnonzero(taken)]))
    return Draw(chosen, members[chosen], members, np.bincount(members), counts)


def _certain(N: int, samples: int, sizes: Array) -> Array:
    """(N,) whether it is taken in any case: the last ones, and what has more than its share, up to half of them."""
    taken = np.arange(N) >= N - CERTAIN
    for k in np.argsort(-sizes, kind="stable")[: samples // 2 - CERTAIN]:
        left = samples - int(taken.sum())
        if not taken[k] and sizes[k] * left > sizes[~taken].sum():
            taken[k] = True
    if (samples - int(taken.sum())) % EACH:
        taken[np.flatnonzero(~taken)[-1]] = True
    return taken


def squared_norm(grams: Array, drawn: Draw) -> Array:
    """An unbiased estimate of ‖Σ D‖², (G,), from the inner products (G, m, m) of those drawn; it may be below 0."""
    return np.einsum("gij,ij->g", grams, drawn.pairs)


def interval(grams: Array, drawn: Draw, reaching: Array, confidence: float) -> tuple[Array, Array]:
    """An interval of ‖Σ D‖, low and high (G,), each by itself.

    Args:
        grams: (G, m, m) inner products of those drawn, for G kinds of D.
        drawn: which they are.
        reaching: (G, N) whether D_k can be other than zero at all.
        confidence: how often it should hold.
    """
    estimate, n, stretch = squared_norm(grams, drawn), drawn.counts, drawn.stretch
    within = (stretch[:, None] == stretch) / n[stretch]  # (m, m): the mean over a stretch
    centre = np.eye(len(stretch)) - within
    spread = np.where(n > 1, drawn.sizes**2 * (1 - n / drawn.sizes) / (n * np.maximum(n - 1, 1)), 0.0)
    against = grams @ drawn.scale @ centre.T  # ⟨D_i − mean of its stretch, Σ D⟩, (G, m)
    parts = np.zeros((len(grams), len(n)))
    np.add.at(parts.T, stretch, (4 * spread[stretch] * against**2).T)
    linear, squares = parts.sum(1), (parts**2 / np.maximum(n - 1, 1)).sum(1)
    freedom = np.divide(linear**2, squares, out=np.ones_like(linear), where=squares > 0)
    errors = np.sqrt(np.outer(spread[stretch], spread[stretch])) * (centre @ grams @ centre.T)
    deviation = np.sqrt(linear + 2 * (errors**2).sum((1, 2)))
    by = student((1 + confidence) / 2, freedom) * deviation
    low, high = np.sqrt(np.maximum(estimate - by, 0)), np.sqrt(np.maximum(estimate + by, 0))
    return low, high + _unseen(grams, drawn, reaching)


def _unseen(grams: Array, drawn: Draw, reaching: Array) -> Array:
    """What those may add that reach so far while none of the two that were drawn beside them does, (G,).

    Each is taken to be as large as the nearest one that was drawn and does.
    """
    sizes = np.sqrt(np.maximum(np.einsum("gii->gi", grams), 0))
    add = np.zeros(len(grams))
    for g, reach in enumerate(reaching):
        seen = reach[drawn.chosen]
        known = np.isin(drawn.members, drawn.stretch[seen])
        missed = np.flatnonzero(reach & ~known)
        if len(missed) and seen.any():
            nearest = np.abs(missed[:, None] - drawn.chosen[seen]).argmin(1)
            add[g] = sizes[g, seen][nearest].sum()
    return add


def student(p: float, freedom: Array) -> Array:
    """The p-quantile of Student's t, by Cornish and Fisher's expansion (Abramowitz & Stegun 26.7.5).

    >>> student(0.975, np.array([4.0, 30.0])).round(2).tolist()
    [2.78, 2.04]
    """
    z, n = NormalDist().inv_cdf(p), np.maximum(freedom, 1.0)
    terms = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    return z + sum((term / n ** (i + 1) for i, term in enumerate(terms)), np.zeros_like(n))

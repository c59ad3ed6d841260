"""Singular values of Jacobian products J_k···J_{k−lag+1}: what a direction of the state keeps of its size, lag by lag.

k is the last step of each sequence. The product is built from k back with Jᵀ alone, as QR factors that never leave the
range of floats (`bptt.diagnose.graded`). Of large states only the largest few values are sought, by subspace iteration:
a random block is walked back with Jᵀ, the block that comes out of that is walked forward with J, and so on; each walk
gives values that are at most the true ones and grow towards them (Halko, Martinsson, Tropp 2011, section 4.4).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bptt.diagnose.graded import Graded, begin, largest_entry, multiply, singular_logs
from bptt.diagnose.linear import MAX_SEQUENCES, Linearised, linearise, longest, state_size
from bptt.errors import InputError
from bptt.model import Batch, Network, States
from bptt.typing import Array

FULL = 64  # units up to which all singular values are sought by default
COUNT = 8  # of them otherwise
LARGE_SEQUENCES = 2  # of which only the largest few values are sought
EXTRA = 16  # directions that are walked beside those that are asked for
SHORT = 21  # lags up to which a product is not yet graded enough for the iteration, and is multiplied out
SHORT_UNITS = 512  # at most, since that takes S rows for each step
SAME = 1e-8  # change of a logarithm from one walk to the next that ends the iteration
WALKS = 40


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values by lag, as natural logarithms: products of many steps leave the range of floats.

    state: whose Jacobians: "layer0.", or "" for the whole state.  size: S, units of that state.
    lags: (n,) number of factors.  logs: (n, B, r) log σ, the r largest, descending; -inf for 0.
    """

    state: str
    size: int
    lags: Array
    logs: Array

    @property
    def effective_rank(self) -> Array:
        """exp(−Σ p log p) with p = σ / Σσ (n, B): how many directions carry the product; 0 where all of them are lost.

        Over the r values that are known: of a state with more units it is at most what all of them would give.
        Source: Roy & Vetterli 2007, definition 1.
        """
        top = self.logs.max(-1, keepdims=True)
        sizes = np.exp(self.logs - np.where(np.isneginf(top), 0, top))
        p = sizes / np.where(np.isneginf(top), 1, sizes.sum(-1, keepdims=True))
        entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
        return np.where(np.isneginf(top[..., 0]), 0.0, np.exp(entropy))


def spectrum(
    network: Network, batch: Batch, *, layer: int | str | None = None, lags: Sequence[int] | Array | None = None,
    count: int | None = None, states: States | None = None,
) -> Spectrum:  # fmt: skip
    """Singular values of the Jacobian products that end at the last step of each sequence.

    Of at most four sequences, the longest, the first of those; of two where only the largest values are sought.

    Args:
        network, batch, layer, states: as `linearise`.
        lags: numbers of factors; 1, 2, 3, 5, 8, … up to the length of the shortest of these sequences by default.
        count: how many values, the largest ones; all of up to 64 units by default, the 8 largest of more. Unless it is
            all of them, values that lie close to those left out may come out too small; the others are exact.

    Raises:
        InputError: lags below 1 or beyond the data; a count below 1 or above S.
        NotFiniteError: a product overflows within one step; else as `linearise`.

    >>> rng = np.random.default_rng(0)
    >>> network = Network.create("rnn", inputs=3, hidden=4)
    >>> found = spectrum(network, Batch(rng.standard_normal((9, 2, 3)), np.zeros((9, 2), int)))
    >>> found.lags.tolist(), found.logs.shape
    ([1, 2, 3, 5, 8, 9], (6, 2, 4))
    """
    S = state_size(network, layer)
    count = default_count(S) if count is None else count
    check_count(count, S)
    all_of_them = S <= FULL or count + EXTRA >= S
    batch, states, _ = longest(network, batch, states, MAX_SEQUENCES if all_of_them else LARGE_SEQUENCES)
    linear = linearise(network, batch, layer=layer, states=states)
    wanted = _lags(lags, int(linear.lengths().min()))
    logs = _whole(linear, wanted) if all_of_them else _largest(linear, wanted, count)
    return Spectrum(linear.state, linear.S, wanted, logs[:, :, :count])


def default_count(S: int) -> int:
    """How many singular values or exponents are sought of S, where nobody says."""
    return S if S <= FULL else COUNT


def check_count(count: object, most: int, what: str = "count") -> None:
    """Raise InputError unless it is a whole number from 1 to `most`."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= most:
        raise InputError(what, got=count, expected=f"a whole number from 1 to {most}")


def _lags(lags: Sequence[int] | Array | None, T: int) -> Array:
    if lags is None:
        grid = [1, 2]
        while grid[-1] < T:
            grid.append(grid[-1] + grid[-2])
        return np.unique(np.minimum(grid, T))
    wanted = np.unique(np.asarray(lags))
    if wanted.size == 0 or wanted.dtype.kind not in "iu" or wanted[0] < 1 or wanted[-1] > T:
        expected = f"whole numbers from 1 to {T}, the steps of the sequences"
        raise InputError("lags", got=np.asarray(lags).tolist(), expected=expected)
    return wanted


def _ends(linear: Linearised) -> Array:
    """(T, B) how many steps a sequence has from here on: the lag of a product that begins here; 0 where it has none."""
    return np.where(linear.valid, linear.valid[::-1].cumsum(0)[::-1], 0)


def _whole(linear: Linearised, lags: Array) -> Array:
    """All singular values, in one walk back."""
    out = np.empty((len(lags), linear.B, linear.S))

    def reached(at: int, rows: Array, product: Graded) -> None:
        out[at, rows] = singular_logs(product.logs[rows], product.u[rows])

    _walk_back_all(linear, lags, begin(np.broadcast_to(np.eye(linear.S), (linear.B, linear.S, linear.S))), reached)
    return out


def _walk_back_all(
    linear: Linearised, lags: Array, product: Graded, reached: Callable[[int, Array, Graded], None]
) -> None:
    """One block for all lags: called with each lag's place, the sequences that have come so far, and the product."""
    ends, left = _ends(linear), len(lags) * linear.B
    for t in range(linear.T, 0, -1):
        image = linear.vjp(t, product.q.transpose(2, 0, 1)).transpose(1, 2, 0)
        product = multiply(product, image)
        for at, lag in enumerate(lags):
            rows = np.flatnonzero(ends[t - 1] == lag)
            if len(rows):
                reached(at, rows, product)
                left -= len(rows)
        if left == 0:
            return


def _largest(linear: Linearised, lags: Array, count: int) -> Array:
    """The largest few: of short products multiplied out, of long ones by walks back and forth."""
    out, done = np.empty((len(lags), linear.B, count)), np.zeros(len(lags), bool)
    if linear.S <= SHORT_UNITS:
        for at, logs in _multiplied_out(linear, lags[lags <= SHORT]):
            out[at] = logs[:, :count]
            done[at] = (logs[:, count - 1] >= logs[:, 0] - 12).all()  # else the smaller ones have lost their digits
    if not done.all():
        out[~done] = _iterate(linear, lags[~done], count + EXTRA)[:, :, :count]
    return out


def _multiplied_out(linear: Linearised, lags: Array) -> Iterator[tuple[int, Array]]:
    """Place of the lag, and log σ (B, S) of its product, for ascending lags."""
    ends, top = _ends(linear), int(lags.max(initial=0))
    rows = np.broadcast_to(np.eye(linear.S)[:, None], (linear.S, linear.B, linear.S))
    logs = np.zeros((1, linear.B, 1))
    kept: dict[int, Array] = {at: np.empty((linear.B, linear.S)) for at in range(len(lags))}
    for t in range(linear.T, 0, -1):
        if not ((ends[t - 1] > 0) & (ends[t - 1] <= top)).any():
            continue
        rows = linear.vjp(t, rows)
        scale = largest_entry(rows, (0, 2))
        rows, logs = rows / scale, logs + np.log(scale)
        for at, lag in enumerate(lags):
            for b in np.flatnonzero(ends[t - 1] == lag):
                with np.errstate(divide="ignore"):
                    kept[at][b] = np.log(np.linalg.svd(rows[:, b], compute_uv=False)) + logs[0, b, 0]
    yield from kept.items()


def _iterate(linear: Linearised, lags: Array, r: int) -> Array:
    """The r largest (n, B, r), of which the first few have converged."""
    n = len(lags)
    rng = np.random.default_rng(0)  # the same question has the same answer
    start, _ = np.linalg.qr(rng.standard_normal((linear.B, linear.S, r)))
    blocks, found = np.empty((n, linear.B, linear.S, r)), np.empty((n, linear.B, r))

    def reached(at: int, rows: Array, product: Graded) -> None:
        blocks[at, rows] = product.q[rows]
        found[at, rows] = singular_logs(product.logs[rows], product.u[rows])

    _walk_back_all(linear, lags, begin(start), reached)
    open_ = np.arange(n)
    for walk in range(WALKS):
        product = _walk(linear, lags[open_], blocks[open_], forward=walk % 2 == 0)
        before = found[open_]
        found[open_] = singular_logs(product.logs.reshape(-1, r), product.u.reshape(-1, r, r)).reshape(before.shape)
        blocks[open_] = product.q.reshape(blocks[open_].shape)
        both = np.isneginf(before) & np.isneginf(found[open_])
        change = np.abs(np.where(both, 0, found[open_]) - np.where(both, 0, before))[:, :, : r - EXTRA].max((1, 2))
        open_ = open_[change > SAME]
        if len(open_) == 0:
            break
    return found


def _walk(linear: Linearised, lags: Array, blocks: Array, forward: bool) -> Graded:
    """A block (n, B, S, r) for each lag through its own product, forward with J or back with Jᵀ."""
    n, B, S, r = blocks.shape
    ends = _ends(linear)
    inside = (ends[:, None] > 0) & (ends[:, None] <= lags[:, None])  # (T, n, B) whether a product has this factor
    product = begin(blocks.reshape(n * B, S, r))
    for t in range(1, linear.T + 1)[:: 1 if forward else -1]:
        rows = np.flatnonzero(inside[t - 1].any(1))
        if len(rows) == 0:
            continue
        q = product.q.reshape(n, B, S, r)[rows].transpose(0, 3, 1, 2)
        image = linear.jvp(t, q) if forward else linear.vjp(t, q)
        at = np.flatnonzero(inside[t - 1].ravel())
        image = image.transpose(0, 2, 3, 1)[inside[t - 1][rows]]
        moved = multiply(Graded(*(part[at] for part in product)), image)
        if len(at) == n * B:
            product = moved
            continue
        product = Graded(*(part.copy() for part in product))
        for part, new in zip(product, moved, strict=True):
            part[at] = new
    return product

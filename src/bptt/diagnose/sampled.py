"""Truncation bias where T² contributions do not fit in memory, and what to do in which case.

Where even a walk of every loss takes too long, it is had from a sample of losses, each walked back alone:

    ‖dW_K − dW‖ = ‖Σ_k D_k(K)‖,   D_k(K) = Σ C[k, t] over lags of K and more

dW is known from one pass, and so is the "chunked" gradient of every K, which is one pass under Chunked(K): neither is
sampled. `estimate` says how the sum over k is had from a few of its terms.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bptt.diagnose.estimate import Draw, draw, interval, squared_norm
from bptt.diagnose.lagged import check_at, log_grid, windowed_by_lag
from bptt.diagnose.truncation import SCHEMES, Truncation, compare, exact, is_whole, truncation
from bptt.diagnose.walks import Walk, as_arrays, walk_alone, weights_of
from bptt.engine import Chunked, gradient, record
from bptt.errors import InputError, unknown
from bptt.ledger import Ledger
from bptt.ledger.norms import norm, pythagoras
from bptt.ledger.recorder import delta_width
from bptt.ledger.reductions import total
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array
from bptt.uses import Elementwise, Use, with_factors

FULL_BYTES = 256 << 20  # of contributions: up to here they are all kept
KEPT_BYTES = 256 << 20  # of sums that are kept at once
WALK_PRODUCTS = 1.5e11  # T² B × parameters: up to here every loss is walked back, in some seconds
WINDOWS, CHUNKS, LAGS = 20, 10, 16  # how many K: sampled, chunked, and where every loss is walked back
FEW_LAGS = 8  # with room for no more K than this, a sample says more


@np.errstate(all="ignore")
def measure_truncation(
    network: Network, batch: Batch, loss: Loss, names: Sequence[str] | None = None, *, samples: int = 32,
    seed: int = 0, states: States | None = None, engine: str = "auto", ledger: Ledger | None = None,
    at: Sequence[int] = (),
) -> dict[str, list[Truncation]]:  # fmt: skip
    """What truncation loses under every scheme: exactly where every loss can be walked back, else from a sample.

    For every K where all contributions fit in 256 MB, or where there is a loss at few steps only; for about 16 values
    of K where they do not, but walking all losses back takes no more than some seconds.

    Args:
        network, batch, loss, states, engine: as `bptt.record`.
        names: parameters; every recurrent weight W_hh by default.
        samples, seed: as `sample_truncation`.
        ledger: of the same batch, where there is one already: asked if it has contributions and was not truncated.
        at: values of K that must be among those measured, as the K of a training; none from T on.

    Returns:
        Full name → one `Truncation` for each of `SCHEMES`.

    Raises:
        As `sample_truncation`.
    """
    steps, names = int(weights_of(network, batch, loss, states).any(1).sum()), named(network, names)
    given: dict[str, Any] = {"states": states, "engine": engine}
    drawn: dict[str, Any] = {"samples": samples, "seed": seed, "at": at}
    check_at(at)
    if ledger is None or not ledger.loss_uses or not is_whole(ledger):
        T, B = np.shape(batch.x)[:2]
        if steps <= samples and steps < T:
            return sample_truncation(network, batch, loss, names, **drawn, **given)
        if T * T * B * delta_width(network.shapes()) * network.dtype.itemsize > FULL_BYTES:
            grid = _lag_grid(network, names, T, B, at)
            if grid is None:
                return sample_truncation(network, batch, loss, names, **drawn, **given)
            whole, windowed = windowed_by_lag(network, batch, loss, names, grid, **given)
            chunked = _chunked(network, batch, loss, names, whole, log_grid(T, CHUNKS, at), given)
            return {n: [windowed[n], chunked[n], truncation(whole, n, SCHEMES[2])] for n in names}
        ledger = record(network, batch, loss, keep="full", **given)
    return {name: [truncation(ledger, name, scheme) for scheme in SCHEMES] for name in names}


def _lag_grid(network: Network, names: list[str], T: int, B: int, at: Sequence[int]) -> Array | None:
    """The K for which sums by lag fit, None where they are too few or the walk too long."""
    shapes = network.shapes()
    over_time = {name: shapes[name] for name in names if not name.startswith("readout.")}  # a readout has lag 0 only
    one = T * B * delta_width(over_time) * network.dtype.itemsize
    count = min(LAGS, KEPT_BYTES // max(one, 1) - len(at))
    walk = T * T * B * sum(int(np.prod(shape)) for shape in shapes.values())
    return log_grid(T, count, at) if count >= FEW_LAGS and walk <= WALK_PRODUCTS else None


@np.errstate(all="ignore")
def sample_truncation(
    network: Network, batch: Batch, loss: Loss, names: Sequence[str] | None = None, *,
    schemes: Sequence[str] = SCHEMES, samples: int = 32, confidence: float = 0.95, seed: int = 0,
    states: States | None = None, engine: str = "auto", at: Sequence[int] = (),
) -> dict[str, list[Truncation]]:  # fmt: skip
    """What truncation loses, from `samples` of the losses; exact where there are no more than that.

    "chunked" and "last step only" are exact in any case. The bias of "windowed" is the root of an unbiased estimate of
    its square, 0 where that is below 0; the interval is meant for each K by itself, and holds about as often as it
    says unless a few losses that were not drawn outweigh all others (docs/reach.md).

    Args:
        network, batch, loss, states, engine: as `bptt.record`.
        names: parameters; every recurrent weight W_hh by default.
        schemes: some of `SCHEMES`.
        samples: losses that are walked back.
        confidence: of the interval.
        seed: of the sample.
        at: as `measure_truncation`.

    Returns:
        Full name → one `Truncation` for each scheme, at about 20 and 10 values of K.

    Raises:
        ShapeError, InputError, NotFiniteError: as `bptt.gradient`.
        UnknownName: no such parameter or scheme.
        InputError: fewer than 4 samples of more losses; a confidence that is not between 0 and 1.

    Source: Aicher, Foti, Fox 2019, arXiv 1905.07473, who sample the state's gradient for a bound of it.
    """
    for scheme in schemes:
        if scheme not in SCHEMES:
            raise unknown("truncation scheme", scheme, SCHEMES)
    if not 0 < confidence < 1:
        raise InputError("confidence", got=confidence, expected="a number between 0 and 1")
    check_at(at)
    names = named(network, names)
    pool = np.flatnonzero(weights_of(network, batch, loss, states).any(1))
    whole = record(network, batch, loss, states=states, engine=engine)
    drawn = draw(len(pool), samples, np.random.default_rng(seed), own_sizes(whole)[pool])
    given: dict[str, Any] = {"states": states, "engine": engine}
    found: dict[str, dict[str, Truncation]] = {name: {} for name in names}
    for scheme in schemes:
        if scheme == "chunked":
            made = _chunked(network, batch, loss, names, whole, log_grid(whole.T, CHUNKS, at), given)
        elif scheme == "windowed":
            made = _Windows(network, batch, loss, names, whole, pool, drawn, at).measure(confidence, seed, given)
        else:
            made = {name: truncation(whole, name, scheme) for name in names}
        for name, one in made.items():
            found[name][scheme] = one
    return {name: [found[name][scheme] for scheme in schemes] for name in names}


def named(network: Network, names: Sequence[str] | None) -> list[str]:
    """Full names; every W_hh where none are given.

    Raises:
        UnknownName: there is no parameter of that name.  InputError: it fits several.
    """
    if names is None:
        return [scan.prefix + "W_hh" for scan in network.scans()]
    full = []
    for name in names:
        hits = [known for known in network.params if known == name or known.endswith("." + name)]
        if not hits:
            raise unknown("parameter", name, network.params)
        if len(hits) > 1 and name not in hits:
            raise InputError("parameter", got=f"{name!r}, which fits {', '.join(hits)}", expected="one of them")
        full.append(name if name in hits else hits[0])
    return full


def own_sizes(whole: Ledger) -> Array:
    """‖∂L_k/∂y_k‖ of every loss (T,), as its own use of the readout has it; the same for all without a readout."""
    use = whole.uses.get("readout.b")
    if not isinstance(use, Elementwise):
        return np.ones(whole.T)
    return pythagoras(use.delta.reshape(whole.T, -1)).astype(np.float64)


def _chunked(
    network: Network, batch: Batch, loss: Loss, names: list[str], whole: Ledger, grid: Array,
    given: dict[str, Any],
) -> dict[str, Truncation]:  # fmt: skip
    """One pass for every K of the grid, the last of which is T."""
    bias, cosine = np.zeros((len(names), len(grid))), np.ones((len(names), len(grid)))
    for g, K in enumerate(grid[:-1]):
        kept = gradient(network, batch, loss, plan=Chunked(int(K)), dx=False, **given).gradients
        for n, name in enumerate(names):
            dW = whole.gradient(name)
            if (size := norm(dW)) > 0:
                bias[n, g], cosine[n, g] = compare(dW - kept[name], dW, size)
    return {name: exact(name, "chunked", grid, bias[n], cosine[n], whole.K) for n, name in enumerate(names)}


class _Windows:
    """D_k(K) of the losses that were drawn, parameter by parameter, in units of ‖dW‖."""

    def __init__(
        self, network: Network, batch: Batch, loss: Loss, names: list[str], whole: Ledger, pool: Array, drawn: Draw,
        at: Sequence[int],
    ):  # fmt: skip
        self.network, self.batch, self.loss = network, as_arrays(batch), loss
        self.names, self.whole, self.pool, self.drawn = names, whole, pool, drawn
        self.every = len(drawn.chosen) == len(pool)
        few = self.every and sum(whole.gradient(n).size for n in names) * whole.T * len(pool) <= 1 << 27
        self.grid = np.arange(1, whole.T + 1) if few else log_grid(whole.T, WINDOWS, at)

    def measure(self, confidence: float, seed: int, given: dict[str, Any]) -> dict[str, Truncation]:
        kept = {name: self._room(name, seed) for name in self.names if norm(self.whole.gradient(name)) > 0}
        walks = walk_alone(self.network, self.batch, self.loss, self.pool[self.drawn.chosen], **given) if kept else ()
        for walk in walks:
            i = int(np.searchsorted(self.pool[self.drawn.chosen], walk.step))
            for name, room in kept.items():
                room.take(i, self._beyond(walk, name))
        return {name: self._found(name, kept.get(name), confidence) for name in self.names}

    def _room(self, name: str, seed: int) -> "_Sums":
        dW, losses = self.whole.gradient(name), len(self.drawn.chosen)
        return _Sums(dW, len(self.grid), 1 if self.every else losses, KEPT_BYTES // len(self.names), seed)

    def _beyond(self, walk: Walk, name: str) -> Iterator[tuple[int, Array]]:
        """From the largest K that anything lies beyond to the smallest: its number, and D_k(K), added to as it goes."""
        use, shape = walk.ledger.uses[name], self.whole.gradient(name).shape
        T, k = walk.ledger.T, walk.step
        edges, beyond = [*self.grid.tolist(), T + 1], np.zeros(shape)
        for g in range(len(self.grid) - 1, -1, -1):
            near, far = edges[g], edges[g + 1]
            spans = [(max(k - far + 1, 0), max(k - near + 1, 0))]
            if self.network.bidirectional:
                spans.append((min(k + near, T), min(k + far, T)))
            spans = [span for span in spans if span[0] < span[1]]
            for span in spans:
                beyond += total(_part(use, slice(*span), walk.rows), shape)
            if k - near >= 0 or (self.network.bidirectional and k + near < T):
                yield g, beyond

    def _found(self, name: str, room: "_Sums | None", confidence: float) -> Truncation:
        """The answer; without any gradient nothing is lost."""
        m, N, G = len(self.drawn.chosen), len(self.pool), len(self.grid)
        if room is None:
            return Truncation(
                name, "windowed", self.grid, np.zeros(G), np.ones(G), np.zeros(G), np.zeros(G), self.every, m, N,
                1.0 if self.every else confidence,
            )  # fmt: skip
        if self.every:
            bias, cosine = room.exact()
            return Truncation(name, "windowed", self.grid, bias, cosine, bias, bias, True, m, N, 1.0)
        grams, along = room.products()
        square, along = np.maximum(squared_norm(grams, self.drawn), 0), along @ self.drawn.scale
        left = np.sqrt(np.maximum(1 - 2 * along + square, np.square(1 - along)))
        cosine = np.divide(1 - along, left, out=np.zeros(G), where=left > 0)
        low, high = interval(grams, self.drawn, self._reaching(), confidence)
        return Truncation(
            name, "windowed", self.grid, np.sqrt(square), np.clip(cosine, -1, 1), low, high, False, m, N, confidence
        )

    def _reaching(self) -> Array:
        """(G, N) whether a loss has any use K steps away."""
        far = np.maximum(self.pool, self.whole.T - 1 - self.pool) if self.network.bidirectional else self.pool
        return far >= self.grid[:, None]


def _part(use: Use, steps: slice, rows: slice) -> Use:
    """The use at some steps of some sequences."""
    return with_factors(use, lambda z: z[steps, rows], lambda d: d[steps, rows])


class _Sums:
    """D_i(K) of m losses for G values of K, in units of ‖dW‖, as rows of p numbers each.

    Where m·G whole matrices do not fit they are folded: each element gets a sign at random, and every p-th ones are
    added up. Inner products stay as they are on average, with an error of ‖D_i‖‖D_j‖√(2/p) (count sketch: Charikar,
    Chen, Farach-Colton 2002), under a hundredth of what the sampling of losses adds.
    """

    def __init__(self, dW: Array, G: int, m: int, limit: int, seed: int):
        self.dW, self.size = dW, norm(dW)
        dtype = np.float64 if G * m * dW.size * 8 <= limit else np.float32
        self.folds = -(-dW.size * G * m * np.dtype(dtype).itemsize // limit) if m > 1 else 1
        self.width = -(-dW.size // self.folds)
        self.rows = np.zeros((G, m, self.width), dtype)
        self.along = np.zeros((G, m))
        self.signs = np.random.default_rng((seed, 1)).choice([-1.0, 1.0], dW.size) if self.folds > 1 else None

    def take(self, i: int, beyond: Iterator[tuple[int, Array]]) -> None:
        """The next loss; where only one row is kept, all are added up in it."""
        unit = (self.dW / self.size).reshape(-1)
        at = i if self.rows.shape[1] > 1 else 0
        for g, matrix in beyond:
            row = (matrix / self.size).reshape(-1)
            self.along[g, at] += float(np.einsum("n,n->", row, unit))
            self.rows[g, at] += row if self.signs is None else self._folded(row)

    def _folded(self, row: Array) -> Array:
        padded = np.zeros(self.folds * self.width)
        padded[: len(row)] = row * self.signs
        return padded.reshape(self.folds, self.width).sum(0)

    def products(self) -> tuple[Array, Array]:
        """⟨D_i, D_j⟩ (G, m, m), and ⟨D_i, dW⟩ (G, m)."""
        return (self.rows @ np.swapaxes(self.rows, 1, 2)).astype(np.float64), self.along

    def exact(self) -> tuple[Array, Array]:
        """b and the cosine for every K, of the one row that all losses were added up in."""
        pairs = [compare(row[0].reshape(self.dW.shape) * self.size, self.dW, self.size) for row in self.rows]
        return np.array([b for b, _ in pairs]), np.array([cosine for _, cosine in pairs])

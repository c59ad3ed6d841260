"""What a truncated gradient loses, exactly, from a ledger; and the shape of the answer where it is sampled.

    b(K) = ‖dW_K − dW‖ / ‖dW‖                                              (relative bias, Aicher et al. 2019)

    "windowed"          dW_K = Σ C[k, t] over lags below K                 what Windowed(K) gives; K = 1: one step
    "chunked"           dW_K = Σ C[k, t] with k and t in one chunk of K    what Chunked(K) gives
    "last step only"    dW_1 = dW_T                                        all uses but the last are cut

The last two columns are exact in a causal network. With both directions the engine also cuts a path that leaves the
window or the chunk and comes back (docs/decisions/0002-plans.md), while here only where it begins and ends counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bptt.errors import InputError, NotKeptError, unknown
from bptt.ledger import Ledger
from bptt.ledger.names import find
from bptt.ledger.norms import norm
from bptt.ledger.reductions import cut, total
from bptt.typing import Array
from bptt.uses import with_factors

SCHEMES = ("windowed", "chunked", "last step only")


class Reach(NamedTuple):
    """A horizon: steps, and the interval low…high that holds it (all equal where it is exact)."""

    steps: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Truncation:
    """b(K) = ‖dW_K − dW‖ / ‖dW‖ and the cosine between dW_K and dW, of one parameter under one scheme.

    Where dW is zero nothing is lost: bias 0 and cosine 1. Where only dW_K is, the cosine is 0.

    parameter: its full name.  scheme: one of `SCHEMES`; "windowed" with K = 1 is the one-step gradient.
    K: (n,) ascending; the largest is T, but for "last step only", where it is 1.  bias, cosine: (n,).
    low, high: (n,) interval of the bias.
    exact: no sampling.  losses, of: that were walked back, and how many there are.  confidence: of the interval.
    """

    parameter: str
    scheme: str
    K: Array
    bias: Array
    cosine: Array
    low: Array
    high: Array
    exact: bool
    losses: int
    of: int
    confidence: float

    def horizon(self, tolerance: float = 0.01) -> Reach:
        """The smallest K from which on b(K) stays within the tolerance.

        Where not every K was measured, `steps` lies on a straight line of log b(K) between two that were, and low and
        high hold it between them; "chunked", whose b(K) goes up and down, may exceed the tolerance once more between
        others.

        Args:
            tolerance: ε, the bias that is let pass.

        Raises:
            InputError: a tolerance that is not above 0; "last step only" with a larger bias, which has no other K.
        """
        check_tolerance(tolerance)
        if self.scheme == "last step only" and not self.bias[0] <= tolerance:
            do = "Ask for that of 'windowed' or 'chunked'."
            raise InputError("horizon of 'last step only'", got=f"a bias of {self.bias[0]:.3g} and no other K", do=do)
        last = _last_beyond(self.bias, tolerance)
        low, high = (_last_beyond(curve, tolerance) for curve in (self.low, self.high))
        return Reach(
            1 if last < 0 else self._crossing(last, tolerance),
            1 if low < 0 else int(self.K[low]) + 1,
            1 if high < 0 else int(self.K[min(high + 1, len(self.K) - 1)]),
        )

    def _crossing(self, i: int, tolerance: float) -> int:
        """The first K above K[i] with b within the tolerance, by interpolation."""
        i = min(i, len(self.K) - 2)  # b(T) is 0
        near, far, b, after = int(self.K[i]), int(self.K[i + 1]), float(self.bias[i]), float(self.bias[i + 1])
        share = np.log(b / tolerance) / np.log(b / after) if after > 0 else (b - tolerance) / b
        return int(np.clip(np.ceil(near + share * (far - near) - 1e-9), near + 1, far))


def _last_beyond(curve: Array, tolerance: float) -> int:
    beyond = np.flatnonzero(curve > tolerance)
    return int(beyond[-1]) if len(beyond) else -1


def check_tolerance(tolerance: float) -> None:
    """Raise InputError unless it is above 0."""
    if not tolerance > 0:
        raise InputError("tolerance", got=tolerance, expected="a number above 0")


@np.errstate(all="ignore")
def truncation(ledger: Ledger, name: str, scheme: str = "windowed") -> Truncation:
    """What truncation loses of the gradient of one parameter, exactly, for K = 1…T, T its uses.

    Args:
        ledger: recorded with keep="full"; for "last step only" with factors. Of any source.
        name: the parameter, or one gate of it.
        scheme: "windowed", "chunked" or "last step only" (the last as the parameter's own direction walks).

    Raises:
        NotKeptError: the ledger has no contributions, or no factors.
        InputError: the ledger's own pass was truncated, or nothing says at which step each loss stands.
        UnknownName: no such parameter or scheme.

    >>> import bptt
    >>> from bptt.diagnose.truncation import truncation
    >>> found = truncation(bptt.explain("the cat sat down"), "W_hh")
    >>> found.K.tolist(), found.bias.round(2).tolist(), found.horizon(0.5).steps
    ([1, 2, 3, 4], [0.61, 0.25, 0.08, 0.0], 2)

    Source: Aicher, Foti, Fox 2019, arXiv 1905.07473.
    """
    if scheme not in SCHEMES:
        raise unknown("truncation scheme", scheme, SCHEMES)
    require_whole(ledger)
    dW, found = ledger.gradient(name), find(name, ledger.gradients, ledger.places)
    size, parameter = norm(dW), found.full if found.block is None else f"{found.full}.{name.rpartition('.')[2]}"
    if scheme == "last step only":
        step = 1 if ledger.place(name).reverse else ledger.steps(name)
        lost = [(0, dW - ledger.step_gradient(name, step))]
        bias, cosine = np.zeros(1), np.ones(1)
    else:
        ledger.loss_positions(name)  # whether there are lags at all
        lost = _windowed(ledger, name) if scheme == "windowed" else _chunked(ledger, name)
        bias, cosine = np.zeros(ledger.steps(name)), np.ones(ledger.steps(name))
    for at, beyond in lost if size > 0 else ():
        bias[at], cosine[at] = compare(beyond, dW, size)
    return exact(parameter, scheme, np.arange(1, len(bias) + 1), bias, cosine, ledger.K)


def exact(parameter: str, scheme: str, K: Array, bias: Array, cosine: Array, of: int) -> Truncation:
    """A truncation that was not sampled."""
    return Truncation(parameter, scheme, K, bias, cosine, bias, bias, True, of, of, 1.0)


def compare(lost: Array, dW: Array, size: float) -> tuple[float, float]:
    """b and the cosine, of what is lost of dW, ‖dW‖ = size > 0; infinite and 0 where that is beyond range."""
    unit = (dW.astype(np.float64) / size).reshape(-1)
    lost = (lost.astype(np.float64) / size).reshape(-1)
    if not np.isfinite(lost).all():
        return float("inf"), 0.0
    kept = unit - lost
    left = norm(kept)
    rounding = 64 * float(np.finfo(dW.dtype).eps)  # of the difference of two of size 1: it has no direction
    return norm(lost), float(np.clip(np.einsum("n,n->", kept, unit) / left, -1, 1)) if left > rounding else 0.0


def is_whole(ledger: Ledger) -> bool:
    """Whether its pass was not truncated itself."""
    return ledger.meta.get("plan", "Full()").startswith(("Full", "Checkpointed", "autograd"))


def require_whole(ledger: Ledger) -> None:
    """Raise InputError for a ledger whose own pass was truncated."""
    if not is_whole(ledger):
        plan = ledger.meta["plan"]
        do = "A truncated pass cannot say what it leaves out: record with plan=Full() or Checkpointed()."
        raise InputError("truncation bias", got=f"a ledger under {plan}", expected="the whole gradient", do=do)


def _windowed(ledger: Ledger, name: str) -> Iterator[tuple[int, Array]]:
    """K − 1, and Σ of the contributions with lag K and more."""
    lags = ledger.lags(name)
    beyond = np.zeros_like(ledger.gradient(name))
    for K in range(ledger.steps(name) - 1, 0, -1):
        beyond += ledger.lag_gradient(name, K)
        if lags[0] < 0:
            beyond += ledger.lag_gradient(name, -K)
        yield K - 1, beyond


def _chunked(ledger: Ledger, name: str) -> Iterator[tuple[int, Array]]:
    """K − 1, and Σ of the contributions whose loss stands in another chunk of K steps than the use.

    C[k, t] is linear in δ, so the losses after the chunk of t are added up first: one product for each K.
    """
    found = find(name, ledger.gradients, ledger.places)
    if found.full not in ledger.loss_uses:
        got = f"a ledger that kept {ledger.meta.get('keep')!r}"
        raise NotKeptError(f"what is asked of {found.full}", got=got, do="Record with keep='full'.")
    use, shape = ledger.loss_uses[found.full], ledger.gradients[found.full].shape
    at, T = ledger.loss_positions(name) - 1, ledger.steps(name)
    order, steps = np.argsort(at, kind="stable"), np.arange(T)
    stands = at[order]
    later = with_factors(use, delta=lambda d: _sums(d[order][::-1])[::-1])  # of the losses from one on
    both = ledger.lags(name)[0] < 0
    earlier = with_factors(use, delta=lambda d: _sums(d[order])) if both else later  # of the losses before one
    for K in range(1, T):
        end = np.searchsorted(stands, (steps // K + 1) * K)
        lost = total(with_factors(later, delta=lambda d, end=end: d[end, steps]), shape)
        if both:
            start = np.searchsorted(stands, steps // K * K)
            lost = lost + total(with_factors(earlier, delta=lambda d, start=start: d[start, steps]), shape)
        yield K - 1, lost if found.block is None else cut(lost, found.block, found.axis)


def _sums(a: Array) -> Array:
    """0, a_1, a_1 + a_2, … along the first axis."""
    out = np.zeros((len(a) + 1, *a.shape[1:]), a.dtype)
    np.cumsum(a, axis=0, out=out[1:])
    return out


def truncation_bias(ledger: Ledger, name: str) -> Array:
    """b(K) of one parameter for K = 1…T, (T,), T its uses; b(T) is 0. All zero where there is no gradient.

    Args:
        ledger: recorded with keep="full".
        name: the parameter.

    Raises:
        NotKeptError: the ledger has no contributions.
        InputError: the ledger's own pass was truncated, or nothing says at which step each loss stands.
        UnknownName: no such parameter.
    """
    return truncation(ledger, name).bias


def horizon(ledger: Ledger, name: str, tolerance: float = 0.01) -> int:
    """The smallest K from which on b(K) stays within the tolerance: how many steps back the gradient really reaches.

    1 means that only the loss's own step counts; T, that the whole sequence does (a longer one might reach further).

    Args:
        ledger: recorded with keep="full".
        name: the parameter.
        tolerance: ε, the bias that is let pass.

    Raises:
        InputError: a tolerance that is not above 0.
        NotKeptError, UnknownName: as `truncation_bias`.
    """
    check_tolerance(tolerance)
    return truncation(ledger, name).horizon(tolerance).steps

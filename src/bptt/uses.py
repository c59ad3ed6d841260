"""A use: one application of a shared parameter at one step, written as the two factors that BPTT computes anyway.

A parameter W that is used as a = z W at step t has dW_t = zᵀ δ, with z the input of the use and δ = ∂J/∂a. So a cell
returns the pair (z, δ) and never the matrix; who adds them up, and how, is not the cell's business.

A use may carry leading axes: z (T, B, M) and δ (T, B, N) are T uses at once; δ (K, T, B, N) with the same z are the
uses as K losses see them. Leading axes of z and δ broadcast against each other. Where the operation behind a use is not
known there are no factors, and dW_t itself stands in their place (`Ready`).
"""

from collections.abc import Callable
from typing import NamedTuple

from bptt.typing import Array


class Matmul(NamedTuple):
    """a = z W, so dW = zᵀ δ, summed over the batch.

    z: (..., B, M) input, or (..., B) integer ids that stand for one-hot rows.
    delta: (..., B, N) derivative by a.
    """

    z: Array
    delta: Array


class Linear(NamedTuple):
    """a = z Wᵀ, the way PyTorch stores W (N, M), so dW = δᵀ z, summed over the batch.

    z: (..., B, M) input.
    delta: (..., B, N) derivative by a.
    """

    z: Array
    delta: Array


class Elementwise(NamedTuple):
    """a = z ∘ w (a peephole), or a = … + w (a bias, z is None), so dw = Σ_b z ∘ δ.

    z: (..., B, N) input, None for ones.
    delta: (..., B, N) derivative by a.
    """

    z: Array | None
    delta: Array


class Columns(NamedTuple):
    """W = [W_1 | W_2 | …], blocks of columns that are used with different inputs: dW = [z_1ᵀ δ_1 | z_2ᵀ δ_2 | …]."""

    parts: tuple[Matmul, ...]


class Ready(NamedTuple):
    """dW_t itself, for uses whose operation is not known; sequences are added up in it.

    gradients: (T, *shape of W), or (K, T, *shape of W) as K losses see it.
    """

    gradients: Array


Factored = Matmul | Linear | Elementwise | Columns
Use = Factored | Ready
Uses = dict[str, Use]

Change = Callable[[Array], Array]


def with_factors(use: Use, z: Change | None = None, delta: Change | None = None) -> Use:
    """The same kind of use with its factors changed; None leaves one as it is, and ones (z is None) stay ones.

    dW_t of a `Ready` use stands for its δ, in which it is linear: so changes of δ fit it that touch leading axes only.

    >>> import numpy as np
    >>> with_factors(Elementwise(None, np.ones((2, 3))), delta=lambda a: 2 * a).delta.sum()
    np.float64(12.0)
    """
    if isinstance(use, Columns):
        return Columns(tuple(Matmul(_changed(part.z, z), _changed(part.delta, delta)) for part in use.parts))
    if isinstance(use, Ready):
        return Ready(_changed(use.gradients, delta))
    if isinstance(use, Matmul | Linear):
        return type(use)(_changed(use.z, z), _changed(use.delta, delta))
    return Elementwise(None if use.z is None else _changed(use.z, z), _changed(use.delta, delta))


def _changed(a: Array, of: Change | None) -> Array:
    return a if of is None else of(a)


__all__ = ["Columns", "Elementwise", "Factored", "Linear", "Matmul", "Ready", "Use", "Uses", "with_factors"]

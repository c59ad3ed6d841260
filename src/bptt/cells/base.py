"""What a cell is, and the three functions that every cell is written with.

A cell is two mirrored functions. `step` takes the state one step on; `step_back` is `step` read from bottom to top.
Neither loops over time, and neither adds anything up: `step_back` returns uses (see `bptt.uses`).
"""

from typing import Any, Protocol

import numpy as np

from bptt.errors import InputError
from bptt.typing import Array, Params
from bptt.uses import Uses


class Cell(Protocol):
    """The protocol of a cell.

    hidden: H, the number of units.
    width: width of the output h, which is H, or P with an output projection.
    gates: names of the column blocks of W_xh, W_hh and b, in their order.
    elementwise: parameters that are used elementwise (biases, peepholes); all others are matrices.
    Params, State: named tuples of the parameters and of the whole state, h first.
    """

    hidden: int
    Params: Any
    State: Any

    @property
    def name(self) -> str:
        """The cell and its options, in words."""
        ...

    @property
    def width(self) -> int:
        """Width of the output h."""
        ...

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the column blocks, in order."""
        ...

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Name → shape of each parameter, for D = `inputs`."""
        ...

    def state_widths(self) -> tuple[int, ...]:
        """Width of each part of the state."""
        ...

    def step(self, p: Any, x: Array, s: Any) -> tuple[Any, Any]:
        """One step: parameters, input (B, D) or ids (B,), state → next state and the tape that `step_back` reads."""
        ...

    def step_back(self, p: Any, tape: Any, ds: Any) -> tuple[Any, Array | None, Uses]:
        """The step reversed: adjoint ds of the state after → adjoint of the state before, dx (None for ids), uses.

        ds may carry leading axes (K losses at once); everything returned then carries them too.
        """
        ...


def check_units(what: str, size: object) -> None:
    """Raise InputError unless `size` is a whole number of at least 1."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(what, got=repr(size), expected="a whole number, at least 1")


def times(x: Array, W: Array) -> Array:
    """X W for rows x (..., M); integer ids (...) are one-hot rows, so that they pick rows of W.

    Leading axes are folded into one product, since one large product is faster than many small ones.
    """
    if x.dtype.kind in "iu":
        return W[x]
    if x.ndim == 2:
        return x @ W
    return (x.reshape(-1, x.shape[-1]) @ W).reshape(*x.shape[:-1], W.shape[1])


def times_transposed(da: Array, W: Array, x: Array) -> Array | None:
    """The adjoint of x in a = x W, which is da Wᵀ; None where x holds ids, since an id has no derivative."""
    return None if x.dtype.kind in "iu" else times(da, W.T)


def sigmoid(a: Array) -> Array:
    """σ(a) = 1 / (1 + e⁻ᵃ), for a < 0 written as eᵃ / (1 + eᵃ): nothing overflows, and a closed gate keeps its digits.

    Analytic on either side of 0, so that complex steps pass.
    """
    open_ = a.real >= 0
    e = np.exp(np.where(open_, -a, a))
    return np.where(open_, 1, e) / (1 + e)


def initial_state(cell: Cell, batch: int, dtype: Any) -> Any:
    """The state before the first step: zeros (B, S) for each part of the state."""
    return cell.State(*(np.zeros((batch, width), dtype) for width in cell.state_widths()))


def pick(cell: Cell, params: Params, prefix: str) -> Any:
    """The cell's own named tuple of parameters, out of the network's flat mapping."""
    fields: tuple[str, ...] = cell.Params._fields
    return cell.Params(**{name: params[prefix + name] for name in fields if prefix + name in params})

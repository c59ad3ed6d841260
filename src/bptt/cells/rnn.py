"""The simple recurrent network (Elman 1990), with tanh or with relu (Le, Jaitly, Hinton 2015, arXiv 1504.00941).

B batch · D input · H hidden

    a = x W_xh + h_prev W_hh + b
    h = tanh(a)   or   relu(a)
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bptt.cells.base import check_units, times, times_transposed
from bptt.errors import unknown
from bptt.typing import Array
from bptt.uses import Elementwise, Matmul, Uses

NONLINEARITIES = ("tanh", "relu")


class RNNParams(NamedTuple):
    """W_xh (D, H), W_hh (H, H), b (H,)."""

    W_xh: Array
    W_hh: Array
    b: Array


class RNNState(NamedTuple):
    """h (B, H)."""

    h: Array


class RNNTape(NamedTuple):
    """What `step_back` reads: x (B, D), h_prev (B, H), h (B, H)."""

    x: Array
    h_prev: Array
    h: Array


@dataclass(frozen=True)
class RNN:
    """The simple recurrent cell.

    Args:
        hidden: H, the number of units.
        nonlinearity: "tanh" or "relu".

    Raises:
        InputError: no hidden unit.
        UnknownName: a nonlinearity that is neither.
    """

    hidden: int
    nonlinearity: str = "tanh"
    Params = RNNParams
    State = RNNState

    def __post_init__(self):
        check_units("hidden units", self.hidden)
        if self.nonlinearity not in NONLINEARITIES:
            raise unknown("nonlinearity", self.nonlinearity, NONLINEARITIES)

    @property
    def name(self) -> str:
        """The cell and its options, in words."""
        return f"RNN ({self.nonlinearity})"

    @property
    def width(self) -> int:
        """H."""
        return self.hidden

    @property
    def gates(self) -> tuple[str, ...]:
        """One block: the state itself."""
        return ("h",)

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Name → shape of each parameter, for D = `inputs`."""
        H = self.hidden
        return {"W_xh": (inputs, H), "W_hh": (H, H), "b": (H,)}

    def state_widths(self) -> tuple[int, ...]:
        """h has H units."""
        return (self.hidden,)

    def step(self, p: RNNParams, x: Array, s: RNNState) -> tuple[RNNState, RNNTape]:
        """One step of the equations at the top of this file."""
        a = times(x, p.W_xh) + times(s.h, p.W_hh) + p.b
        h = np.tanh(a) if self.nonlinearity == "tanh" else np.where(a.real <= 0, 0, a)
        return RNNState(h), RNNTape(x, s.h, h)

    def step_back(self, p: RNNParams, tape: RNNTape, ds: RNNState) -> tuple[RNNState, Array | None, Uses]:
        """The step reversed."""
        x, h_prev, h = tape
        da = ds.h * (1 - h * h if self.nonlinearity == "tanh" else h > 0)  # h = tanh(a) or relu(a)
        uses: Uses = {  # a = x W_xh + h_prev W_hh + b
            "W_xh": Matmul(x, da),
            "W_hh": Matmul(h_prev, da),
            "b": Elementwise(None, da),
        }
        return RNNState(times(da, p.W_hh.T)), times_transposed(da, p.W_xh, x), uses

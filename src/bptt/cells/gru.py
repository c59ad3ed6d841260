"""The gated recurrent unit (Cho et al. 2014, arXiv 1406.1078), in both forms that frameworks have.

B batch · D input · H hidden · gates r (reset), z (update), n (candidate), in this order

    reset after the product (PyTorch, cuDNN, Keras `reset_after=True`, ONNX `linear_before_reset=1`):
        r = σ(x W_xr + h_prev W_hr + b_r)
        z = σ(x W_xz + h_prev W_hz + b_z)
        q = h_prev W_hn + b_hn
        n = tanh(x W_xn + b_n + r ∘ q)

    reset before the product (the paper, Keras `reset_after=False`, ONNX `linear_before_reset=0`):
        r, z as above
        q = r ∘ h_prev
        n = tanh(x W_xn + b_n + q W_hn)

    in both:
        h = n + z ∘ (h_prev − n)

The z of this file keeps the old state, as in all four frameworks; the paper's z does the same.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bptt.cells.base import check_units, sigmoid, times, times_transposed
from bptt.errors import unknown
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Matmul, Uses

RESETS = ("after", "before")


class GRUParams(NamedTuple):
    """W_xh (D, 3H), W_hh (H, 3H), b (3H,), and b_hn (H,) where the reset comes after the product."""

    W_xh: Array
    W_hh: Array
    b: Array
    b_hn: Array | None = None


class GRUState(NamedTuple):
    """h (B, H)."""

    h: Array


class GRUTape(NamedTuple):
    """What `step_back` reads: x (B, D), and h_prev, r, z, q, n, each (B, H)."""

    x: Array
    h_prev: Array
    r: Array
    z: Array
    q: Array
    n: Array


@dataclass(frozen=True)
class GRU:
    """The gated recurrent unit.

    Args:
        hidden: H, the number of units.
        reset: "after" or "before" the recurrent product of the candidate.

    Raises:
        InputError: no hidden unit.
        UnknownName: a reset that is neither.
    """

    hidden: int
    reset: str = "after"
    Params = GRUParams
    State = GRUState

    def __post_init__(self):
        check_units("hidden units", self.hidden)
        if self.reset not in RESETS:
            raise unknown("reset", self.reset, RESETS)

    @property
    def name(self) -> str:
        """The cell and its options, in words."""
        return f"GRU (reset {self.reset})"

    @property
    def width(self) -> int:
        """H."""
        return self.hidden

    @property
    def gates(self) -> tuple[str, ...]:
        """Reset, update, candidate."""
        return ("r", "z", "n")

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Name → shape of each parameter, for D = `inputs`."""
        H = self.hidden
        shapes: dict[str, tuple[int, ...]] = {"W_xh": (inputs, 3 * H), "W_hh": (H, 3 * H), "b": (3 * H,)}
        return shapes | {"b_hn": (H,)} if self.reset == "after" else shapes

    def state_widths(self) -> tuple[int, ...]:
        """h has H units."""
        return (self.hidden,)

    def step(self, p: GRUParams, x: Array, s: GRUState) -> tuple[GRUState, GRUTape]:
        """One step of the equations at the top of this file."""
        H, h_prev = self.hidden, s.h
        a = times(x, p.W_xh) + p.b
        u = times(h_prev, p.W_hh if self.reset == "after" else p.W_hh[:, : 2 * H])
        r = sigmoid(a[:, :H] + u[:, :H])
        z = sigmoid(a[:, H : 2 * H] + u[:, H : 2 * H])
        if self.reset == "after":
            q = u[:, 2 * H :] + p.b_hn
            n = np.tanh(a[:, 2 * H :] + r * q)
        else:
            q = r * h_prev
            n = np.tanh(a[:, 2 * H :] + times(q, p.W_hh[:, 2 * H :]))
        h = n + z * (h_prev - n)
        return GRUState(h), GRUTape(x, h_prev, r, z, q, n)

    def step_back(self, p: GRUParams, tape: GRUTape, ds: GRUState) -> tuple[GRUState, Array | None, Uses]:
        """The step reversed."""
        H, (x, h_prev, r, z, q, n) = self.hidden, tape
        dh_prev, dz, dn = ds.h * z, ds.h * (h_prev - n), ds.h * (1 - z)  # h = n + z (h_prev - n)
        da_n = dn * (1 - n * n)  # n = tanh(…)
        da_z = dz * z * (1 - z)
        if self.reset == "after":
            dr, dq = da_n * q, da_n * r  # … + r q
            da_r = dr * r * (1 - r)
            du = np.concatenate([da_r, da_z, dq], axis=-1)  # u = h_prev W_hh, q = u_n + b_hn
            dh_prev = dh_prev + times(du, p.W_hh.T)
            recurrent = {"W_hh": Matmul(h_prev, du), "b_hn": Elementwise(None, dq)}
        else:
            dq = times(da_n, p.W_hh[:, 2 * H :].T)  # … + q W_hn
            dr = dq * h_prev  # q = r h_prev
            da_r = dr * r * (1 - r)
            du = np.concatenate([da_r, da_z], axis=-1)  # u = h_prev [W_hr | W_hz]
            dh_prev = dh_prev + dq * r + times(du, p.W_hh[:, : 2 * H].T)
            recurrent = {"W_hh": Columns((Matmul(h_prev, du), Matmul(q, da_n)))}
        da = np.concatenate([da_r, da_z, da_n], axis=-1)  # a = x W_xh + b
        uses: Uses = {"W_xh": Matmul(x, da), **recurrent, "b": Elementwise(None, da)}
        return GRUState(dh_prev), times_transposed(da, p.W_xh, x), uses

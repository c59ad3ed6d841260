"""Long short-term memory (Hochreiter & Schmidhuber 1997), with the forget gate of Gers et al. 2000.

B batch · D input · H hidden · P projected (P = H without projection) · gates i, f, g, o, in this order

    i = σ(x W_xi + h_prev W_hi + b_i + p_i ∘ c_prev)
    f = σ(x W_xf + h_prev W_hf + b_f + p_f ∘ c_prev)
    g = tanh(x W_xg + h_prev W_hg + b_g)
    c = f ∘ c_prev + i ∘ g
    o = σ(x W_xo + h_prev W_ho + b_o + p_o ∘ c)
    y = tanh(c)
    m = o ∘ y
    h = m W_hr          (with output projection, Sak et al. 2014, arXiv 1402.1128; otherwise h = m)

Peepholes p (Gers & Schmidhuber 2000) are optional. The gate order is PyTorch's; `bptt.model.layouts` knows the others.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bptt.cells.base import check_units, sigmoid, times, times_transposed
from bptt.typing import Array
from bptt.uses import Elementwise, Matmul, Uses


class LSTMParams(NamedTuple):
    """W_xh (D, 4H), W_hh (P, 4H), b (4H,); peepholes p_i, p_f, p_o (H,) and projection W_hr (H, P) where used."""

    W_xh: Array
    W_hh: Array
    b: Array
    p_i: Array | None = None
    p_f: Array | None = None
    p_o: Array | None = None
    W_hr: Array | None = None


class LSTMState(NamedTuple):
    """h (B, P) and c (B, H)."""

    h: Array
    c: Array


class LSTMTape(NamedTuple):
    """What `step_back` reads: x (B, D), h_prev (B, P), and c_prev, i, f, g, o, c, y, m, each (B, H)."""

    x: Array
    h_prev: Array
    c_prev: Array
    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    y: Array
    m: Array


@dataclass(frozen=True)
class LSTM:
    """The long short-term memory cell.

    Args:
        hidden: H, the number of memory cells.
        peepholes: whether the gates see the memory.
        projection: P, the width of the output, or None for P = H and no W_hr.

    Raises:
        InputError: no hidden unit, or a projection to none.
    """

    hidden: int
    peepholes: bool = False
    projection: int | None = None
    Params = LSTMParams
    State = LSTMState

    def __post_init__(self):
        check_units("hidden units", self.hidden)
        if self.projection is not None:
            check_units("projection", self.projection)

    @property
    def name(self) -> str:
        """The cell and its options, in words."""
        options = ["peepholes"] * self.peepholes + [f"projection {self.projection}"] * (self.projection is not None)
        return f"LSTM ({', '.join(options)})" if options else "LSTM"

    @property
    def width(self) -> int:
        """P with a projection, H without."""
        return self.hidden if self.projection is None else self.projection

    @property
    def gates(self) -> tuple[str, ...]:
        """Input, forget, candidate, output."""
        return ("i", "f", "g", "o")

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Name → shape of each parameter, for D = `inputs`."""
        H, P = self.hidden, self.width
        shapes: dict[str, tuple[int, ...]] = {"W_xh": (inputs, 4 * H), "W_hh": (P, 4 * H), "b": (4 * H,)}
        if self.peepholes:
            shapes |= {"p_i": (H,), "p_f": (H,), "p_o": (H,)}
        return shapes if self.projection is None else shapes | {"W_hr": (H, P)}

    def state_widths(self) -> tuple[int, ...]:
        """h has P units, c has H."""
        return (self.width, self.hidden)

    def step(self, p: LSTMParams, x: Array, s: LSTMState) -> tuple[LSTMState, LSTMTape]:
        """One step of the equations at the top of this file."""
        H, (h_prev, c_prev) = self.hidden, s
        a = times(x, p.W_xh) + times(h_prev, p.W_hh) + p.b
        a_i, a_f, a_g, a_o = a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]
        if self.peepholes:
            a_i, a_f = a_i + p.p_i * c_prev, a_f + p.p_f * c_prev
        i, f, g = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g)
        c = f * c_prev + i * g
        if self.peepholes:
            a_o = a_o + p.p_o * c
        o = sigmoid(a_o)
        y = np.tanh(c)
        m = o * y
        h = m if p.W_hr is None else times(m, p.W_hr)
        return LSTMState(h, c), LSTMTape(x, h_prev, c_prev, i, f, g, o, c, y, m)

    def step_back(self, p: LSTMParams, tape: LSTMTape, ds: LSTMState) -> tuple[LSTMState, Array | None, Uses]:
        """The step reversed."""
        x, h_prev, c_prev, i, f, g, o, c, y, m = tape
        dm = ds.h if p.W_hr is None else times(ds.h, p.W_hr.T)  # h = m W_hr
        do, dy = dm * y, dm * o  # m = o y
        da_o = do * o * (1 - o)
        dc = ds.c + dy * (1 - y * y)  # y = tanh(c)
        if self.peepholes:
            dc = dc + da_o * p.p_o  # a_o = … + p_o c
        di, df, dg, dc_prev = dc * g, dc * c_prev, dc * i, dc * f  # c = f c_prev + i g
        da_i, da_f, da_g = di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g)
        if self.peepholes:
            dc_prev = dc_prev + da_i * p.p_i + da_f * p.p_f  # a_i = … + p_i c_prev
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=-1)  # a = x W_xh + h_prev W_hh + b
        uses: Uses = {"W_xh": Matmul(x, da), "W_hh": Matmul(h_prev, da), "b": Elementwise(None, da)}
        if self.peepholes:
            peeps = {"p_i": (c_prev, da_i), "p_f": (c_prev, da_f), "p_o": (c, da_o)}
            uses |= {name: Elementwise(z, delta) for name, (z, delta) in peeps.items()}
        if p.W_hr is not None:
            uses["W_hr"] = Matmul(m, ds.h)
        return LSTMState(times(da, p.W_hh.T), dc_prev), times_transposed(da, p.W_xh, x), uses

"""The tangent of a step: what a small change of the state before it, and of its input, makes of the state after it.

`step_back` read from top to bottom again, with δX the change of X; so J v costs what Jᵀ a does. A cell of one's own has
no such function: there a complex step through its `step` gives the same numbers, to rounding (Squire & Trapp 1998).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bptt.cells import GRU, LSTM, RNN, times
from bptt.typing import Array

TINY = 1e-40  # of the complex step: its square is below all digits
Tangent = Callable[[Any, Any, Any, Any, Any], Any]


def tangent(cell: Any, p: Any, tape: Any, dx: Array | None, ds: Any) -> Any:
    """The change of the state after a step.

    Args:
        cell, p: the cell and its parameters.
        tape: of the step, parts (B, ·).
        dx: (..., B, D) change of the input, None for none.
        ds: change of the state before, parts (..., B, ·).
    """
    return TANGENTS.get(type(cell), complex_step)(cell, p, tape, dx, ds)


def complex_step(cell: Any, p: Any, tape: Any, dx: Array | None, ds: Any) -> Any:
    """Im s(x + iε dx, s_prev + iε ds) / ε; a tape names the input x and the parts of the state h_prev, c_prev, …"""
    lead = ds.h.shape[:-2]
    size = max(1.0, *(float(abs(part).max(initial=0)) for part in (*ds, *([] if dx is None else [dx]))))
    parts = [getattr(tape, f"{name}_prev") for name in ds._fields]
    before = type(ds)(*(_rows(s, lead) + 1j * TINY * _flat(d / size) for s, d in zip(parts, ds, strict=True)))
    x = _rows(tape.x, lead)
    after, _ = cell.step(p, x if dx is None else x + 1j * TINY * _flat(dx / size), before)
    return type(ds)(*(np.imag(s).reshape(*lead, -1, s.shape[-1]) / TINY * size for s in after))


def _rows(a: Array, lead: tuple[int, ...]) -> Array:
    """The same rows for every leading index, as `step` takes them."""
    return np.broadcast_to(a, (*lead, *a.shape)).reshape(-1, *a.shape[1:])


def _flat(a: Array) -> Array:
    return a.reshape(-1, a.shape[-1])


def _inputs(p: Any, dx: Array | None) -> Any:
    return 0.0 if dx is None else times(dx, p.W_xh)


def _rnn(cell: RNN, p: Any, tape: Any, dx: Array | None, ds: Any) -> Any:
    da = times(ds.h, p.W_hh) + _inputs(p, dx)  # a = x W_xh + h_prev W_hh + b
    h = tape.h
    return type(ds)(da * (1 - h * h if cell.nonlinearity == "tanh" else h > 0))  # h = tanh(a) or relu(a)


def _gru(cell: GRU, p: Any, tape: Any, dx: Array | None, ds: Any) -> Any:
    H, (_, h_prev, r, z, q, n) = cell.hidden, tape
    after = cell.reset == "after"
    da = np.zeros((*ds.h.shape[:-1], 3 * H)) + _inputs(p, dx)
    du = times(ds.h, p.W_hh if after else p.W_hh[:, : 2 * H])
    dr = (da[..., :H] + du[..., :H]) * r * (1 - r)
    dz = (da[..., H : 2 * H] + du[..., H : 2 * H]) * z * (1 - z)
    da_n = dr * q + r * du[..., 2 * H :] if after else times(dr * h_prev + r * ds.h, p.W_hh[:, 2 * H :])
    dn = (da[..., 2 * H :] + da_n) * (1 - n * n)  # a_n = … + r q, or q = r h_prev and a_n = … + q W_hn
    return type(ds)(dn + dz * (h_prev - n) + z * (ds.h - dn))  # h = n + z (h_prev - n)


def _lstm(cell: LSTM, p: Any, tape: Any, dx: Array | None, ds: Any) -> Any:
    H, (_, _, c_prev, i, f, g, o, _, y, _) = cell.hidden, tape
    da = times(ds.h, p.W_hh) + _inputs(p, dx)
    da_i, da_f, da_g, da_o = (da[..., at * H : (at + 1) * H] for at in range(4))
    if cell.peepholes:
        da_i, da_f = da_i + p.p_i * ds.c, da_f + p.p_f * ds.c
    di, df, dg = da_i * i * (1 - i), da_f * f * (1 - f), da_g * (1 - g * g)
    dc = df * c_prev + f * ds.c + di * g + i * dg  # c = f c_prev + i g
    if cell.peepholes:
        da_o = da_o + p.p_o * dc
    dm = da_o * o * (1 - o) * y + o * (1 - y * y) * dc  # m = o tanh(c)
    return type(ds)(dm if p.W_hr is None else times(dm, p.W_hr), dc)


TANGENTS: dict[Any, Tangent] = {RNN: _rnn, GRU: _gru, LSTM: _lstm}

"""The gated recurrent unit, a whole sequence at a time.

The ladder (T = 100, B = 32, D = 64, H = 128, float32, forward and back without a ledger, one thread, ms):
    37.5    the reference, one loop over time in NumPy
    9.9     one call for the sequence, weights packed once, products in register tiles
    8.7     tapes and deltas in memory that is used again, losses and checks without temporaries
    7.0     the equations of a row in registers, one pass
    4.2     two threads

B row · D input · H unit · gates r, z, n.   Flat arrays: gates (n, B, 3H), q (n, B, H), h (n + 1, B, H), da and du as
the gates. Step t leads from h[t] to h[t + 1], in the other direction from h[t + 1] to h[t].

q is h_prev W_hn + b_hn where the reset comes after the product, r ∘ h_prev where it comes before.
"""

from typing import Any, NamedTuple

import numpy as np

from bptt.engine.compiled.emit import lanes, rows
from bptt.engine.compiled.functions import sigmoid, tanh
from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.measure import row_norm
from bptt.engine.compiled.memory import aligned
from bptt.engine.compiled.product import multiply, packed
from bptt.engine.compiled.steps import hold, input_weights, is_cut, meet, project, put_inputs, steps_at_once
from bptt.engine.compiled.vector import flush_denormals, restore
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Matmul, Uses


@kernel
def forward(
    x, ids, Px, Wx, b, b_hn, Pg, Pn, width, gates, q, h, valid, reverse, before, sizes, rows, units, counter, parties
):  # fmt: skip
    """r, z = σ(x W_x + h_prev W_g + b); n = tanh(x W_n + b_n + r q); h = n + z (h_prev − n)."""
    control = flush_denormals()
    n, B, D, H = sizes
    (low, high), (one, two) = rows, units
    some = steps_at_once(B, low, high)
    for done in range(0, n, some):
        many = min(some, n - done)
        begin = n - done - many if reverse else done
        put_inputs(x, ids, Px, Wx, b, width, gates, 0, begin, many, B, D, H, 3, rows, units)
        for i in range(many):
            t = begin + (many - 1 - i if reverse else i)
            came, to = (t + 1, t) if reverse else (t, t + 1)
            at, count = (came * B + low) * H, high - low
            g = (t * B + low) * 3 * H
            project(h, at, H, count, H, Pg, width, gates, g, 3 * H, H, 2, one, two)
            if not before:
                for r in range(low, high):
                    q[(t * B + r) * H + one : (t * B + r) * H + two] = b_hn[one:two]
                project(h, at, H, count, H, Pn, width, q, (t * B + low) * H, H, H, 1, one, two)
            if before:
                for r in range(low, high):
                    _gate(gates, q, h, t * B + r, came * B + r, H)
                project(q, (t * B + low) * H, H, count, H, Pn, width, gates, g + 2 * H, 3 * H, H, 1, one, two)
            for r in range(low, high):
                _next(gates, q, h, before, t * B + r, came * B + r, to * B + r, H, one, two)
                hold(valid, t * B + r, h, came * B + r, to * B + r, H, one, two)
            meet(counter, parties)
    restore(control)


def _gru_step(code, at):
    """r, z, n, q, h_prev, h: the gates in place."""
    pre_r, pre_z, pre_n, q, old, new = at
    r, z = code.sigmoid(code.load(pre_r)), code.sigmoid(code.load(pre_z))
    n, h = code.tanh(code.fma(r, code.load(q), code.load(pre_n))), code.load(old)
    for value, place in ((r, pre_r), (z, pre_z), (n, pre_n), (code.fma(z, code.sub(h, n), n), new)):
        code.store(value, place)


def _gru_step_back(code, at):
    """r, z, n, q, h_prev, dh, da of r, z, n, du of r, z, n: dh in place."""
    r, z, n, q, old, dh = (code.load(place) for place in at[:6])
    da_z = code.mul(dh, code.sub(old, n), z, code.rest(z))
    da_n = code.mul(dh, code.rest(z), code.rest(code.mul(n, n)))
    da_r, dq = code.mul(da_n, q, r, code.rest(r)), code.mul(da_n, r)
    for value, place in zip((code.mul(dh, z), da_r, da_z, da_n, da_r, da_z, dq), at[5:], strict=True):
        code.store(value, place)


step_row, back_row = rows(6, _gru_step), rows(12, _gru_step_back)


@kernel
def _gate(gates, q, h, at, came, H):
    """r, z and r ∘ h_prev of one row, where the candidate's product is made of it."""
    g = at * 3 * H
    sigmoid(gates, g, 2 * H)
    r, old, into = gates[g : g + H], h[came * H : (came + 1) * H], q[at * H : (at + 1) * H]
    for j in range(H):
        into[j] = r[j] * old[j]


@kernel
def _next(gates, q, h, before, at, came, to, H, one, two):
    """The new h of one row; with the reset after the product its gates too."""
    g = at * 3 * H
    if not before:  # whole vectors first, and what is left one by one
        whole = (two - one) // lanes(h.itemsize) * lanes(h.itemsize)
        step_row(
            gates, g + one, gates, g + H + one, gates, g + 2 * H + one, q, at * H + one, h, came * H + one,
            h, to * H + one, whole,
        )  # fmt: skip
        one += whole
        if one == two:
            return
    many = two - one
    r, z, n = gates[g + one : g + two], gates[g + H + one : g + H + two], gates[g + 2 * H + one : g + 2 * H + two]
    if not before:
        sigmoid(gates, g + one, many)
        sigmoid(gates, g + H + one, many)
        part = q[at * H + one : at * H + two]
        for j in range(many):
            n[j] += r[j] * part[j]
    tanh(gates, g + 2 * H + one, many)
    old, new = h[came * H + one : came * H + two], h[to * H + one : to * H + two]
    for j in range(many):
        new[j] = n[j] + z[j] * (old[j] - n[j])


@kernel
def back(
    gates, q, h, valid, cut, reverse, before, Pg, Pn, width, dtop, dh, da, du, dq, lead, sizes, states, shape, span,
    rows, units, counter, parties,
):  # fmt: skip
    """da of r, z, n and du of the recurrent product, from the last step of the span to its first.

    dh (R, H): adjoint of the state after the span, then of the state before it.  dq (R, H): scratch.
    lead: first loss of the rows (−1: all losses added up, R = B), how far each reaches, first step of the stretch.
    sizes (n + 1, B), states (n + 1, B, H): norms or all of the adjoints of the state on the way, one of them or none.
    """
    control = flush_denormals()
    n, B, H = shape
    (low, high), (one, two), (first, reach, start) = rows, units, lead
    onward, many, wide = 1 if reverse else -1, two - one, 2 * H if before else 3 * H
    for i in range(span[1] - span[0]):
        t = span[0] + i if reverse else span[1] - 1 - i
        (came, to), base = ((t + 1, t) if reverse else (t, t + 1)), (t * B if first < 0 else 0)
        for r in range(low, high):
            b = r % B
            into = dh[r * H + one : r * H + two]
            live = not valid.size or valid[t * B + b]
            if dtop.size and live:
                add = dtop[(t * B + b) * H + one : (t * B + b) * H + two]
                for j in range(many):
                    into[j] += add[j]
            if sizes.size:
                sizes[to * B + b] = row_norm(dh, r * H, H)
            elif states.size:
                states[(to * B + b) * H + one : (to * B + b) * H + two] = into
            if live and not before:
                _row_back(gates, q, h, dh, da, du, t * B + b, came * B + b, base + r, r, H, one, two)
            elif live:
                _candidate_back(gates, h, into, da, t * B + b, came * B + b, base + r, H, one, two)
            else:
                for gate in range(3):
                    da[(base + r) * 3 * H + gate * H + one : (base + r) * 3 * H + gate * H + two] = 0
            if before:
                dq[r * H : (r + 1) * H] = 0
        if before:
            a = (base + low) * 3 * H + 2 * H
            multiply(da, a, 3 * H, high - low, H, Pn, width, dq, low * H, H, H, 0, -(-H // width))
        for r in range(low, high):
            b = r % B
            if not valid.size or valid[t * B + b]:
                if before:
                    _gates_back(gates, h, dh, dq, da, du, t * B + b, came * B + b, base + r, r, H)
            else:
                for gate in range(wide // H):
                    du[(base + r) * wide + gate * H + one : (base + r) * wide + gate * H + two] = 0
        meet(counter, parties)
        a, last = (base + low) * wide, -(-two // width)
        multiply(du, a, wide, high - low, wide, Pg, width, dh, low * H, H, H, one // width, last)
        for r in range(low, high):
            loss = first + r // B if first >= 0 else -1
            if is_cut(cut, valid, t, onward, B, n, r % B, loss, reach, start):
                dh[r * H + one : r * H + two] = 0
    restore(control)


@kernel
def _candidate_back(gates, h, dh, da, at, came, out, H, one, two):
    """da_z and da_n of one row; what is left of dh is the part that z hands on."""
    g, many, unit = at * 3 * H, two - one, h.dtype.type(1)
    z, n = gates[g + H + one : g + H + two], gates[g + 2 * H + one : g + 2 * H + two]
    old, o = h[came * H + one : came * H + two], out * 3 * H
    da_z, da_n = da[o + H + one : o + H + two], da[o + 2 * H + one : o + 2 * H + two]
    for j in range(many):
        da_z[j] = dh[j] * (old[j] - n[j]) * z[j] * (unit - z[j])
    for j in range(many):
        da_n[j] = dh[j] * (unit - z[j]) * (unit - n[j] * n[j])
    for j in range(many):
        dh[j] *= z[j]


@kernel
def _row_back(gates, q, h, dh, da, du, at, came, out, row, H, one, two):
    """da and du of one row, the reset after the product; what is left of dh is the part that z hands on."""
    g, o = at * 3 * H, out * 3 * H
    whole = (two - one) // lanes(h.itemsize) * lanes(h.itemsize)
    back_row(
        gates, g + one, gates, g + H + one, gates, g + 2 * H + one, q, at * H + one, h, came * H + one,
        dh, row * H + one, da, o + one, da, o + H + one, da, o + 2 * H + one, du, o + one, du, o + H + one,
        du, o + 2 * H + one, whole,
    )  # fmt: skip
    one += whole
    if one == two:
        return
    into, r = dh[row * H + one : row * H + two], gates[g + one : g + two]
    _candidate_back(gates, h, into, da, at, came, out, H, one, two)
    da_r, da_z, da_n = da[o + one : o + two], da[o + H + one : o + H + two], da[o + 2 * H + one : o + 2 * H + two]
    part, du_n, unit = q[at * H + one : at * H + two], du[o + 2 * H + one : o + 2 * H + two], h.dtype.type(1)
    for j in range(two - one):
        da_r[j] = da_n[j] * part[j] * r[j] * (unit - r[j])
    for j in range(two - one):
        du_n[j] = da_n[j] * r[j]
    du[o + one : o + two] = da_r
    du[o + H + one : o + H + two] = da_z


@kernel
def _gates_back(gates, h, dh, dq, da, du, at, came, out, row, H):
    """da_r and du of one row, the reset before the product."""
    g, o, wide, unit = at * 3 * H, out * 3 * H, out * 2 * H, h.dtype.type(1)
    r, da_r, da_z = gates[g : g + H], da[o : o + H], da[o + H : o + 2 * H]
    back_q, old, into = dq[row * H : (row + 1) * H], h[came * H : (came + 1) * H], dh[row * H : (row + 1) * H]
    for j in range(H):
        da_r[j] = back_q[j] * old[j] * r[j] * (unit - r[j])
    for j in range(H):
        into[j] += back_q[j] * r[j]
    du[wide : wide + H] = da_r
    du[wide + H : wide + 2 * H] = da_z


class Tape(NamedTuple):
    """gates (n, B, 3H), q (n, B, H), h (n + 1, B, H)."""

    gates: Array
    q: Array
    h: Array


class GRUKernel:
    """The kernels of a GRU under the names that every cell's have (`bptt.engine.compiled.walk`)."""

    def __init__(self, cell: Any):
        self.cell, self.before = cell, cell.reset == "before"
        self.divisible = not self.before  # the candidate's product needs r of all units

    def weights(self, p: Any, ids: bool) -> Any:
        """Packed for the way forward."""
        H = self.cell.hidden
        b_hn = np.empty(0, p.b.dtype) if p.b_hn is None else np.array(p.b_hn)
        return (
            *input_weights(p.W_xh, ids),
            np.array(p.b),
            b_hn,
            packed(p.W_hh[:, : 2 * H]),
            packed(p.W_hh[:, 2 * H :]),
        )

    def weights_back(self, p: Any) -> Any:
        """Packed for the way back."""
        H = self.cell.hidden
        if not self.before:
            return packed(p.W_hh, transposed=True), np.empty(0, p.b.dtype)
        return packed(p.W_hh[:, : 2 * H], transposed=True), packed(p.W_hh[:, 2 * H :], transposed=True)

    def tape(self, n: int, B: int, dtype: Any) -> Tape:
        """Memory for a walk of n steps."""
        H = self.cell.hidden
        return Tape(aligned((n, B, 3 * H), dtype), aligned((n, B, H), dtype), aligned((n + 1, B, H), dtype))

    def states(self, tape: Tape) -> tuple[Array, ...]:
        """The parts of the state at every step, (n + 1, B, S)."""
        return (tape.h,)

    def deltas(self, rows: int, dtype: Any) -> tuple[Array, ...]:
        """Memory for the deltas of so many rows, (rows, N): da, and du of the recurrent product."""
        H = self.cell.hidden
        return aligned((rows, 3 * H), dtype), aligned((rows, (2 if self.before else 3) * H), dtype)

    def scratch(self, rows: int, dtype: Any) -> tuple[Array, ...]:
        """What `back` needs for itself."""
        return (aligned((rows if self.before else 0, self.cell.hidden), dtype),)

    def forward(self, w: Any, tape: Tape, x: Array, ids: Array, valid: Array, reverse: bool, how: Any) -> None:
        """Walk; how: width, sizes (n, B, D), rows, units, counter, parties."""
        width, sizes, rows, units, counter, parties = how
        forward(
            x, ids, *w, width, tape.gates.reshape(-1), tape.q.reshape(-1), tape.h.reshape(-1), valid, reverse,
            self.before, (*sizes, self.cell.hidden), rows, units, counter, parties,
        )  # fmt: skip

    def back(
        self, w: Any, tape: Tape, deltas: Any, scratch: Any, dtop: Array, ds: Any, sizes_and_states: Any, valid: Array,
        cut: Array, reverse: bool, lead: Any, span: Any, how: Any,
    ) -> None:  # fmt: skip
        """Walk back; ds: adjoint of the state, parts (R, S), in place; its norm and its parts at every step."""
        width, (n, B, _), rows, units, counter, parties = how
        back(
            tape.gates.reshape(-1), tape.q.reshape(-1), tape.h.reshape(-1), valid, cut, reverse, self.before, *w, width,
            dtop, ds[0].reshape(-1), deltas[0].reshape(-1), deltas[1].reshape(-1), scratch[0].reshape(-1), lead,
            *sizes_and_states, (n, B, self.cell.hidden), span, rows, units, counter, parties,
        )  # fmt: skip

    def uses(self, x: Array, tape: Tape, deltas: Any, reverse: bool) -> Uses:
        """Every parameter's use; deltas (n, B, N), or (K, B, N) of one step with its tape."""
        came, H = tape.h[1:] if reverse else tape.h[:-1], self.cell.hidden
        da, du = deltas
        first: Uses = {"W_xh": Matmul(x, da)}
        if self.before:
            recurrent: Uses = {"W_hh": Columns((Matmul(came, du), Matmul(tape.q, da[..., 2 * H :])))}
        else:
            recurrent = {"W_hh": Matmul(came, du), "b_hn": Elementwise(None, du[..., 2 * H :])}
        return first | recurrent | {"b": Elementwise(None, da)}

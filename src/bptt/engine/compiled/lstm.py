"""Long short-term memory, a whole sequence at a time.

The ladder (T = 100, B = 32, D = 64, H = 128, float32, forward and back without a ledger, one thread, ms):
    40.6    the reference, one loop over time in NumPy
    11.5    one call for the sequence, weights packed once, products in register tiles
    10.9    tapes and deltas in memory that is used again, losses and checks without temporaries
    9.1     the equations of a row in registers, one pass
    5.4     two threads

B row · D input · H unit · P output (P = H without projection) · gates i, f, g, o.   Flat arrays: gates and da
(n, B, 4H), h (n + 1, B, P), c (n + 1, B, H), m (n, B, H) with a projection. Step t leads from h[t] to h[t + 1], in the
other direction from h[t + 1] to h[t].
"""

import math
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
from bptt.uses import Elementwise, Matmul, Uses


@kernel
def forward(
    x, ids, Px, Wx, b, peep, Ph, Pr, width, gates, h, c, m, valid, reverse, sizes, rows, units, counter, parties
):  # fmt: skip
    """i, f, g, o; c = f c_prev + i g; m = o tanh c; h = m W_hr, or m.  peep (3H,): p_i, p_f, p_o, or empty."""
    control = flush_denormals()
    n, B, D, H, P = sizes
    (low, high), (one, two), peeps, projected = rows, units, peep.size > 0, m.size > 0
    ha, hb = (0, P) if projected else (one, two)
    some = steps_at_once(B, low, high)
    for done in range(0, n, some):
        many = min(some, n - done)
        begin = n - done - many if reverse else done
        put_inputs(x, ids, Px, Wx, b, width, gates, 0, begin, many, B, D, H, 4, rows, units)
        for i in range(many):
            t = begin + (many - 1 - i if reverse else i)
            came, to = (t + 1, t) if reverse else (t, t + 1)
            at, count = (came * B + low) * P, high - low
            project(h, at, P, count, P, Ph, width, gates, (t * B + low) * 4 * H, 4 * H, H, 4, one, two)
            for r in range(low, high):
                out, o = (m, t * B + r) if projected else (h, to * B + r)
                _memory(gates, c, out, o * H, peep, peeps, t * B + r, came * B + r, to * B + r, H, one, two)
            if projected:
                at = (to * B + low) * P
                h[at : at + count * P] = 0
                multiply(m, (t * B + low) * H, H, count, H, Pr, width, h, at, P, P, 0, -(-P // width))
            for r in range(low, high):
                hold(valid, t * B + r, h, came * B + r, to * B + r, P, ha, hb)
                hold(valid, t * B + r, c, came * B + r, to * B + r, H, one, two)
            meet(counter, parties)
    restore(control)


def _lstm_step(code, at):
    """i, f, g, o, c_prev, c, m: the gates in place."""
    pre_i, pre_f, pre_g, pre_o, old, new, out = at
    i, f, o = (code.sigmoid(code.load(gate)) for gate in (pre_i, pre_f, pre_o))
    g = code.tanh(code.load(pre_g))
    c = code.fma(f, code.load(old), code.mul(i, g))
    for value, place in ((i, pre_i), (f, pre_f), (g, pre_g), (o, pre_o), (c, new), (code.mul(o, code.tanh(c)), out)):
        code.store(value, place)


def _lstm_step_back(code, at):
    """i, f, g, o, c_prev, c, dm, dc, and da of i, f, g, o: dc in place."""
    i, f, g, o, old, c, dm, dc = (code.load(place) for place in at[:8])
    y = code.tanh(c)
    da_o = code.mul(dm, y, o, code.rest(o))
    dc = code.fma(code.mul(dm, o), code.rest(code.mul(y, y)), dc)
    da_i = code.mul(dc, g, i, code.rest(i))
    da_f = code.mul(dc, old, f, code.rest(f))
    da_g = code.mul(dc, i, code.rest(code.mul(g, g)))
    for value, place in zip((code.mul(dc, f), da_i, da_f, da_g, da_o), at[7:], strict=True):
        code.store(value, place)


step_row, back_row = rows(7, _lstm_step), rows(12, _lstm_step_back)


@kernel
def _memory(gates, c, out, o, peep, peeps, at, came, to, H, one, two):
    """Gates, memory and m of one row."""
    a = at * 4 * H
    if not peeps:  # whole vectors first, and what is left one by one
        whole = (two - one) // lanes(c.itemsize) * lanes(c.itemsize)
        step_row(
            gates, a + one, gates, a + H + one, gates, a + 2 * H + one, gates, a + 3 * H + one, c, came * H + one,
            c, to * H + one, out, o + one, whole,
        )  # fmt: skip
        one += whole
        if one == two:
            return
    many = two - one
    i, f = gates[a + one : a + two], gates[a + H + one : a + H + two]
    old, new, m = c[came * H + one : came * H + two], c[to * H + one : to * H + two], out[o + one : o + two]
    if peeps:
        p_i, p_f = peep[one:two], peep[H + one : H + two]
        for j in range(many):
            i[j] += p_i[j] * old[j]
        for j in range(many):
            f[j] += p_f[j] * old[j]
    if many == H:
        sigmoid(gates, a, 2 * H)
    else:
        sigmoid(gates, a + one, many)
        sigmoid(gates, a + H + one, many)
    tanh(gates, a + 2 * H + one, many)
    g, last = gates[a + 2 * H + one : a + 2 * H + two], gates[a + 3 * H + one : a + 3 * H + two]
    for j in range(many):
        new[j] = f[j] * old[j] + i[j] * g[j]
    if peeps:
        p_o = peep[2 * H + one : 2 * H + two]
        for j in range(many):
            last[j] += p_o[j] * new[j]
    sigmoid(gates, a + 3 * H + one, many)
    m[:] = new
    tanh(out, o + one, many)
    for j in range(many):
        m[j] *= last[j]


@kernel
def back(
    gates, c, valid, cut, reverse, peep, Ph, Pr, width, dtop, dh, dc, da, dm, dp, lead, sizes, states, memories, shape,
    span, rows, units, counter, parties,
):  # fmt: skip
    """da of i, f, g, o, from the last step of the span to its first.

    dh (R, P), dc (R, H): adjoints of the state after the span, then of the state before it.  dm (R, H): scratch.
    dp: δ of the projection's use, as da; with a projection only.
    lead: first loss of the rows (−1: all losses added up, R = B), how far each reaches, first step of the stretch.
    sizes (n + 1, B), or states (n + 1, B, P) and memories (n + 1, B, H): norms or all of the adjoints of the state on
    the way, one of them or none.
    """
    control = flush_denormals()
    n, B, H, P = shape
    (low, high), (one, two), (first, reach, start) = rows, units, lead
    onward, projected, peeps = 1 if reverse else -1, dp.size > 0, peep.size > 0
    ha, hb = (0, P) if projected else (one, two)
    for i in range(span[1] - span[0]):
        t = span[0] + i if reverse else span[1] - 1 - i
        (came, to), base = ((t + 1, t) if reverse else (t, t + 1)), (t * B if first < 0 else 0)
        for r in range(low, high):
            b = r % B
            into, live = dh[r * P + ha : r * P + hb], not valid.size or valid[t * B + b]
            if dtop.size and live:
                add = dtop[(t * B + b) * P + ha : (t * B + b) * P + hb]
                for j in range(hb - ha):
                    into[j] += add[j]
            if sizes.size:
                h_norm, c_norm = row_norm(dh, r * P, P), row_norm(dc, r * H, H)
                sizes[to * B + b] = math.hypot(h_norm, c_norm)
            elif states.size:
                states[(to * B + b) * P + ha : (to * B + b) * P + hb] = into
                memories[(to * B + b) * H + one : (to * B + b) * H + two] = dc[r * H + one : r * H + two]
            if projected:
                dm[r * H : (r + 1) * H] = 0
                if live:
                    dp[(base + r) * P : (base + r + 1) * P] = into
                else:
                    dp[(base + r) * P : (base + r + 1) * P] = 0
        if projected:
            multiply(dh, low * P, P, high - low, P, Pr, width, dm, low * H, H, H, 0, -(-H // width))
        for r in range(low, high):
            b, d = r % B, (dm if projected else dh)
            if not valid.size or valid[t * B + b]:
                _memory_back(gates, c, peep, peeps, d, dc, da, t * B + b, came * B + b, to * B + b, base + r, r, H,
                             one, two)  # fmt: skip
                dh[r * P + ha : r * P + hb] = 0
            else:
                for gate in range(4):
                    at = (base + r) * 4 * H + gate * H
                    da[at + one : at + two] = 0
        meet(counter, parties)
        a, last = (base + low) * 4 * H, -(-hb // width)
        multiply(da, a, 4 * H, high - low, 4 * H, Ph, width, dh, low * P, P, P, ha // width, last)
        for r in range(low, high):
            loss = first + r // B if first >= 0 else -1
            if is_cut(cut, valid, t, onward, B, n, r % B, loss, reach, start):
                dh[r * P + ha : r * P + hb] = 0
                dc[r * H + one : r * H + two] = 0
    restore(control)


@kernel
def _memory_back(gates, c, peep, peeps, d, dc, da, at, came, to, out, row, H, one, two):
    """da of one row from d, the adjoint of m; dc becomes that of the memory before."""
    a, o, unit = at * 4 * H, out * 4 * H, c.dtype.type(1)
    if not peeps:  # whole vectors first, and what is left one by one
        whole = (two - one) // lanes(c.itemsize) * lanes(c.itemsize)
        back_row(
            gates, a + one, gates, a + H + one, gates, a + 2 * H + one, gates, a + 3 * H + one, c, came * H + one,
            c, to * H + one, d, row * H + one, dc, row * H + one, da, o + one, da, o + H + one, da, o + 2 * H + one,
            da, o + 3 * H + one, whole,
        )  # fmt: skip
        one += whole
        if one == two:
            return
    many = two - one
    i, f = gates[a + one : a + two], gates[a + H + one : a + H + two]
    g, last = gates[a + 2 * H + one : a + 2 * H + two], gates[a + 3 * H + one : a + 3 * H + two]
    da_i, da_f = da[o + one : o + two], da[o + H + one : o + H + two]
    da_g, da_o = da[o + 2 * H + one : o + 2 * H + two], da[o + 3 * H + one : o + 3 * H + two]
    dm, dm_c, old = (
        d[row * H + one : row * H + two],
        dc[row * H + one : row * H + two],
        c[came * H + one : came * H + two],
    )
    da_g[:] = c[to * H + one : to * H + two]
    tanh(da, o + 2 * H + one, many)  # y, for as long as it is needed
    for j in range(many):
        da_o[j] = dm[j] * da_g[j] * last[j] * (unit - last[j])
    for j in range(many):
        dm_c[j] += dm[j] * last[j] * (unit - da_g[j] * da_g[j])
    if peeps:
        p_o = peep[2 * H + one : 2 * H + two]
        for j in range(many):
            dm_c[j] += da_o[j] * p_o[j]
    for j in range(many):
        da_i[j] = dm_c[j] * g[j] * i[j] * (unit - i[j])
    for j in range(many):
        da_f[j] = dm_c[j] * old[j] * f[j] * (unit - f[j])
    for j in range(many):
        da_g[j] = dm_c[j] * i[j] * (unit - g[j] * g[j])
    for j in range(many):
        dm_c[j] *= f[j]
    if peeps:
        p_i, p_f = peep[one:two], peep[H + one : H + two]
        for j in range(many):
            dm_c[j] += da_i[j] * p_i[j]
        for j in range(many):
            dm_c[j] += da_f[j] * p_f[j]


class Tape(NamedTuple):
    """gates (n, B, 4H), h (n + 1, B, P), c (n + 1, B, H); m (n, B, H), empty without a projection."""

    gates: Array
    h: Array
    c: Array
    m: Array


class LSTMKernel:
    """The kernels of an LSTM under the names that every cell's have (`bptt.engine.compiled.walk`)."""

    def __init__(self, cell: Any):
        self.cell = cell
        self.divisible = cell.projection is None  # the projection needs m of all units

    def weights(self, p: Any, ids: bool) -> Any:
        """Packed for the way forward."""
        projection = np.empty(0, p.b.dtype) if p.W_hr is None else packed(p.W_hr)
        return (*input_weights(p.W_xh, ids), np.array(p.b), self._peepholes(p), packed(p.W_hh), projection)

    def weights_back(self, p: Any) -> Any:
        """Packed for the way back."""
        projection = np.empty(0, p.b.dtype) if p.W_hr is None else packed(p.W_hr, transposed=True)
        return self._peepholes(p), packed(p.W_hh, transposed=True), projection

    def _peepholes(self, p: Any) -> Array:
        return np.concatenate([p.p_i, p.p_f, p.p_o]) if self.cell.peepholes else np.empty(0, p.b.dtype)

    def tape(self, n: int, B: int, dtype: Any) -> Tape:
        """Memory for a walk of n steps."""
        H, P = self.cell.hidden, self.cell.width
        m = aligned((n if self.cell.projection else 0, B, H), dtype)
        return Tape(
            aligned((n, B, 4 * H), dtype), aligned((n + 1, B, P), dtype), aligned((n + 1, B, H), dtype), m
        )  # fmt: skip

    def states(self, tape: Tape) -> tuple[Array, ...]:
        """The parts of the state at every step, (n + 1, B, S)."""
        return tape.h, tape.c

    def deltas(self, rows: int, dtype: Any) -> tuple[Array, ...]:
        """Memory for the deltas of so many rows, (rows, N): da, and dp of the projection."""
        H, P = self.cell.hidden, self.cell.width
        return aligned((rows, 4 * H), dtype), aligned((rows if self.cell.projection else 0, P), dtype)

    def scratch(self, rows: int, dtype: Any) -> tuple[Array, ...]:
        """What `back` needs for itself."""
        return (aligned((rows if self.cell.projection else 0, self.cell.hidden), dtype),)

    def forward(self, w: Any, tape: Tape, x: Array, ids: Array, valid: Array, reverse: bool, how: Any) -> None:
        """Walk; how: width, sizes (n, B, D), rows, units, counter, parties."""
        width, sizes, rows, units, counter, parties = how
        forward(
            x, ids, *w, width, *(part.reshape(-1) for part in tape), valid, reverse,
            (*sizes, self.cell.hidden, self.cell.width), rows, units, counter, parties,
        )  # fmt: skip

    def back(
        self, w: Any, tape: Tape, deltas: Any, scratch: Any, dtop: Array, ds: Any, sizes_and_states: Any, valid: Array,
        cut: Array, reverse: bool, lead: Any, span: Any, how: Any,
    ) -> None:  # fmt: skip
        """Walk back; ds: adjoint of the state, parts (R, S), in place; its norm and its parts at every step."""
        width, (n, B, _), rows, units, counter, parties = how
        back(
            tape.gates.reshape(-1), tape.c.reshape(-1), valid, cut, reverse, *w, width, dtop,
            ds[0].reshape(-1), ds[1].reshape(-1), deltas[0].reshape(-1), scratch[0].reshape(-1), deltas[1].reshape(-1),
            lead, *sizes_and_states, (n, B, self.cell.hidden, self.cell.width), span, rows, units, counter, parties,
        )  # fmt: skip

    def uses(self, x: Array, tape: Tape, deltas: Any, reverse: bool) -> Uses:
        """Every parameter's use; deltas (n, B, N), or (K, B, N) of one step with its tape."""
        here, came = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
        (da, dp), H = deltas, self.cell.hidden
        uses: Uses = {"W_xh": Matmul(x, da), "W_hh": Matmul(tape.h[came], da), "b": Elementwise(None, da)}
        if self.cell.peepholes:
            c, before = tape.c[here], tape.c[came]
            gates = {"p_i": (before, 0), "p_f": (before, 1), "p_o": (c, 3)}
            uses |= {name: Elementwise(z, da[..., g * H : (g + 1) * H]) for name, (z, g) in gates.items()}
        if self.cell.projection is not None:
            uses["W_hr"] = Matmul(tape.m, dp)
        return uses

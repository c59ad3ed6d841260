"""Long short-term memory, a whole sequence at a time.

The ladder (T = 100, B = 32, D = 64, H = 128, float32, forward and back without a ledger, one thread, ms):
    40.6    the reference, one loop over time in NumPy
    11.5    one call for the sequence, weights packed once, products in register tiles
    10.9    tapes and deltas in memory that is used again, losses and checks without temporaries
    8.5     the equations of a row in registers, one pass
    4.9     two threads

B row · D input · H unit · P output (P = H without projection) · gates i, f, g, o.   Flat arrays: gates and da
(n, B, 4H), h (n + 1, B, P), c (n + 1, B, H), m (n, B, H) with a projection. Step t leads from h[t] to h[t + 1], in the
other direction from h[t + 1] to h[t].
"""

import math
from typing import Any, NamedTuple

import numpy as np

from bptt.engine.compiled.emit import elementwise
from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.measure import row_norm
from bptt.engine.compiled.memory import aligned
from bptt.engine.compiled.product import multiply, packed
from bptt.engine.compiled.steps import (
    clear,
    cut_off,
    hold,
    input_weights,
    meet,
    note,
    project,
    put_inputs,
    receive,
    steps_at_once,
)  # fmt: skip
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
                out, o = (m, (t * B + r) * H + one) if projected else (h, (to * B + r) * H + one)
                gate, old, new = (t * B + r) * 4 * H + one, (came * B + r) * H + one, (to * B + r) * H + one
                if peeps:
                    peephole_row(
                        gates, gate, gates, gate + H, gates, gate + 2 * H, gates, gate + 3 * H, c, old, c, new, out, o,
                        peep, one, peep, H + one, peep, 2 * H + one, two - one,
                    )  # fmt: skip
                else:
                    step_row(
                        gates, gate, gates, gate + H, gates, gate + 2 * H, gates, gate + 3 * H, c, old, c, new, out, o,
                        two - one,
                    )  # fmt: skip
            if projected:
                at = (to * B + low) * P
                h[at : at + count * P] = 0
                multiply(m, (t * B + low) * H, H, count, H, Pr, width, h, at, P, P, 0, -(-P // width))
            for r in range(low, high):
                hold(valid, t * B + r, h, came * B + r, to * B + r, P, ha, hb)
                hold(valid, t * B + r, c, came * B + r, to * B + r, H, one, two)
            meet(counter, parties)
    restore(control)


def _step(code, at):
    """i, f, g, o, c_prev, c, m, and p_i, p_f, p_o where there are peepholes: the gates in place."""
    pre_i, pre_f, pre_g, pre_o, old, new, out, *peep = at
    (p_i, p_f, p_o), before = [code.load(place) for place in peep] or (None,) * 3, code.load(old)

    def seen(pre, p, c):
        return code.load(pre) if p is None else code.fma(p, c, code.load(pre))

    i, f = code.sigmoid(seen(pre_i, p_i, before)), code.sigmoid(seen(pre_f, p_f, before))
    g = code.tanh(code.load(pre_g))
    c = code.fma(f, before, code.mul(i, g))
    o = code.sigmoid(seen(pre_o, p_o, c))
    for value, place in ((i, pre_i), (f, pre_f), (g, pre_g), (o, pre_o), (c, new), (code.mul(o, code.tanh(c)), out)):
        code.store(value, place)


def _step_back(code, at):
    """i, f, g, o, c_prev, c, dm, dc, da of i, f, g, o, and p_i, p_f, p_o where there are peepholes: dc in place."""
    i, f, g, o, old, c, dm, dc = (code.load(place) for place in at[:8])
    peep = [code.load(place) for place in at[12:]]
    y = code.tanh(c)
    da_o = code.mul(dm, y, o, code.rest(o))
    dc = code.fma(code.mul(dm, o), code.rest(code.mul(y, y)), dc)
    dc = code.fma(da_o, peep[2], dc) if peep else dc
    da_i = code.mul(dc, g, i, code.rest(i))
    da_f = code.mul(dc, old, f, code.rest(f))
    da_g = code.mul(dc, i, code.rest(code.mul(g, g)))
    before = code.mul(dc, f)
    if peep:
        before = code.fma(da_f, peep[1], code.fma(da_i, peep[0], before))
    for value, place in zip((before, da_i, da_f, da_g, da_o), at[7:12], strict=True):
        code.store(value, place)


step_row, back_row = elementwise(7, _step), elementwise(12, _step_back)
peephole_row, peephole_back_row = elementwise(10, _step), elementwise(15, _step_back)


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
    (low, high), (one, two), onward = rows, units, 1 if reverse else -1
    projected, peeps, many = dp.size > 0, peep.size > 0, two - one
    ha, hb = (0, P) if projected else (one, two)
    for i in range(span[1] - span[0]):
        t = span[0] + i if reverse else span[1] - 1 - i
        (came, to), base = ((t + 1, t) if reverse else (t, t + 1)), (t * B if lead[0] < 0 else 0)
        for r in range(low, high):
            b, live = r % B, not valid.size or valid[t * B + r % B]
            receive(dh, r, P, ha, hb, dtop, t * B + b, live)
            if sizes.size:
                sizes[to * B + b] = math.hypot(row_norm(dh, r * P, P), row_norm(dc, r * H, H))
            note(dh, r, P, ha, hb, states, to * B + b)
            note(dc, r, H, one, two, memories, to * B + b)
            if projected and live:
                dp[(base + r) * P : (base + r + 1) * P] = dh[r * P : (r + 1) * P]
            elif projected:
                clear(dp, (base + r) * P, P, 1, 0, P)
        if projected:
            dm[low * H : high * H] = 0
            multiply(dh, low * P, P, high - low, P, Pr, width, dm, low * H, H, H, 0, -(-H // width))
        for r in range(low, high):
            b, d = r % B, (dm if projected else dh)
            gate, old, new = (t * B + b) * 4 * H + one, (came * B + b) * H + one, (to * B + b) * H + one
            a, row = (base + r) * 4 * H + one, r * H + one
            if valid.size and not valid[t * B + b]:
                clear(da, (base + r) * 4 * H, H, 4, one, two)
                continue
            if peeps:
                peephole_back_row(
                    gates, gate, gates, gate + H, gates, gate + 2 * H, gates, gate + 3 * H, c, old, c, new, d, row, dc,
                    row, da, a, da, a + H, da, a + 2 * H, da, a + 3 * H, peep, one, peep, H + one, peep, 2 * H + one,
                    many,
                )  # fmt: skip
            else:
                back_row(
                    gates, gate, gates, gate + H, gates, gate + 2 * H, gates, gate + 3 * H, c, old, c, new, d, row, dc,
                    row, da, a, da, a + H, da, a + 2 * H, da, a + 3 * H, many,
                )  # fmt: skip
            clear(dh, r * P, P, 1, ha, hb)
        meet(counter, parties)
        a, last = (base + low) * 4 * H, -(-hb // width)
        multiply(da, a, 4 * H, high - low, 4 * H, Ph, width, dh, low * P, P, P, ha // width, last)
        cut_off(dh, P, ha, hb, cut, valid, t, onward, (n, B), rows, lead)
        cut_off(dc, H, one, two, cut, valid, t, onward, (n, B), rows, lead)
    restore(control)


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

"""The gated recurrent unit, a whole sequence at a time.

The ladder (T = 100, B = 32, D = 64, H = 128, float32, forward and back without a ledger, one thread, ms):
    37.5    the reference, one loop over time in NumPy
    9.9     one call for the sequence, weights packed once, products in register tiles
    8.7     tapes and deltas in memory that is used again, losses and checks without temporaries
    6.6     the equations of a row in registers, one pass
    3.9     two threads

B row · D input · H unit · gates r, z, n.   Flat arrays: gates (n, B, 3H), q (n, B, H), h (n + 1, B, H), da and du as
the gates. Step t leads from h[t] to h[t + 1], in the other direction from h[t + 1] to h[t].

q is h_prev W_hn + b_hn where the reset comes after the product, r ∘ h_prev where it comes before.
"""

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
            else:
                for r in range(low, high):
                    gate, old, row = (t * B + r) * 3 * H, (came * B + r) * H, (t * B + r) * H
                    gates_row(gates, gate, gates, gate + H, h, old, q, row, H)
                project(q, (t * B + low) * H, H, count, H, Pn, width, gates, g + 2 * H, 3 * H, H, 1, one, two)
            for r in range(low, high):
                gate, old, new = (t * B + r) * 3 * H + one, (came * B + r) * H + one, (to * B + r) * H + one
                if before:
                    state_row(gates, gate + 2 * H, gates, gate + H, h, old, h, new, two - one)
                else:
                    row = (t * B + r) * H + one
                    step_row(
                        gates, gate, gates, gate + H, gates, gate + 2 * H, q, row, h, old, h, new, two - one
                    )  # fmt: skip
                hold(valid, t * B + r, h, came * B + r, to * B + r, H, one, two)
            meet(counter, parties)
    restore(control)


def _step(code, at):
    """r, z, n, q, h_prev, h, the reset after the product: gates in place, h = n + z (h_prev − n)."""
    pre_r, pre_z, pre_n, q, old, new = at
    r, z = code.sigmoid(code.load(pre_r)), code.sigmoid(code.load(pre_z))
    n, h = code.tanh(code.fma(r, code.load(q), code.load(pre_n))), code.load(old)
    for value, place in ((r, pre_r), (z, pre_z), (n, pre_n), (code.fma(z, code.sub(h, n), n), new)):
        code.store(value, place)


def _step_back(code, at):
    """r, z, n, q, h_prev, dh, da of r, z, n, du of r, z, n: dh becomes what z hands on."""
    r, z, n, q, old, dh = (code.load(place) for place in at[:6])
    da_z, da_n = _candidate_back(code, z, n, old, dh)
    da_r, dq = code.mul(da_n, q, r, code.rest(r)), code.mul(da_n, r)
    for value, place in zip((code.mul(dh, z), da_r, da_z, da_n, da_r, da_z, dq), at[5:], strict=True):
        code.store(value, place)


def _candidate_back(code, z, n, old, dh):
    """da_z and da_n of h = n + z (h_prev − n)."""
    return code.mul(dh, code.sub(old, n), z, code.rest(z)), code.mul(dh, code.rest(z), code.rest(code.mul(n, n)))


def _gates(code, at):
    """r, z, h_prev, q, the reset before the product: gates in place, q = r h_prev."""
    pre_r, pre_z, old, q = at
    r, z = code.sigmoid(code.load(pre_r)), code.sigmoid(code.load(pre_z))
    for value, place in ((r, pre_r), (z, pre_z), (code.mul(r, code.load(old)), q)):
        code.store(value, place)


def _state(code, at):
    """n, z, h_prev, h, the reset before the product: n in place, h = n + z (h_prev − n)."""
    n, z, h = code.tanh(code.load(at[0])), code.load(at[1]), code.load(at[2])
    code.store(n, at[0])
    code.store(code.fma(z, code.sub(h, n), n), at[3])


def _state_back(code, at):
    """z, n, h_prev, dh, da of z, n: dh becomes what z hands on."""
    z, n, old, dh = (code.load(place) for place in at[:4])
    for value, place in zip((code.mul(dh, z), *_candidate_back(code, z, n, old, dh)), at[3:], strict=True):
        code.store(value, place)


def _gates_back(code, at):
    """r, h_prev, dq, da_z, dh, da_r, du of r, z: dh += dq r."""
    r, old, dq, da_z, dh = (code.load(place) for place in at[:5])
    da_r = code.mul(dq, old, r, code.rest(r))
    for value, place in zip((code.fma(dq, r, dh), da_r, da_r, da_z), at[4:], strict=True):
        code.store(value, place)


step_row, back_row = elementwise(6, _step), elementwise(12, _step_back)
gates_row, state_row = elementwise(4, _gates), elementwise(4, _state)
state_back_row, gates_back_row = elementwise(6, _state_back), elementwise(8, _gates_back)


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
    (low, high), (one, two), onward = rows, units, 1 if reverse else -1
    wide, many = 2 * H if before else 3 * H, two - one
    for i in range(span[1] - span[0]):
        t = span[0] + i if reverse else span[1] - 1 - i
        (came, to), base = ((t + 1, t) if reverse else (t, t + 1)), (t * B if lead[0] < 0 else 0)
        for r in range(low, high):
            b, live = r % B, not valid.size or valid[t * B + r % B]
            receive(dh, r, H, one, two, dtop, t * B + b, live)
            if sizes.size:
                sizes[to * B + b] = row_norm(dh, r * H, H)
            note(dh, r, H, one, two, states, to * B + b)
            gate, old, row = (t * B + b) * 3 * H + one, (came * B + b) * H + one, r * H + one
            a, u = (base + r) * 3 * H + one, (base + r) * wide + one
            if not live:
                clear(da, (base + r) * 3 * H, H, 3, one, two)
                clear(du, (base + r) * wide, H, wide // H, one, two)
            elif before:
                state_back_row(
                    gates, gate + H, gates, gate + 2 * H, h, old, dh, row, da, a + H, da, a + 2 * H, many
                )  # fmt: skip
            else:
                back_row(
                    gates, gate, gates, gate + H, gates, gate + 2 * H, q, (t * B + b) * H + one, h, old, dh, row,
                    da, a, da, a + H, da, a + 2 * H, du, u, du, u + H, du, u + 2 * H, many,
                )  # fmt: skip
        if before:
            dq[low * H : high * H] = 0
            a = (base + low) * 3 * H + 2 * H
            multiply(da, a, 3 * H, high - low, H, Pn, width, dq, low * H, H, H, 0, -(-H // width))
            for r in range(low, high):
                b = r % B
                if not valid.size or valid[t * B + b]:
                    gate, old, a, u = (t * B + b) * 3 * H, (came * B + b) * H, (base + r) * 3 * H, (base + r) * wide
                    gates_back_row(
                        gates, gate, h, old, dq, r * H, da, a + H, dh, r * H, da, a, du, u, du, u + H, H
                    )  # fmt: skip
        meet(counter, parties)
        multiply(
            du, (base + low) * wide, wide, high - low, wide, Pg, width, dh, low * H, H, H, one // width,
            -(-two // width),
        )  # fmt: skip
        cut_off(dh, H, one, two, cut, valid, t, onward, (n, B), rows, lead)
    restore(control)


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

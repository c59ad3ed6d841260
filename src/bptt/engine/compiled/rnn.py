"""The simple recurrent network, a whole sequence at a time.

The ladder (T = 100, B = 32, D = 64, H = 128, float32, forward and back without a ledger, one thread, ms):
    11.3    the reference, one loop over time in NumPy
    2.7     one call for the sequence, weights packed once, products in register tiles
    2.5     tapes and deltas in memory that is used again, losses and checks without temporaries
    2.4     tanh in one pass of vectors
    1.7     two threads

B row · D input · H unit.   Flat arrays: x (n, B, D), h (n + 1, B, H), da (n, B, H). Step t leads from h[t] to h[t + 1],
in the other direction from h[t + 1] to h[t].
"""

from typing import Any, NamedTuple

import numpy as np

from bptt.engine.compiled.emit import lanes, rows
from bptt.engine.compiled.functions import tanh
from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.measure import row_norm
from bptt.engine.compiled.memory import aligned
from bptt.engine.compiled.product import multiply, packed
from bptt.engine.compiled.steps import hold, input_weights, is_cut, meet, project, put_inputs, steps_at_once
from bptt.engine.compiled.vector import flush_denormals, restore
from bptt.typing import Array
from bptt.uses import Elementwise, Matmul, Uses


def _tanh_step(code, at):
    """h in place."""
    code.store(code.tanh(code.load(at[0])), at[0])


step_row = rows(1, _tanh_step)


@kernel
def forward(x, ids, Px, Wx, b, Ph, width, h, valid, reverse, relu, sizes, rows, units, counter, parties):
    """h = tanh(x W_xh + h_prev W_hh + b), or relu; x W_xh and the sum are made where h will stand."""
    control = flush_denormals()
    n, B, D, H = sizes
    (low, high), (one, two) = rows, units
    after = 0 if reverse else B * H  # where the state after step 0 begins
    some = steps_at_once(B, low, high)
    for done in range(0, n, some):
        many = min(some, n - done)
        begin = n - done - many if reverse else done
        put_inputs(x, ids, Px, Wx, b, width, h, after, begin, many, B, D, H, 1, rows, units)
        for i in range(many):
            t = begin + (many - 1 - i if reverse else i)
            came, to = (t + 1, t) if reverse else (t, t + 1)
            at = (came * B + low) * H
            project(h, at, H, high - low, H, Ph, width, h, (to * B + low) * H, H, H, 1, one, two)
            for r in range(low, high):
                if relu:
                    part = h[(to * B + r) * H + one : (to * B + r) * H + two]
                    for j in range(two - one):
                        part[j] = h.dtype.type(0) if part[j] <= 0 else part[j]
                else:
                    whole = (two - one) // lanes(h.itemsize) * lanes(h.itemsize)
                    step_row(h, (to * B + r) * H + one, whole)
                    tanh(h, (to * B + r) * H + one + whole, two - one - whole)
                hold(valid, t * B + r, h, came * B + r, to * B + r, H, one, two)
            meet(counter, parties)
    restore(control)


@kernel
def back(
    h, valid, cut, reverse, relu, Pt, width, dtop, dh, da, lead, sizes, states, shape, span, rows, units, counter,
    parties,
):  # fmt: skip
    """da = dh · tanh′ and dh_prev = da W_hhᵀ, from the last step of the span to its first.

    dh (R, H): adjoint of the state after the span, then of the state before it.
    lead: first loss of the rows (−1: all losses added up, R = B), how far each reaches, first step of the stretch.
    sizes (n + 1, B), states (n + 1, B, H): norms or all of the adjoints of the state on the way, one of them or none.
    """
    control = flush_denormals()
    n, B, H = shape
    (low, high), (one, two), (first, reach, start) = rows, units, lead
    unit, onward = h.dtype.type(1), 1 if reverse else -1
    for i in range(span[1] - span[0]):
        t = span[0] + i if reverse else span[1] - 1 - i
        to, base = (t if reverse else t + 1), (t * B if first < 0 else 0)
        for r in range(low, high):
            b = r % B
            into, out = dh[r * H + one : r * H + two], da[(base + r) * H + one : (base + r) * H + two]
            live = not valid.size or valid[t * B + b]
            if dtop.size and live:
                add = dtop[(t * B + b) * H + one : (t * B + b) * H + two]
                for j in range(two - one):
                    into[j] += add[j]
            if sizes.size:
                sizes[to * B + b] = row_norm(dh, r * H, H)
            elif states.size:
                states[(to * B + b) * H + one : (to * B + b) * H + two] = into
            if not live:
                out[:] = 0
                continue
            tape = h[(to * B + b) * H + one : (to * B + b) * H + two]
            if relu:
                for j in range(two - one):
                    out[j] = into[j] if tape[j] > 0 else into[j] * 0
            else:
                for j in range(two - one):
                    out[j] = into[j] * (unit - tape[j] * tape[j])
            into[:] = 0
        meet(counter, parties)
        multiply(da, (base + low) * H, H, high - low, H, Pt, width, dh, low * H, H, H, one // width, -(-two // width))
        for r in range(low, high):
            loss = first + r // B if first >= 0 else -1
            if is_cut(cut, valid, t, onward, B, n, r % B, loss, reach, start):
                dh[r * H + one : r * H + two] = 0
    restore(control)


class Tape(NamedTuple):
    """h (n + 1, B, H)."""

    h: Array


class RNNKernel:
    """The kernels of an RNN under the names that every cell's have (`bptt.engine.compiled.walk`)."""

    divisible = True

    def __init__(self, cell: Any):
        self.cell, self.relu = cell, cell.nonlinearity == "relu"

    def weights(self, p: Any, ids: bool) -> Any:
        """Packed for the way forward."""
        return (*input_weights(p.W_xh, ids), np.array(p.b), packed(p.W_hh))

    def weights_back(self, p: Any) -> Any:
        """Packed for the way back."""
        return (packed(p.W_hh, transposed=True),)

    def tape(self, n: int, B: int, dtype: Any) -> Tape:
        """Memory for a walk of n steps."""
        return Tape(aligned((n + 1, B, self.cell.hidden), dtype))

    def states(self, tape: Tape) -> tuple[Array, ...]:
        """The parts of the state at every step, (n + 1, B, S)."""
        return (tape.h,)

    def deltas(self, rows: int, dtype: Any) -> tuple[Array, ...]:
        """Memory for the deltas of so many rows, (rows, N)."""
        return (aligned((rows, self.cell.hidden), dtype),)

    def forward(self, w: Any, tape: Tape, x: Array, ids: Array, valid: Array, reverse: bool, how: Any) -> None:
        """Walk; how: width, sizes (n, B, D), rows, units, counter, parties."""
        width, sizes, rows, units, counter, parties = how
        forward(
            x, ids, *w, width, tape.h.reshape(-1), valid, reverse, self.relu, (*sizes, self.cell.hidden), rows, units,
            counter, parties,
        )  # fmt: skip

    def scratch(self, rows: int, dtype: Any) -> tuple[Array, ...]:
        """What `back` needs for itself."""
        return ()

    def back(
        self, w: Any, tape: Tape, deltas: Any, scratch: Any, dtop: Array, ds: Any, sizes_and_states: Any, valid: Array,
        cut: Array, reverse: bool, lead: Any, span: Any, how: Any,
    ) -> None:  # fmt: skip
        """Walk back; ds: adjoint of the state, parts (R, S), in place; its norm and its parts at every step."""
        width, (n, B, _), rows, units, counter, parties = how
        back(
            tape.h.reshape(-1), valid, cut, reverse, self.relu, *w, width, dtop, ds[0].reshape(-1),
            deltas[0].reshape(-1), lead, *sizes_and_states, (n, B, self.cell.hidden), span, rows, units, counter,
            parties,
        )  # fmt: skip

    def uses(self, x: Array, tape: Tape, deltas: Any, reverse: bool) -> Uses:
        """Every parameter's use; deltas (n, B, N), or (K, B, N) of one step with its tape."""
        came = tape.h[1:] if reverse else tape.h[:-1]
        (da,) = deltas
        return {"W_xh": Matmul(x, da), "W_hh": Matmul(came, da), "b": Elementwise(None, da)}

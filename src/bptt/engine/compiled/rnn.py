"""The simple recurrent network, a whole sequence at a time.

The ladder (T = 100, B = 32, D = 64, H = 128, float32, forward and back without a ledger, one thread, ms):
    11.3    the reference, one loop over time in NumPy
    2.7     one call for the sequence, weights packed once, products in register tiles
    2.5     tapes and deltas in memory that is used again, losses and checks without temporaries
    2.4     tanh and its derivative as vector code, written once for whole vectors and for what is left
    1.6     two threads

B row · D input · H unit.   Flat arrays: x (n, B, D), h (n + 1, B, H), da (n, B, H). Step t leads from h[t] to h[t + 1],
in the other direction from h[t + 1] to h[t].
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
from bptt.uses import Elementwise, Matmul, Uses


def _tanh(code, at):
    """h = tanh a, in place."""
    code.store(code.tanh(code.load(at[0])), at[0])


def _relu(code, at):
    """h = a where a > 0, else 0; NaN stays NaN."""
    a = code.load(at[0])
    code.store(code.b.select(code.b.fcmp_ordered("<=", a, code.zero()), code.zero(), a), at[0])


def _tanh_back(code, at):
    """h, dh, da: da = dh (1 − h²); dh is done with."""
    h, dh = code.load(at[0]), code.load(at[1])
    code.store(code.mul(dh, code.rest(code.mul(h, h))), at[2])
    code.store(code.zero(), at[1])


def _relu_back(code, at):
    """h, dh, da: da = dh where h > 0, else 0 (or NaN, of an infinite dh); dh is done with."""
    h, dh = code.load(at[0]), code.load(at[1])
    code.store(code.b.select(code.b.fcmp_ordered(">", h, code.zero()), dh, code.mul(dh, code.zero())), at[2])
    code.store(code.zero(), at[1])


tanh, relu_of = elementwise(1, _tanh), elementwise(1, _relu)
tanh_back, relu_back = elementwise(3, _tanh_back), elementwise(3, _relu_back)


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
                    relu_of(h, (to * B + r) * H + one, two - one)
                else:
                    tanh(h, (to * B + r) * H + one, two - one)
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
    (low, high), (one, two), onward = rows, units, 1 if reverse else -1
    for i in range(span[1] - span[0]):
        t = span[0] + i if reverse else span[1] - 1 - i
        to, base = (t if reverse else t + 1), (t * B if lead[0] < 0 else 0)
        for r in range(low, high):
            b, out = r % B, (base + r) * H
            live = not valid.size or valid[t * B + b]
            receive(dh, r, H, one, two, dtop, t * B + b, live)
            if sizes.size:
                sizes[to * B + b] = row_norm(dh, r * H, H)
            note(dh, r, H, one, two, states, to * B + b)
            at = (to * B + b) * H + one
            if not live:
                clear(da, out, H, 1, one, two)
            elif relu:
                relu_back(h, at, dh, r * H + one, da, out + one, two - one)
            else:
                tanh_back(h, at, dh, r * H + one, da, out + one, two - one)
        meet(counter, parties)
        multiply(da, (base + low) * H, H, high - low, H, Pt, width, dh, low * H, H, H, one // width, -(-two // width))
        cut_off(dh, H, one, two, cut, valid, t, onward, (n, B), rows, lead)
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

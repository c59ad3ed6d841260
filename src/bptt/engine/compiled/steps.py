"""What the kernels of all cells do at a step besides their equations.

T step · B row of the batch · D input · N columns of W_xh · width: columns of a panel

A kernel walks a whole sequence for some of the rows, or for some of the units. Rows need not know of each other; units
meet at every step, since each reads the whole state. Either way every number is the same to the last bit.
"""

import numpy as np

from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.product import BLOCK, multiply, packed
from bptt.engine.compiled.vector import arrive, give_way, look, pause
from bptt.typing import Array

SPINS = 2000  # some 50 µs


def input_weights(W: Array, ids: bool) -> tuple[Array, Array]:
    """W_xh as a kernel wants it: packed for products, or flat where ids pick its rows; the other one is empty."""
    none = np.empty(0, W.dtype)
    return (none, np.require(W, None, ["C", "W"]).reshape(-1)) if ids else (packed(W), none)


@kernel
def meet(counter, parties):
    """Wait until all parties have come here as often as this one.

    counter: how often anyone came; how often a wait was long; not 0 where a party has failed and is not waited for.
    """
    if parties > 1:
        goal = (arrive(counter) // parties + 1) * parties
        waited = 0
        while look(counter, 0) < goal and look(counter, 2) == 0:
            pause()
            waited += 1
            if waited == SPINS:
                counter[1] += 1
            if waited >= SPINS:  # whoever is late may need this core
                give_way()


@kernel
def steps_at_once(B, low, high):
    """How many steps of the inputs are multiplied before the walk goes on: one where a kernel has some of the rows."""
    return max(1, BLOCK // B) if low == 0 and high == B else 1


@kernel
def project(A, a, lda, M, K, P, width, C, c, ldc, H, gates, low, high):
    """C += A B for the units low…high − 1 of every gate; all columns at once where those are all units."""
    if high - low == H:
        multiply(A, a, lda, M, K, P, width, C, c, ldc, gates * H, 0, -(-gates * H // width))
        return
    for gate in range(gates):
        first, last = (gate * H + low) // width, (gate * H + high) // width
        multiply(A, a, lda, M, K, P, width, C, c, ldc, gates * H, first, last)


@kernel
def put_inputs(x, ids, P, W, b, width, C, c, t, steps, B, D, H, gates, rows, units):
    """C = x W_xh + b at `steps` steps from t on; ids (T·B,) pick rows of W, and are empty where x (T·B, D) is real."""
    N, (low, high), (one, two) = gates * H, rows, units
    for s in range(t, t + steps):
        for r in range(s * B + low, s * B + high):
            for gate in range(gates):
                at = gate * H + one
                into, bias = C[c + r * N + at : c + r * N + gate * H + two], b[at : gate * H + two]
                if ids.size:
                    row = W[ids[r] * N + at : ids[r] * N + gate * H + two]
                    for j in range(two - one):
                        into[j] = row[j] + bias[j]
                else:
                    into[:] = bias
    if not ids.size:
        at = t * B + low
        many = high - low if steps == 1 else steps * B
        project(x, at * D, D, many, D, P, width, C, c + at * N, N, H, gates, one, two)


@kernel
def hold(valid, at, state, before, after, width, low, high):
    """Units low…high − 1 of a row's state stay what they were where its sequence has ended."""
    if valid.size and not valid[at]:
        state[after * width + low : after * width + high] = state[before * width + low : before * width + high]


@kernel
def receive(dh, r, S, low, high, dtop, at, live):
    """Units low…high − 1 of row r of dh (R, S) += dtop (n·B, S) at `at`, unless its sequence has ended."""
    if dtop.size and live:
        into, add = dh[r * S + low : r * S + high], dtop[at * S + low : at * S + high]
        for j in range(high - low):
            into[j] += add[j]


@kernel
def note(part, r, S, low, high, states, at):
    """Units low…high − 1 of row r of an adjoint (R, S) put into states (…, S) at `at`, if they are wanted."""
    if states.size:
        states[at * S + low : at * S + high] = part[r * S + low : r * S + high]


@kernel
def clear(A, at, width, parts, low, high):
    """0 for the units low…high − 1 of so many blocks of columns, each `width` wide, that begin at `at`."""
    for part in range(parts):
        A[at + part * width + low : at + part * width + high] = 0


@kernel
def cut_off(dh, S, low, high, cut, valid, t, onward, shape, rows, lead):
    """0 for the units low…high − 1 of every row of an adjoint (R, S) that ends between step t and t + onward.

    cut (n,): where a chunk ends, or empty.  lead: first loss of the rows or −1, how far each reaches, first step of the
    stretch. Through padding an adjoint always goes on, and so it does to the initial state.
    """
    (n, B), (first, reach, start), to = shape, lead, t + onward
    if not 0 <= to < n or not (first >= 0 or cut.size):
        return
    for r in range(rows[0], rows[1]):
        if valid.size and not valid[to * B + r % B]:
            continue
        far = first >= 0 and abs(first + r // B - (start + to)) >= reach
        if far or (cut.size and cut[t]):
            dh[r * S + low : r * S + high] = 0

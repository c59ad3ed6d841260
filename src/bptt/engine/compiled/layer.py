"""One layer in one direction for a program that has losses of its own: walked forward, then back with what comes.

The adjoints of its outputs and of its last state are given; what goes back, and every use, is handed out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bptt.engine.compiled.contributions import step_norms
from bptt.engine.compiled.measure import state_norms
from bptt.engine.compiled.sweep import from_loss
from bptt.engine.compiled.totals import Measured, Totals
from bptt.engine.compiled.walk import NO_CUT, Layers, Walk
from bptt.model import Network, Scan
from bptt.typing import Array, Params
from bptt.uses import Elementwise, Uses

PREFIX = "layer0."
NOTHING = np.empty(0)
Visit = Callable[[int, int, Uses], None]  # step, first loss that says anything, uses with δ (K − first, B, N)


class Back(NamedTuple):
    """What came of the way back.

    gradients: short name → dW.  uses: short name → z (n, B, M), δ (n, B, N).  measured: norms of the uses.
    residuals: short name → the uses against the gradient; empty if the states are wanted in full, with all factors.
    dx: (n, B, D), None if it was not wanted.  ds: adjoint of the state before.
    sizes: (n, B) ‖∂J/∂s‖ after each step.  states: its parts (n, B, S), empty if only norms were wanted.
    """

    gradients: Params
    uses: Uses
    measured: dict[str, Measured]
    residuals: dict[str, float]
    dx: Array | None
    ds: Any
    sizes: Array
    states: tuple[Array, ...]


class Layer:
    """A walk over x (n, B, D) from a state.

    Args:
        cell: RNN, GRU or LSTM.
        params: short name → array, of float32 or float64; their memory is read now, and never again.
        x: (n, B, D).  state: of the cell, parts (B, S).
        valid: (n, B) whether a sequence still goes on, None for all.
        reverse: whether it walks from the last step to the first.
        threads: how many at most.
    """

    def __init__(
        self, cell: Any, params: Params, x: Array, state: Any, valid: Array | None, reverse: bool, threads: int
    ):  # fmt: skip
        network = Network(cell, x.shape[-1], None, 1, False, {PREFIX + name: a for name, a in params.items()})
        self.shapes = {name: value.shape for name, value in params.items()}
        if "b_hn" in self.shapes:  # one bias for the whole recurrent product, where others have two biases
            self.shapes["b_hh"] = (3 * cell.hidden,)
        self.layers, self.scan = Layers(network, threads), Scan(0, reverse, PREFIX, x.shape[-1])
        self.walk = Walk(self.layers, self.scan, x, state, valid, None)
        self.layers.known.pop((PREFIX, "forward"), None)

    @property
    def output(self) -> Array:
        """h at every step (n, B, W), 0 where a sequence has ended; memory of the tape, or a copy."""
        return self.walk.output

    @property
    def state(self) -> Any:
        """The state after."""
        return self.walk.state

    def take_tape(self) -> tuple[Array, ...]:
        """What the way back reads of the way forward, which is then no longer held here."""
        tape, self.kind = tuple(self.walk.tape), type(self.walk.tape)
        self.walk.output, self.walk.state = NOTHING, None
        self._forget_tape()
        return tape

    def _forget_tape(self) -> None:
        self.walk.x, self.walk.tape = NOTHING, None

    def give_tape(self, x: Array, tape: tuple[Array, ...]) -> None:
        """The inputs and the tape again; `drop` lets go of them."""
        self.walk.x, self.walk.tape = x, self.kind(*tape)

    def drop(self) -> None:
        """Hold nothing that is large."""
        self._forget_tape()
        self.layers.known.clear()

    def back(self, dout: Array, ds: Any, dx: bool, parts: bool) -> Back:
        """Walk back.

        Args:
            dout: (n, B, W) adjoint of the outputs.
            ds: of the state after, parts (B, S); they are overwritten.
            dx: whether the adjoint of x is wanted.
            parts: whether the adjoint of the state is wanted in full at every step, and not only its norm.
        """
        walk, below = self.walk, None
        totals = Totals(self.shapes, self.layers.dtype, self.layers.threads, measure=True)
        (block,) = walk.back(np.ascontiguousarray(dout), ds, NO_CUT, "parts" if parts else "norms")
        if dx:
            below = np.zeros((walk.n, walk.B, self.scan.inputs), self.layers.dtype)
            da: Any = block.uses["W_xh"]
            walk.add_inputs(da.delta, below)
        uses = self.with_recurrent_bias(block.uses)
        measured, gradients = totals.add(uses), totals.gradients()
        residuals = {} if parts else totals.residuals(gradients)
        sizes = state_norms(block.states, self.layers.threads) if block.sizes is None else block.sizes
        return Back(gradients, uses, measured, residuals, below, ds, sizes, block.states if parts else ())

    def with_recurrent_bias(self, uses: Any) -> Uses:
        """The uses of a GRU with one more: b_hh, of the whole recurrent product."""
        return uses | {"b_hh": Elementwise(None, uses["W_hh"].delta)} if "b_hh" in self.shapes else uses

    def back_losses(self, came: "Adjoints", ds: Any, dx: bool, visit: Visit) -> Array | None:
        """Walk K losses back at once; their adjoint of x, (K, n, B, D), if it is wanted.

        Args:
            came: adjoints of the outputs.
            ds: of the state after, parts (K·B, S), overwritten with that of the state before.
            dx: whether the adjoint of x is wanted.
            visit: called at every step; the next one overwrites the δ that it is given.
        """
        K, walk, kernel, dtype = came.K, self.walk, self.layers.kernel, self.layers.dtype
        n, B = walk.n, walk.B
        deltas, scratch = kernel.deltas(K * B, dtype), kernel.scratch(K * B, dtype)
        below = np.zeros((n, K * B, self.scan.inputs), dtype) if dx else None
        for delta in deltas:
            delta[:] = 0
        begins = np.zeros(n, int) if self.scan.reverse or any(part.any() for part in ds) else came.begin(n)
        for t in range(n) if self.scan.reverse else range(n - 1, -1, -1):
            came.add(t, ds.h.reshape(K, B, -1), None if walk.valid is None else walk.valid[t])
            begin = int(begins[t])
            if begin == K:  # none of them has begun
                continue
            uses = walk.back_step(t, ds, deltas, scratch, NO_CUT, (0, 2 * n + K, 0), begin * B)
            visit(t, begin, from_loss(self.with_recurrent_bias(uses), begin))
            if below is not None:
                walk.add_inputs(deltas[0], below[t])
        return None if below is None else below.reshape(n, K, B, -1).swapaxes(0, 1)

    def norms(self, uses: Uses, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
        """Name → (K,) norms of the uses of one step."""
        return step_norms(uses, shapes, self.layers.threads)


class Adjoints(NamedTuple):
    """Of a layer's outputs, by K losses; those of both kinds are added.

    K: losses.  every: (K, n, B, W) or None.
    own, who: (n, B, W), and the loss (n,) that own[t] belongs to, where each step has one loss that speaks of it; None.
    """

    K: int
    every: Array | None
    own: Array | None = None
    who: Array | None = None

    def add(self, t: int, dh: Array, live: Array | None) -> None:
        """Add what comes at one step to dh (K, B, W), save for sequences that have ended."""
        if self.own is not None and self.who is not None:
            dh[int(self.who[t])] += _of_live(self.own[t], live)
        if self.every is not None:
            dh += _of_live(self.every[:, t], live)

    def begin(self, n: int) -> Array:
        """(n,) the first loss that has anything to say at a step, where all before it have yet to begin; else 0.

        So losses of one step each, in their order, are walked back only from their own step.
        """
        last = np.full(self.K, -1)  # the step from which a loss walks back
        if self.own is not None and self.who is not None:
            np.maximum.at(last, self.who, np.arange(n))
        if self.every is not None:
            alive: Any = self.every.reshape(self.K, n, -1).any(-1)
            last = np.maximum(last, np.where(alive.any(-1), n - 1 - alive[:, ::-1].argmax(-1), -1))
        return np.zeros(n, int) if (np.diff(last) < 0).any() else np.searchsorted(last, np.arange(n))


def _of_live(came: Array, live: Array | None) -> Array:
    return came if live is None else np.where(live[:, None], came, came.dtype.type(0))

"""One batch walked forward, and walked back under a plan: the compiled engine's `gradient` and `record`."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bptt.engine.compiled.contributions import step_norms
from bptt.engine.compiled.losses import evaluate
from bptt.engine.compiled.measure import square_sum, state_norms
from bptt.engine.compiled.sweep import sweep
from bptt.engine.compiled.totals import Totals, inner_products
from bptt.engine.compiled.walk import NO_CUT, Block, Layers, Walk, contiguous, forward
from bptt.engine.given import Given, Pass
from bptt.engine.plan import Checkpointed, Chunked, Windowed
from bptt.engine.stack import Stack
from bptt.ledger import Recorder, inner
from bptt.model import Scan, States
from bptt.model.losses import LossValue
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Matmul, Use, Uses


class Unfinished(ArithmeticError):
    """NaN or infinity came up; which tensor and step is for the reference to say."""


class Stretch:
    """Some steps, walked forward: walks by prefix, top (n, B, W), y (n, B, O), states after, and what the loss says."""

    def __init__(self, start: int, walks: dict[str, Walk], top: Array, y: Array, value: LossValue):
        self.start, self.walks, self.top, self.y, self.value = start, walks, top, y, value
        self.states: States = {prefix: walk.state for prefix, walk in walks.items()}


class Run:
    """One batch walked forward, and what walking it back needs.

    Raises:
        Unfinished: a loss, or later the gradient, is not finite.
    """

    def __init__(self, given: Given, threads: int):
        self.given, self.threads = given, threads
        self.network, self.T, self.B = given.network, given.T, given.B
        self.layers = Layers(given.network, threads)
        self.x, kind = contiguous(given.x), given.targets.dtype.kind
        self.targets = np.ascontiguousarray(given.targets, np.int64 if kind in "iu" else given.weights.dtype)
        self._forward()

    # ---- forward -----------------------------------------------------------------------------------------------

    def _forward(self) -> None:
        """Walk forward once; of several stretches only the last keeps its tapes."""
        n, self.every, plan = self.T, None, self.given.plan
        if isinstance(plan, Checkpointed):
            n = plan.steps(self.T)
            if self.network.bidirectional:  # every layer needs both directions of the one below: tapes are remade
                n, self.every = self.T, n
        self.n, self.starts, self.before, losses = n, list(range(0, self.T, n)), [], []
        states = self.given.states
        for start in self.starts:
            self.before.append(states)
            self.last = self._stretch(start)
            states = self.last.states
            losses.append(self.last.value.per_step)
        self.losses, self.states = np.concatenate(losses), states
        if not np.isfinite(self.losses).all():
            raise Unfinished

    def _stretch(self, start: int) -> Stretch:
        steps = slice(start, min(start + self.n, self.T))
        valid = None if self.given.valid is None else self.given.valid[steps]
        walks, top = forward(self.layers, self.x[steps], self.before[start // self.n], valid, self.every)
        y = self.layers.readout(top)
        value = evaluate(self.given.loss, y, self.targets[steps], self.given.weights[steps], self.threads)
        return Stretch(start, walks, top, y, value)

    # ---- back --------------------------------------------------------------------------------------------------

    def gradient(self, dx: bool = True) -> Pass:
        """Walk the whole loss back at once, and add up."""
        totals = self._totals(measure=False)
        dstates, dx_found = self._walk_back(
            lambda stretch, scan, block: totals.add(_full(scan, block.uses)),
            lambda stretch, readout: totals.add(readout), dx=dx,
        )  # fmt: skip
        return self._finish(totals, dstates, dx_found)

    def record(self, recorder: Recorder, shares: bool = False) -> Pass:
        """The same, with every use handed to a recorder."""
        totals, held = self._totals(measure=True), []
        holds = shares and (recorder.keep != "norms" or (len(self.starts) == 1 and self.every is None))

        def see(stretch: Stretch, scan: Scan, block: Block) -> None:
            take(stretch.start + block.low, _full(scan, block.uses))
            if block.states or block.sizes is not None:
                self._note_states(recorder, stretch, scan, block)

        def take(start: int, uses: Uses) -> None:
            recorder.add(start, uses, totals.add(uses))
            if holds:  # they are in memory anyway
                held.append((start, uses))

        wants = "norms" if recorder.keep == "norms" else "parts"
        dstates, _ = self._walk_back(
            see, lambda stretch, readout: take(stretch.start, readout), wants=wants, recorder=recorder
        )  # fmt: skip
        for prefix, ds in dstates.items():
            recorder.state(prefix, 0, ds)
        if recorder.wants_losses:
            self._walk_back_losses(recorder)
        done = self._finish(totals, dstates, None)
        if recorder.keep == "norms":  # what keeps its factors is held against the gradient when it is asked
            recorder.residuals = totals.residuals(done.gradients)
        if shares:
            self._note_shares(recorder, done, held)
        return done

    def _note_shares(self, recorder: Recorder, done: Pass, held: list[tuple[int, Uses]]) -> None:
        """Shares, once the gradient is known: of the uses that were held, or on a walk back of their own."""

        def note(start: int, uses: Uses) -> None:
            recorder.add_shares(start, uses, done.gradients, self._inner)

        for start, uses in held:
            note(start, uses)
        if not held:
            self._walk_back(
                lambda stretch, scan, block: note(stretch.start + block.low, _full(scan, block.uses)),
                lambda stretch, readout: note(stretch.start, readout),
            )  # fmt: skip

    def _inner(self, use: Use, V: Array) -> Array:
        """⟨dW_t, V⟩ of every step, (n,)."""
        if isinstance(use, Matmul) and use.z.dtype.kind == "f":
            return inner_products(use, V, self.threads)
        if isinstance(use, Columns):
            edges = np.cumsum([0] + [part.delta.shape[-1] for part in use.parts])
            pairs = zip(use.parts, edges, edges[1:], strict=False)
            return np.sum(
                [self._inner(part, np.ascontiguousarray(V[:, low:high])) for part, low, high in pairs], axis=0
            )
        return inner(use, V)

    def _totals(self, measure: bool) -> Totals:
        shapes = {name: value.shape for name, value in self.network.params.items()}
        return Totals(shapes, self.layers.dtype, self.threads, measure)

    def _stretches(self) -> Iterator[Stretch]:
        """From the last to the first; all but the last walked forward again from the kept state."""
        for start in reversed(self.starts):
            yield self.last if start == self.last.start else self._stretch(start)

    def cut(self, stretch: Stretch, scan: Scan) -> Array:
        """(n,) steps behind which a chunk ends; the initial state is an input of the first step, and is reached."""
        plan, n = self.given.plan, len(stretch.y)
        if not isinstance(plan, Chunked):
            return NO_CUT
        at = stretch.start + np.arange(n)
        to = at + (1 if scan.reverse else -1)
        return ((at // plan.K != to // plan.K) & (to >= 0) & (to < self.T)).astype(np.int8)

    def _dtop(self, stretch: Stretch) -> Array:
        """The adjoint of the last layer's output (n, B, W)."""
        dy = stretch.value.dy
        return dy if self.network.outputs is None else self.layers.readout_back(dy)

    def _walk_back(
        self, see: Callable[[Stretch, Scan, Block], Any], end: Callable[[Stretch, Uses], Any], dx: bool = False,
        wants: str | None = None, recorder: Recorder | None = None,
    ) -> tuple[States, Array | None]:  # fmt: skip
        """The whole loss at once, stretch by stretch, from the last to the first."""
        carry, found = None, []
        for stretch in self._stretches():
            dtop = self._dtop(stretch)
            if isinstance(self.given.plan, Windowed):
                carry = self._walk_windows(stretch, dtop, see, recorder)
            else:
                part, carry = self._back(stretch, dtop, carry, see, dx, wants)
                found = [part, *found]
            end(stretch, self._readout_uses(stretch))
        known = [part for part in found if part is not None]
        return carry or {}, joined_steps(known)

    def _back(
        self, stretch: Stretch, dtop: Array, carry: States | None, see: Callable[[Stretch, Scan, Block], Any],
        dx: bool, wants: str | None,
    ) -> tuple[Array | None, States]:  # fmt: skip
        net, before, below = self.network, {}, None
        for scan in reversed(net.scans()):
            if scan.reverse or not net.bidirectional:
                below = self._below(stretch, scan, dx)
            walk = stretch.walks[scan.prefix]
            ds = _copied(carry[scan.prefix]) if carry else _zeros(net.cell, self.B, self.layers.dtype)
            for block in walk.back(direction(dtop, net, scan), ds, self.cut(stretch, scan), wants):
                if below is not None:
                    inputs: Any = block.uses["W_xh"]
                    walk.add_inputs(inputs.delta, below[block.low : block.high])
                see(stretch, scan, block)
            before[scan.prefix] = ds
            if not scan.reverse and below is not None:
                dtop = below
        return below, before

    def _below(self, stretch: Stretch, scan: Scan, dx: bool) -> Array | None:
        """Where the adjoint of a layer's input is added up, if anyone asks for it."""
        if scan.layer == 0 and (not dx or self.x.dtype.kind == "i"):
            return None
        return np.zeros((len(stretch.y), self.B, scan.inputs), self.network.dtype)

    def _note_states(self, recorder: Recorder, stretch: Stretch, scan: Scan, block: Block) -> None:
        """∂J/∂s after every step of a block, counted as the scan walks."""
        low, high = stretch.start + block.low, stretch.start + block.high
        first, order = (self.T - high + 1, slice(None, None, -1)) if scan.reverse else (low + 1, slice(None))
        sizes = state_norms(block.states, self.threads) if block.sizes is None else block.sizes
        recorder.add_states(scan.prefix, first, sizes[order], tuple(part[order] for part in block.states))

    def _readout_uses(self, stretch: Stretch) -> Uses:
        if self.network.outputs is None:
            return {}
        dy = stretch.value.dy
        return {"readout.W": Matmul(stretch.top, dy), "readout.b": Elementwise(None, dy)}

    # ---- every loss on its own ---------------------------------------------------------------------------------

    def _walk_windows(self, stretch: Stretch, dtop: Array, see: Any, recorder: Recorder | None) -> States:
        """Every loss on its own, in groups, their uses added up; returns the sum of their adjoints of s_0."""
        before, stack = {}, Stack(stretch.start, len(stretch.y))

        def visit(scan: Scan, t: int, ds: Any, uses: Uses, first: int) -> None:
            stack.visit(scan, t, ds, uses, first)
            if recorder is not None:
                step = self.T - t if scan.reverse else t + 1
                recorder.add_state(scan.prefix, step, tuple(_by_loss(part, self.B) for part in ds))

        for _losses, carry in sweep(self, stretch, dtop, {}, visit):
            for prefix, ds in carry.items():
                rows = type(ds)(*(_by_loss(part, self.B).sum(0) for part in ds))
                known = before.get(prefix)
                before[prefix] = rows if known is None else type(ds)(*(a + b for a, b in zip(known, rows, strict=True)))
        uses = stack.uses()
        for scan in self.network.scans():
            own = {name: use for name, use in uses.items() if name.rpartition(".")[0] + "." == scan.prefix}
            short = {name.rpartition(".")[2]: use for name, use in own.items()}
            see(stretch, scan, Block(0, len(stretch.y), short, None, ()))
        return before

    def _walk_back_losses(self, recorder: Recorder) -> None:
        """Every loss on its own: what the recorder asks for of C[k, t]."""
        carries: dict[int, States] = {}
        for stretch in self._stretches():
            stack = Stack(stretch.start, len(stretch.y), losses=self.T)
            visit = recorder.losses_visitor(stack, lambda uses, shapes: step_norms(uses, shapes, self.threads))
            for losses, carry in sweep(self, stretch, self._dtop(stretch), carries, visit, states=False):
                carries[losses.start] = carry
            recorder.add_losses(stretch.start, stack.uses(), self._readout_uses(stretch))

    def _finish(self, totals: Totals, dstates: States, dx: Array | None) -> Pass:
        gradients = totals.gradients()
        if not all(math.isfinite(square_sum(g.reshape(-1))) or np.isfinite(g).all() for g in gradients.values()):
            raise Unfinished
        return Pass(float(self.losses.sum()), self.losses, gradients, self.states, dstates, dx)


def joined_steps(parts: list[Array]) -> Array | None:
    """Stretches put together along time."""
    return None if not parts else parts[0] if len(parts) == 1 else np.concatenate(parts)


def direction(dtop: Array, network: Any, scan: Scan) -> Array:
    """The half of the last axis that belongs to one direction."""
    width = network.cell.width
    if not network.bidirectional:
        return np.ascontiguousarray(dtop)
    return np.ascontiguousarray(dtop[..., width:] if scan.reverse else dtop[..., :width])


def _full(scan: Scan, uses: Uses) -> Uses:
    return {scan.prefix + name: use for name, use in uses.items()}


def _copied(state: Any) -> Any:
    return type(state)(*(part.copy() for part in state))


def _zeros(cell: Any, rows: int, dtype: Any) -> Any:
    return cell.State(*(np.zeros((rows, width), dtype) for width in cell.state_widths()))


def _by_loss(part: Array, B: int) -> Array:
    """Rows (K·B, S) as (K, B, S)."""
    return part.reshape(-1, B, part.shape[-1])

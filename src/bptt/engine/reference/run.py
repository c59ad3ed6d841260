"""One batch walked forward, and walked back under a plan: what `gradient` and `record` are made of."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bptt.engine.given import Pass, prepare
from bptt.engine.plan import Checkpointed, Chunked, Plan, Windowed
from bptt.engine.reference.sums import Sums
from bptt.engine.reference.walk import Keep, Stretch, back, forward
from bptt.engine.stack import Stack
from bptt.errors import NotFiniteError
from bptt.ledger import Recorder, inner
from bptt.model import Batch, Loss, Network, Scan, States
from bptt.typing import Array
from bptt.uses import Elementwise, Matmul, Uses

ROWS_BYTES = 32 << 20  # adjoints of so many losses are walked back at once as fit in this


class Run:
    """One batch walked forward, and what walking it back needs."""

    def __init__(self, network: Network, batch: Batch, loss: Loss, plan: Plan, states: States | None):
        given = prepare(network, batch, loss, plan, states)
        self.network, self.loss, self.plan, self.T, self.B, self.valid = given[:6]
        self.x, self.targets, self.weights = given.x, given.targets, given.weights
        self._forward(given.states)

    def _forward(self, states: States) -> None:
        """Walk forward once; of several stretches only the last keeps its tapes."""
        n, self.every = self.T, None
        if isinstance(self.plan, Checkpointed):
            n = self.plan.steps(self.T)
            if self.network.bidirectional:  # every layer needs both directions of the one below: tapes are remade
                n, self.every = self.T, n
        self.starts, self.before, losses = list(range(0, self.T, n)), [], []
        self.n = n
        with np.errstate(all="ignore"):
            for start in self.starts:
                self.before.append(states)
                self.last = self._stretch(start)
                states = self.last.states
                losses.append(self._evaluate(self.last).per_step)
                if not np.isfinite(losses[-1]).all():
                    raise self._first_bad_value(self.last)
        self.losses, self.states = np.concatenate(losses), states

    def _stretch(self, start: int) -> Stretch:
        steps = slice(start, start + self.n)
        valid = None if self.valid is None else self.valid[steps]
        return forward(self.network, self.x[steps], self.before[start // self.n], valid, start, self.every)

    def _evaluate(self, stretch: Stretch):
        steps = slice(stretch.start, stretch.start + len(stretch.y))
        return self.loss.evaluate(stretch.y, self.targets[steps], self.weights[steps])

    def _first_bad_value(self, stretch: Stretch) -> NotFiniteError:
        for scan in self.network.scans():
            tapes = stretch.tapes[scan.prefix]
            for t in range(len(tapes))[:: -1 if scan.reverse else 1]:
                for name, value in tapes[t]._asdict().items():
                    if value.dtype.kind == "f" and not np.isfinite(value).all():
                        at, came = stretch.start + t, stretch.start + t + (1 if scan.reverse else -1)
                        if name.endswith("_prev") and 0 <= came < self.T:  # made by the step before, not kept there
                            name, at = name.removesuffix("_prev"), came
                        return _not_finite(f"{scan.prefix}{name}", at, value)
        bad = int(np.argwhere(~np.isfinite(stretch.y).all((1, 2)))[0][0]) if not np.isfinite(stretch.y).all() else None
        if bad is not None:
            return _not_finite("output y", stretch.start + bad, stretch.y[bad])
        losses = self._evaluate(stretch).per_step
        bad = int(np.argwhere(~np.isfinite(losses))[0][0])
        return _not_finite("loss", stretch.start + bad, losses[bad : bad + 1])

    def _stretches(self) -> Iterator[Stretch]:
        """From the last to the first; all but the last walked forward again from the kept state."""
        for start in reversed(self.starts):
            yield self.last if start == self.last.start else self._stretch(start)

    def _keep(self, rows: Array | None) -> Keep:
        """What survives on the way from one step to the next, for the losses in `rows` (K, 1, 1).

        The initial state is an input of the first step: whatever reaches that step reaches it.
        """
        plan, T = self.plan, self.T
        if isinstance(plan, Chunked):
            return lambda t, to: None if t // plan.K == to // plan.K or not 0 <= to < T else False
        if isinstance(plan, Windowed) and rows is not None:
            return lambda t, to: np.abs(rows - to) < plan.K if 0 <= to < T else None
        return lambda t, to: None

    def _dtop(self, stretch: Stretch) -> tuple[Array, Array]:
        """∂J/∂y (n, B, O), and the adjoint of the last layer's output (n, B, W)."""
        dy = self._evaluate(stretch).dy
        if self.network.outputs is None:
            return dy, dy
        W = self.network.params["readout.W"]
        return dy, (dy.reshape(-1, W.shape[1]) @ W.T).reshape(*dy.shape[:-1], W.shape[0])

    def gradient(self, dx: bool = True) -> Pass:
        """Walk the whole loss back at once, and add up."""
        sums = self._sums()
        dstates, found = self._walk_back(sums.visit, sums.add)
        return self._finish(sums, dstates, found if dx else None)

    def record(self, recorder: Recorder, shares: bool = False) -> Pass:
        """The same, with every use handed to a recorder; the gradient is added up apart from what that keeps."""
        sums = self._sums()
        note_state = recorder.add_state if isinstance(self.plan, Windowed) else recorder.state

        def see(scan: Scan, t: int, ds: Any, uses: Uses) -> None:
            sums.visit(scan, t, ds, uses)
            note_state(scan.prefix, self.T - t if scan.reverse else t + 1, ds)

        def end(stretch: Stretch, uses: Uses, readout: Uses) -> None:
            sums.add(stretch, readout)
            recorder.add(stretch.start, uses | readout)

        dstates, dx = self._walk_back_stacked(see, end)
        for prefix, ds in dstates.items():
            recorder.state(prefix, 0, ds)
        if recorder.wants_losses:
            self._walk_back_losses(recorder)
        done = self._finish(sums, dstates, dx)
        if shares:  # the gradient must be known first, so they take a walk of their own
            self._walk_back_stacked(
                lambda scan, t, ds, uses: None,
                lambda stretch, uses, readout: recorder.add_shares(
                    stretch.start, uses | readout, done.gradients, inner
                ),
            )  # fmt: skip
        return done

    def _walk_back_stacked(
        self, see: Callable[..., None], end: Callable[[Stretch, Uses, Uses], None]
    ) -> tuple[States, Array | None]:
        """The whole loss, with the uses of every stretch stacked for `end`."""
        stack = Stack(0, 0)

        def visit(scan: Scan, t: int, ds: Any, uses: Uses, first: int = 0) -> None:
            see(scan, t, ds, uses)
            stack.visit(scan, t, ds, uses, first)

        def begin(stretch: Stretch) -> None:
            nonlocal stack
            stack = Stack(stretch.start, len(stretch.y))

        return self._walk_back(visit, lambda stretch, readout: end(stretch, stack.uses(), readout), begin)

    def _sums(self) -> Sums:
        return Sums({name: value.shape for name, value in self.network.params.items()}, self.network.dtype)

    def _walk_back(
        self,
        visit: Callable[..., None],
        end: Callable[[Stretch, Uses], None] = lambda stretch, readout: None,
        begin: Callable[[Stretch], None] = lambda stretch: None,
    ) -> tuple[States, Array | None]:
        """The whole loss at once (with windows: every loss on its own), stretch by stretch, from the last to the first.

        Returns ∂J/∂s_0 and ∂J/∂x; no ∂J/∂x for ids, and none with windows.
        """
        carry, dx = None, []
        with np.errstate(all="ignore"):
            for stretch in self._stretches():
                dy, dtop = self._dtop(stretch)
                begin(stretch)
                if isinstance(self.plan, Windowed):
                    carry = self._walk_windows(stretch, dtop, visit)
                else:
                    span, keep = (0, len(stretch.y)), self._keep(None)
                    part, carry = back(self.network, stretch, lambda t, d=dtop: d[t], (), carry, keep, visit, span)
                    dx = [part, *dx]
                end(stretch, self._readout_uses(stretch, dy))
        known = [part for part in dx if part is not None]
        return carry or {}, np.concatenate(known) if known else None

    def _readout_uses(self, stretch: Stretch, dy: Array) -> Uses:
        if self.network.outputs is None:
            return {}
        return {"readout.W": Matmul(stretch.top, dy), "readout.b": Elementwise(None, dy)}

    def _walk_windows(self, stretch: Stretch, dtop: Array, visit: Callable[..., None]) -> States:
        """Every loss on its own, in groups; returns the sum of their adjoints of the initial state."""
        before: States = {}
        for _losses, carry in self.groups(stretch, dtop, {}, visit):
            for prefix, ds in carry.items():
                rows = type(ds)(*(part.sum(0) for part in ds))
                known = before.get(prefix)
                before[prefix] = rows if known is None else type(ds)(*(a + b for a, b in zip(known, rows, strict=True)))
        return before

    def groups(
        self, stretch: Stretch, dtop: Array, carries: dict[int, States], visit: Any
    ) -> Iterator[tuple[range, States]]:
        """Walk back many losses at once, each with its own adjoint, in groups whose adjoints fit in memory.

        carries: first loss of a group → adjoints (K, B, S) of the states after the stretch.
        visit: called with scan, step, adjoint, uses, and the first loss of the group.
        """
        n, start = len(stretch.y), stretch.start
        size = self.group_size()
        causal = not self.network.bidirectional
        for low in range(0, self.T, size):
            losses = range(low, min(low + size, self.T))
            if causal and losses.stop <= start:
                continue
            rows = np.arange(losses.start, losses.stop)[:, None, None]
            reach = self.plan.K - 1 if isinstance(self.plan, Windowed) else self.T
            ahead = 0 if causal else reach if self.valid is None else self.T  # through padding to the initial state
            span = (max(0, losses.start - reach - start), min(n, losses.stop + ahead - start))
            if span[0] >= span[1]:
                continue

            def own(t: int, losses: range = losses) -> Array:
                out = np.zeros((len(losses), *dtop.shape[1:]), dtop.dtype)
                if start + t in losses:
                    out[start + t - losses.start] = dtop[t]
                return out

            def see(scan: Scan, t: int, ds: Any, uses: Uses, low: int = low) -> None:
                visit(scan, t, ds, uses, low)

            _, carry = back(self.network, stretch, own, (len(losses),), carries.get(low), self._keep(rows), see, span)
            yield losses, carry

    def group_size(self) -> int:
        """How many losses are walked back at once."""
        cell, net = self.network.cell, self.network
        one = self.B * cell.hidden * (len(cell.gates) + 4)
        if net.layers > 1:
            one += min(self.n, self.T) * self.B * cell.width * net.directions
        return int(min(self.T, max(1, ROWS_BYTES // (one * net.dtype.itemsize))))

    def _walk_back_losses(self, recorder: Recorder) -> None:
        """Every loss on its own: what the recorder asks for of C[k, t]."""
        carries: dict[int, States] = {}
        with np.errstate(all="ignore"):
            for stretch in self._stretches():
                dy, dtop = self._dtop(stretch)
                stack = Stack(stretch.start, len(stretch.y), losses=self.T)
                visit = recorder.losses_visitor(stack)
                for losses, carry in self.groups(stretch, dtop, carries, visit):
                    carries[losses.start] = carry
                recorder.add_losses(stretch.start, stack.uses(), self._readout_uses(stretch, dy))

    def _finish(self, sums: Sums, dstates: States, dx: Array | None) -> Pass:
        """The result, after a look for overflow."""
        with np.errstate(all="ignore"):
            gradients = sums.gradients()
        for name, value in gradients.items():
            if not np.isfinite(value).all():
                raise self._exploded(name, value)
        return Pass(float(self.losses.sum()), self.losses, gradients, self.states, dstates, dx)

    def _exploded(self, name: str, value: Array) -> NotFiniteError:
        """The error for a gradient that is not finite: walks back once more, to see at which step it began."""
        first: list[str] = []

        def look(scan: Scan, t: int, ds: Any, uses: Uses, row: int = 0) -> None:
            if not first and not all(np.isfinite(part).all() for part in ds):
                first.append(f", which begins with ∂J/∂s of {scan.prefix[:-1]} at step {t + 1}")

        self._walk_back(look)
        got = str(value[~np.isfinite(value)][0])
        do = "The gradient explodes: clip it, shorten the plan, or scale the recurrent weights down."
        return NotFiniteError(f"gradient of {name}{''.join(first)}", got=got, expected="finite numbers", do=do)


def _not_finite(tensor: str, step: int, value: Array) -> NotFiniteError:
    got = str(value[~np.isfinite(value)][0])
    do = "It first appeared there: look at the inputs and weights of that step, or lower the learning rate."
    return NotFiniteError(f"{tensor} at step {step + 1}", got=got, expected="finite numbers", do=do)

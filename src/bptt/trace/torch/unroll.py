"""A fused layer step by step in torch's own operations: any device, any type, autocast; autograd walks it back.

The equations are those of `bptt.cells`, in the order of torch's composite layers (aten/src/ATen/native/RNN.cpp). The
product with the inputs is one for all steps.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bptt.ledger.norms import pythagoras
from bptt.ledger.reductions import first
from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.uses import Signal, to_array
from bptt.trace.torch.walks import SLOTS, Walk
from bptt.typing import Array
from bptt.uses import Elementwise, Linear, Use


def unrolled_scan(tracer: Tracer, scan: Any, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None) -> Any:
    """Outputs (T, B, W) and the state after."""
    walk = Walk(tracer, scan, *x.shape[:2])
    weights, at = _Weights(tracer, walk), _Listener(tracer, walk)
    inner = _inputs(weights, at, x)
    outs: list[Any] = [None] * walk.T
    state = at.state(0, at.begun(state))
    for i in range(walk.T):
        t = walk.T - 1 - i if scan.reverse else i
        after = STEPS[scan.kind](scan, at, t, inner[t], state, weights)
        live = None if valid is None else valid[t][:, None]
        if live is not None:
            after = tuple(torch.where(live, new, old) for new, old in zip(after, state, strict=True))
        state = at.state(i + 1, after)
        outs[t] = state[0] if live is None else torch.where(live, state[0], torch.zeros_like(state[0]))
    if walk.live:
        tracer.note_unrolled(walk, at)
    return torch.stack(outs), state


def _inputs(weights: "_Weights", at: "_Listener", x: Tensor) -> Tensor:
    """The product of every step's input."""
    if weights.worked_out("w_ih") or weights.worked_out("b_ih"):
        return torch.stack([F.linear(row, weights["w_ih"], weights["b_ih"]) for row in x])
    return at.inputs(x, F.linear(x, weights["w_ih"], weights["b_ih"]))


class _Weights:
    """The weights by slot; of one that was worked out from parameters, an alias for each use."""

    def __init__(self, tracer: Tracer, walk: Walk):
        self.tracer, self.given = tracer, dict(zip(SLOTS, walk.scan.weights, strict=True))
        self.made = {slot for slot, source in walk.sources.items() if source.name is None or source.flipped}
        for slot in self.made:
            walk.places[slot] = None

    def worked_out(self, slot: str) -> bool:
        """Whether it is no parameter itself."""
        return slot in self.made

    def __getitem__(self, slot: str) -> Any:
        weight = self.given[slot]
        return self.tracer.alias(weight) if slot in self.made else weight


class Heard(NamedTuple):
    """A product's inputs and what comes back to it: of all steps at once, or of each step (None before it is made).

    width: N.  handles: the products themselves, where every loss will be asked on its own.
    """

    width: int
    z: Any
    signals: Any
    handles: Any

    def arrays(self, adjoints: dict[int, Tensor] | None = None, K: int = 0) -> tuple[Array, Array]:
        """z (T, B, M) and δ (T, B, N); or δ (K, T, B, N) from the adjoints of the handles."""
        lead = (K,) if adjoints is not None else ()
        every = not isinstance(self.z, Tensor)
        z = torch.stack(self.z) if every else self.z

        def delta(signal: Signal, handle: Tensor | None) -> Tensor:
            found = signal.delta if adjoints is None else adjoints.get(id(handle))
            shape = (*lead, *(z.shape[1:-1] if every else z.shape[:-1]), self.width)
            return torch.zeros(shape, dtype=z.dtype, device=z.device) if found is None else found

        if not every:
            return to_array(z), to_array(delta(self.signals, self.handles))
        pairs = zip(self.signals, self.handles, strict=True)
        return to_array(z), to_array(torch.stack([delta(*pair) for pair in pairs], len(lead)))


class Begun(torch.autograd.Function):
    """A tensor as it is, in the graph of a weight: what is asked of the weight's gradient comes by here."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, weight: Tensor) -> Tensor:
        """The same tensor."""
        return part.view_as(part)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        """Nothing for either: neither was asked for."""
        return None, None


class _Listener:
    """Listens to what comes back to the products and states of a walk."""

    def __init__(self, tracer: Tracer, walk: Walk):
        self.tracer, self.walk = tracer, walk
        self.heard: dict[str, Heard] = {}
        self.of_states: list[list[Signal]] = []

    def _listen(self, out: Tensor) -> tuple[Signal, Tensor]:
        signal = Signal()
        if out.requires_grad:
            hear(self.tracer, out, signal)
        return signal, out.clone() if self.tracer.handles else out

    def inputs(self, x: Tensor, out: Tensor) -> Tensor:
        """The product of all steps' inputs."""
        if not self.walk.live:
            return out
        signal, onward = self._listen(out)
        self.heard["w_ih"] = Heard(out.shape[-1], x.detach(), signal, out if self.tracer.handles else None)
        return onward

    def product(self, slot: str, t: int, z: Tensor, out: Tensor) -> Tensor:
        """A product at one step."""
        if not self.walk.live:
            return out
        heard = self.heard.setdefault(slot, Heard(out.shape[-1], *([None] * self.walk.T for _ in range(3))))
        heard.z[t], heard.handles[t] = z.detach(), out if self.tracer.handles else None
        heard.signals[t], out = self._listen(out)
        return out

    def begun(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The state before, which an adjoint comes to even where the program wants none."""
        weight = next((w for w in self.walk.scan.weights if w is not None and w.requires_grad), None)
        if weight is None:
            return parts
        return tuple(part if part.requires_grad else Begun.apply(part, weight) for part in parts)

    def state(self, i: int, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The state after so many steps; what of it went into this step's own output is not heard with it."""
        if not self.walk.live:
            return parts
        parts = (parts[0], *(part.view_as(part) for part in parts[1:]))
        self.of_states.append([Signal() for _ in parts])
        for part, signal in zip(parts, self.of_states[-1], strict=True):
            if part.requires_grad:
                hear(self.tracer, part, signal)
        return parts

    def settle(self) -> None:
        """Put what has come back into the walk, as one on the compiled engine has it."""
        walk = self.walk
        for heard in self.heard.values():
            signals = [heard.signals] if isinstance(heard.signals, Signal) else heard.signals
            self.tracer.types |= {s.delta.dtype for s in signals if s is not None and s.delta is not None}
        walk.times = max((signal.times for step in self.of_states for signal in step), default=0)
        uses: dict[str, Use] = {slot: Linear(*heard.arrays()) for slot, heard in self.heard.items()}
        for bias, product in (("b_ih", "w_ih"), ("b_hh", "w_hh")):
            if product in uses:
                uses[bias] = Elementwise(None, first(uses[product]).delta)  # type: ignore[arg-type]
        for slot, use in uses.items():
            walk.take_use(self.tracer, slot, use)
        parts = tuple(
            np.stack([to_array(_delta(step[i], (walk.B, width))) for step in self.of_states])
            for i, width in enumerate(walk.scan.cell.state_widths())
        )
        walk.sizes = pythagoras(np.concatenate(parts, axis=-1))
        walk.states = () if self.tracer.keep == "norms" else parts


def hear(tracer: Tracer, out: Tensor, signal: Signal) -> None:
    """Let the adjoint of a tensor come to a signal."""
    out.register_hook(lambda delta: None if tracer.quiet else signal.take(delta))


def _delta(signal: Signal, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape) if signal.delta is None else signal.delta


def _rnn(scan: Any, at: _Listener, t: int, a: Tensor, state: Any, w: Any) -> tuple[Tensor, ...]:
    (h,) = state
    a = at.product("w_hh", t, h, F.linear(h, w["w_hh"], w["b_hh"])) + a
    return (torch.tanh(a) if scan.cell.nonlinearity == "tanh" else torch.relu(a),)


def _gru(scan: Any, at: _Listener, t: int, a: Tensor, state: Any, w: Any) -> tuple[Tensor, ...]:
    (h,) = state
    u = at.product("w_hh", t, h, F.linear(h, w["w_hh"], w["b_hh"]))
    (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), u.chunk(3, -1)
    r, z = torch.sigmoid(u_r + a_r), torch.sigmoid(u_z + a_z)
    n = torch.tanh(a_n + u_n * r)
    return ((h - n) * z + n,)


def _lstm(scan: Any, at: _Listener, t: int, a: Tensor, state: Any, w: Any) -> tuple[Tensor, ...]:
    h, c = state
    i, f, g, o = (at.product("w_hh", t, h, F.linear(h, w["w_hh"], w["b_hh"])) + a).chunk(4, -1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    c = f * c + i * g
    m = o * torch.tanh(c)
    return (m if w["w_hr"] is None else at.product("w_hr", t, m, F.linear(m, w["w_hr"]))), c


STEPS: dict[str, Any] = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}

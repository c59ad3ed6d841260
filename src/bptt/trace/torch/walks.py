"""A fused layer's walk: what is noted of it on the way forward, and what its uses are once it has been walked back."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bptt.ledger.norms import pythagoras
from bptt.ledger.reductions import matrices
from bptt.trace.torch.sources import Source
from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.uses import check_version, to_array
from bptt.typing import Array
from bptt.uses import Elementwise, Linear, Matmul, Ready, Use, with_factors

SLOTS = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr")


class Walked(NamedTuple):
    """The uses of one parameter in one walk: n steps in the order of time.

    norms, sequence_norms, residual: (n,), (n, B), and the uses against their own sum; None if not measured.
    """

    order: tuple[int, ...]
    use: Use
    norms: Array | None = None
    sequence_norms: Array | None = None
    residual: float | None = None


class Walk:
    """One layer in one direction.

    scan: `bptt.trace.torch.fused.Scan`.  T, B: steps and sequences.  h0, end: tensors of the state before and after.
    places: slot → place among all calls, None where the call is only made once more.
    """

    def __init__(self, tracer: Tracer, scan: Any, T: int, B: int):
        self.scan, self.T, self.B = scan, T, B
        self.sources: dict[str, Source] = {}
        self.places: dict[str, tuple[int, ...] | None] = {}
        for slot, weight in zip(SLOTS, scan.weights, strict=True):
            if weight is not None and weight.requires_grad and tracer.is_weight(weight):
                self.sources[slot] = tracer.known[id(weight)]
                self.places[slot] = tracer.place()
        self.order = min((place for place in self.places.values() if place is not None), default=())
        self.live = any(place is not None for place in self.places.values())  # whether it is to be recorded
        self.uses: dict[str, list[Walked]] = {}  # parameter → its uses
        self.sizes: Array | None = None  # ‖∂J/∂s‖ (T + 1, B) as it walks, from the state before
        self.states: tuple[Array, ...] = ()
        self.times = 0  # how often it was walked back
        self.begins: tuple[Tensor, ...] = ()
        self.ends: tuple[Tensor, ...] = ()
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.layer: Any = None
        self.node: Any = None
        self.listener: Any = None
        self.saw: tuple[Tensor, int] | None = None  # its inputs, and how often they had been written into

    def names(self) -> list[str]:
        """The parameters that it uses."""
        return [n for slot, s in self.sources.items() if self.places.get(slot) is not None for n in s.names]

    def take(self, tracer: Tracer, back: Any) -> None:
        """It was walked back (`bptt.engine.compiled.layer.Back`)."""
        self.times += 1
        for slot, use in in_slots(self.scan.kind, back.uses).items():
            name = OURS[self.scan.kind].get(slot, slot)
            self.take_use(tracer, slot, use, *back.measured[name], back.residuals.get(name))
        self._take_states(back)

    def take_use(self, tracer: Tracer, slot: str, use: Use, *measured: Any) -> None:
        """The use of one weight has come, with δ (T, B, N)."""
        place = self.places.get(slot)
        if place is not None:
            self._take(tracer, slot, Walked(place, use, *measured))

    def back_losses(self, node: Any, outs: Any, ends: list[Tensor | None], K: int, dx: bool, full: bool) -> Any:
        """K losses on the compiled engine, from the adjoints of its outputs (`layer.Adjoints`) and ends (K, …).

        Returns the adjoint of x (K, T, B, D) or None, those of the state before, and slot → norms (K, T) and, where
        they are wanted, uses with δ (K, T, B, N).
        """
        layer, cell = self.layer, self.scan.cell
        tape = node.saved_tensors
        layer.give_tape(np.ascontiguousarray(to_array(tape[0])), tuple(to_array(a) for a in tape[1 : 1 + node.tapes]))
        dtype = to_array(tape[0]).dtype
        ds = cell.State(*(
            np.zeros((K * self.B, w), dtype) if d is None else np.array(to_array(d), order="C").reshape(K * self.B, w)
            for d, w in zip(ends, cell.state_widths(), strict=True)
        ))  # fmt: skip
        seen = _Seen(self, K, full or any(s.name is None or s.flipped for s in self.sources.values()))
        below = layer.back_losses(outs, ds, dx, seen.visit)
        layer.drop()
        before = [torch.from_numpy(part.reshape(K, self.B, -1)) for part in ds]
        return None if below is None else torch.from_numpy(np.ascontiguousarray(below)), before, seen.said()

    def nothing(self, slot: str) -> Use:
        """The use of a weight in a walk that nothing came back to, as factors of zeros."""
        shape, dtype = self.sources[slot].tensor.shape, to_array(self.sources[slot].tensor[:0]).dtype
        delta = np.zeros((self.T, 1, shape[0]), dtype)
        return Elementwise(None, delta) if len(shape) == 1 else Linear(np.zeros((self.T, 1, shape[1]), dtype), delta)

    def take_nothing(self, tracer: Tracer) -> None:
        """It was never walked back: its uses are there, and none adds anything."""
        for slot in self.sources:
            self.take_use(tracer, slot, self.nothing(slot))
        widths = self.scan.cell.state_widths()
        parts = tuple(np.zeros((self.T + 1, self.B, w)) for w in widths)
        self.sizes, self.states = np.zeros((self.T + 1, self.B)), () if tracer.keep == "norms" else parts

    def own(self) -> None:
        """Hold inputs of its own, and no longer the program's.

        Raises:
            InputError: they were written into since.
        """
        source = self.sources.get("w_ih")
        if self.saw is None or source is None or source.name not in self.uses:
            return
        x, version = self.saw
        check_version(source.name, x, version)
        array = to_array(x)
        self.uses[source.name] = [
            walked._replace(use=with_factors(walked.use, z=np.copy))
            if isinstance(walked.use, Linear) and np.may_share_memory(walked.use.z, array) else walked
            for walked in self.uses[source.name]
        ]  # fmt: skip
        self.saw = None

    def goes_on(self, other: "Walk") -> bool:
        """Whether another walk begins where this one ended."""
        return self.B == other.B and all(map(_same, self.ends, other.begins))

    def _take_states(self, back: Any) -> None:
        """‖∂J/∂s‖ as it walks, from the state before to the state after; and its parts, if they are kept.

        `back` counts in the order of time, and says what a step's own output adds to what comes from the steps after.
        """
        order = slice(None, None, -1) if self.scan.reverse else slice(None)
        before = pythagoras(np.concatenate(back.ds, axis=-1))
        self.sizes = np.concatenate([before[None], back.sizes[order]])
        if back.states:
            pairs = zip(back.ds, back.states, strict=True)
            self.states = tuple(np.concatenate([start[None], part[order]]) for start, part in pairs)

    def _take(self, tracer: Tracer, slot: str, walked: Walked) -> None:
        source = self.sources[slot]
        if source.name is not None and not source.flipped:
            self.uses.setdefault(source.name, []).append(walked)
            return
        made = torch.from_numpy(matrices(walked.use, tuple(source.tensor.shape))).to(source.tensor)
        if source.name is not None:
            found = {source.name: made.mT}
        else:
            found = tracer.pull(source, made, list(source.names), batched=True)
        for name, gradients in found.items():
            self.uses.setdefault(name, []).append(Walked(walked.order, Ready(to_array(gradients))))


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two states are one; a checkpoint has made its numbers once more, or torch's own kernel has made them."""
    if a.data_ptr() == b.data_ptr():
        return True
    near = 64 * torch.finfo(a.dtype).eps
    return a.dtype == b.dtype and bool(a.any()) and torch.allclose(a, b, near, near)


OURS = {
    "rnn": {"w_ih": "W_xh", "w_hh": "W_hh", "b_ih": "b", "b_hh": "b"},
    "gru": {"w_ih": "W_xh", "w_hh": "W_hh", "b_ih": "b", "b_hh": "b_hh"},
    "lstm": {"w_ih": "W_xh", "w_hh": "W_hh", "b_ih": "b", "b_hh": "b", "w_hr": "W_hr"},
}


def in_slots(kind: str, uses: Any) -> dict[str, Use]:
    """Uses of our parameters as uses of torch's: rows where we have columns, and two biases."""
    slots = {"w_ih": Linear(*uses["W_xh"]), "w_hh": Linear(*uses["W_hh"]), "b_ih": uses["b"]}
    slots["b_hh"] = uses["b_hh" if kind == "gru" else "b"]
    return slots | ({"w_hr": Linear(*uses["W_hr"])} if "W_hr" in uses else {})


class _Seen:
    """What K losses say of the uses of a walk, taken in step by step."""

    def __init__(self, walk: Walk, K: int, full: bool):
        self.walk, self.K, self.full = walk, K, full
        self.shapes = {
            slot: tuple(w.shape) for slot, w in zip(SLOTS, walk.scan.weights, strict=True) if slot in walk.sources
        }
        self.norms: dict[str, Array] = {}
        self.z: dict[str, Any] = {}
        self.deltas: dict[str, Array] = {}

    def visit(self, t: int, first_loss: int, uses: dict[str, Use]) -> None:
        """One step, δ (K − first_loss, B, N)."""
        slots = {slot: u for slot, u in in_slots(self.walk.scan.kind, uses).items() if slot in self.shapes}
        turned = {slot: Matmul(u.z, u.delta) if isinstance(u, Linear) else u for slot, u in slots.items()}
        shapes = {slot: self.shapes[slot][::-1] for slot in slots}
        for slot, column in self.walk.layer.norms(turned, shapes).items():
            if slot not in self.norms:
                self.norms[slot] = np.zeros((self.K, self.walk.T), column.dtype)
            self.norms[slot][first_loss:, t] = column
        if self.full:
            for slot, use in slots.items():
                self._keep(slot, t, first_loss, use)

    def _keep(self, slot: str, t: int, first_loss: int, use: Any) -> None:
        if slot not in self.deltas:
            _, B, N = use.delta.shape
            self.deltas[slot] = np.zeros((self.K, self.walk.T, B, N), use.delta.dtype)
            self.z[slot] = None if use.z is None else np.zeros((self.walk.T, *use.z.shape), use.z.dtype)
        self.deltas[slot][first_loss:, t] = use.delta
        if use.z is not None:
            self.z[slot][t] = use.z

    def said(self) -> dict[str, tuple[Array, Use | None]]:
        """Slot → norms (K, T), and the use if it was kept."""
        none = np.zeros((self.K, self.walk.T))
        kept = {slot: _use(self.z[slot], delta) for slot, delta in self.deltas.items()}
        return {slot: (self.norms.get(slot, none), kept.get(slot)) for slot in self.shapes}


def _use(z: Array | None, delta: Array) -> Use:
    return Elementwise(None, delta) if z is None else Linear(z, delta)

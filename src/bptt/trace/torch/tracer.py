"""Sees every call of a model that has parameters in it, and gives each call its own alias of them.

A mode of `torch.overrides`: while it is on, each function of torch that a Python program calls comes by here. The calls
go on to torch as they were, save that a parameter is replaced by a view of itself, or that a hook listens to the
output; neither changes a bit of what is computed. Fused recurrent layers are walked by `bptt.trace.torch.fused`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from bptt.ledger import Place
from bptt.trace.torch.uses import Record, Signal, to_array
from bptt.typing import Array

PASS = {torch.autograd.grad, torch.autograd.backward, Tensor.backward, Tensor.register_hook}
BACKWARD = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}
FLIPS: Any = {Tensor.t, torch.t, Tensor.T.__get__, Tensor.mT.__get__, Tensor.transpose, torch.transpose}  # type: ignore


class Source(NamedTuple):
    """Where a tensor comes from: a parameter, its transpose, or what was worked out from parameters alone.

    tensor: itself.  name: of the parameter it is, or is the transpose of; None for what was worked out.
    roots: names of the parameters it was worked out from.
    """

    tensor: Tensor
    name: str | None
    flipped: bool = False
    roots: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter behind it."""
        return self.roots if self.name is None else (self.name,)


Call = Callable[["Tracer", Any, tuple[Any, ...], dict[str, Any]], Any]


class Tracer(TorchFunctionMode):
    """The mode, and what it has seen since `forget`.

    Args:
        parameters: name → parameter, those whose uses are wanted.
        constants: tensors that are no data: buffers.
        calls: function of torch → who makes its factors; NotImplemented from it means: as any other function.
        keep: as the ledger keeps it.  engine: of the fused layers, "compiled" or "torch".
        handles: whether the tensors are kept to which adjoints come, so that every loss can be asked on its own.
    """

    def __init__(
        self, parameters: dict[str, Tensor], constants: list[Tensor], calls: dict[Any, Call], keep: str, engine: str,
        handles: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.parameters, self.calls, self.handles, self.keep, self.engine = parameters, calls, handles, keep, engine
        self.constants = {id(tensor): tensor for tensor in constants}
        self.forget()

    def forget(self) -> None:
        """Begin anew: no call was seen."""
        self.known = {id(tensor): Source(tensor, name) for name, tensor in self.parameters.items()}
        self.records: dict[str, list[Record]] = {}
        self.walks: list[Any] = []  # fused layers, in the order of their calls
        self.losses: list[Tensor] = []  # what went back, as far as it was seen
        self.calls_seen = 0
        self.quiet = False  # what comes back now is not the program's own backward pass
        self.replay: Iterator[tuple[int, bool]] | None = None  # places of calls that are made once more
        self.reserving: list[list[tuple[int, bool]]] = []
        self.cutting = False  # walks hand nothing on: each is walked back by itself
        self.gradients: dict[str, Tensor] = {}
        self.places: dict[str, Place] = {}
        self.scale = 1.0

    # ---- the mode ----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch."""
        kwargs = kwargs or {}
        if func in PASS:
            if func in BACKWARD:
                self._note_loss(func, args, kwargs)
            return func(*args, **kwargs)
        if not self._touches(args, kwargs):
            return func(*args, **kwargs)
        call = self.calls.get(func)
        if call is not None:
            found = call(self, func, args, kwargs)
            if found is not NotImplemented:
                return found
        return self.generic(func, args, kwargs)

    def _touches(self, args: Any, kwargs: Any) -> bool:
        known = self.known
        for a in args:
            if id(a) in known:
                return True
            if type(a) in (list, tuple):
                for b in a:
                    if id(b) in known:
                        return True
        return any(id(a) in known for a in kwargs.values()) if kwargs else False

    def _note_loss(self, func: Any, args: Any, kwargs: Any) -> None:
        outputs = args[0] if args else kwargs.get("tensors", kwargs.get("outputs"))
        given = [outputs] if isinstance(outputs, Tensor) else list(outputs or ())
        self.losses += [tensor.detach() for tensor in given if tensor.numel() == 1]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """The mode switched on, unless it is."""
        if is_on(self):
            yield
        else:
            with self:
                yield

    # ---- calls of any function ---------------------------------------------------------------------------------

    def generic(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A function of which nothing is known: a parameter among data is a use; one among parameters is no use yet."""
        tensors = list(_tensors((*args, *kwargs.values())))
        if all(id(t) in self.known or id(t) in self.constants for t in tensors):
            out = func(*args, **kwargs)
            if torch.is_grad_enabled():
                self._derive(func, tensors, out)
            return out
        if not torch.is_grad_enabled():
            if self.reserving:
                for t in {id(t): t for t in tensors if id(t) in self.known}.values():
                    for _ in self.known[id(t)].names:
                        self.place()
            return func(*args, **kwargs)
        aliases = {id(t): self.alias(t) for t in tensors if id(t) in self.known and t.requires_grad}
        return func(*_replaced(args, aliases), **{k: _replaced((v,), aliases)[0] for k, v in kwargs.items()})

    def own_function(self, cls: Any, apply: Any, args: Any, kwargs: Any) -> Any:
        """An autograd function of the program's own: what it does with a parameter is its own affair, and a use."""
        return self.generic(apply, args, kwargs) if self._touches(args, kwargs) else apply(*args, **kwargs)

    def alias(self, tensor: Tensor) -> Tensor:
        """A view of a tensor for one use of it, whose gradient is recorded."""
        source = self.known[id(tensor)]
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            alias = tensor.view_as(tensor)
        signals = {name: self.record(name, "ready", None, handle=alias, source=source) for name in source.names}
        live = {name: signal for name, signal in signals.items() if signal is not None}
        if live:
            alias.register_hook(lambda g: self.ready(source, live, g))
        return alias

    def ready(self, source: Source, signals: dict[str, Signal], g: Tensor) -> None:
        """The gradient of one use has come: handed to the parameters behind it."""
        if self.quiet:
            return
        if source.name is not None:
            signals[source.name].take(g.t() if source.flipped else g)
            return
        for name, found in self.pull(source, g, list(signals)).items():
            signals[name].take(found)

    def pull(self, source: Source, g: Tensor, names: list[str], batched: bool = False) -> dict[str, Tensor]:
        """The gradient by what was worked out from parameters, as gradients by these parameters."""
        quiet, self.quiet = self.quiet, True
        try:
            roots = [self.parameters[name] for name in names]
            found = torch.autograd.grad(
                source.tensor, roots, g, retain_graph=True, is_grads_batched=batched, allow_unused=True
            )  # fmt: skip
        finally:
            self.quiet = quiet
        lead = g.shape[:1] if batched else ()
        return {
            name: root.new_zeros(*lead, *root.shape) if d is None else d
            for name, root, d in zip(names, roots, found, strict=True)
        }

    def _derive(self, func: Any, tensors: list[Tensor], out: Any) -> None:
        """Remember what is worked out from parameters alone: its uses are theirs."""
        sources = [self.known[id(t)] for t in tensors if id(t) in self.known]
        names = tuple(dict.fromkeys(name for source in sources for name in source.names))
        for made in _tensors((out,)):
            if id(made) in self.known or not made.requires_grad:
                continue
            source = Source(made, None, roots=names)
            if func in FLIPS and len(tensors) == 1 and sources[0].name is not None and made.dim() == 2:
                same = made.shape == sources[0].tensor.shape and made.stride() == sources[0].tensor.stride()
                source = Source(made, sources[0].name, sources[0].flipped != (not same))
            self.known[id(made)] = source

    # ---- fused layers ------------------------------------------------------------------------------------------

    def compiles(self, *tensors: Tensor | None) -> bool:
        """Whether the compiled engine takes these: one of its types, on the CPU, and no autocast."""
        given = [t for t in tensors if t is not None]
        return (
            self.engine == "compiled"
            and given[0].dtype in (torch.float32, torch.float64)
            and all(t.dtype == given[0].dtype and t.device.type == "cpu" for t in given)
            and not torch.is_autocast_enabled("cpu")
        )

    def state_prefix(self, kind: str, names: tuple[str | None, ...], tail: str) -> str:
        """What the states of a layer are called: the module's name, then l0, l0_reverse, l1, …"""
        named = next((name for name in names if name is not None), f"{kind}.")
        return f"{named.rpartition('.')[0]}.{tail}.".lstrip(".")

    def note_walk(self, walk: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """A walk on the compiled engine."""
        walk.inputs, walk.outputs = (inputs, outputs) if self.handles else ((), ())
        self.walks.append(walk)

    def note_ends(self, scans: int, before: list[Tensor], after: list[Tensor]) -> None:
        """Where the last so many walks began and ended, to know whether a later one goes on from there."""
        for i, walk in enumerate(self.walks[-scans:]):
            walk.begins, walk.ends = (tuple(part[i].detach() for part in parts) for parts in (before, after))

    def note_unrolled(self, walk: Any, listener: Any) -> None:
        """A walk in torch's own operations, and what listens to it."""
        walk.listener = listener
        self.walks.append(walk)

    # ---- records -----------------------------------------------------------------------------------------------

    def record(
        self, name: str, kind: str, z: Tensor | None, signal: Signal | None = None, handle: Tensor | None = None,
        turned: bool = False, source: Source | None = None,
    ) -> Signal | None:  # fmt: skip
        """Note a use of a parameter; its signal, None where the call is only made once more."""
        place = self.place()
        if place is None:
            return None
        signal = Signal() if signal is None else signal
        kept = (handle, source) if self.handles else (None, None)
        z = None if z is None else z.detach()
        self.records.setdefault(name, []).append(Record(place, kind, z, signal, turned, *kept))
        return signal

    def place(self) -> int | None:
        """The place of a use among all; None where it has been recorded before.

        A checkpoint makes its calls twice. Where the first time built no graph, the second has the places of the first.
        """
        if self.replay is not None:
            place, recorded = next(self.replay, (self.calls_seen, True))
        else:
            place, recorded = self.calls_seen, False
            self.calls_seen += 1
        for reserved in self.reserving:
            reserved.append((place, recorded or torch.is_grad_enabled()))
        return None if recorded else place

    # ---- what came back ----------------------------------------------------------------------------------------

    def gradient_hook(self, name: str) -> Callable[[Tensor], None]:
        """Listens to the whole gradient of a parameter, which may come in parts."""

        def take(g: Tensor) -> None:
            if not self.quiet:
                known = self.gradients.get(name)
                self.gradients[name] = g.detach().clone() if known is None else known + g.detach()

        return take

    def gradient(self, name: str) -> Array:
        """What the program's backward pass left for a parameter, without the scale of a GradScaler."""
        found = self.gradients.get(name)
        shape = self.parameters[name]
        return to_array(torch.zeros_like(shape) if found is None else found / self.scale if self.scale != 1 else found)

    def loss_values(self) -> Array:
        """(1,) the last scalar that went back, NaN where none was seen to."""
        last = self.losses[-1].float().item() if self.losses else float("nan")
        return np.array([last / self.scale])

    def times(self) -> int:
        """How often something came back to a use."""
        records = [record.signal.times for records in self.records.values() for record in records]
        return max([*records, *(walk.times for walk in self.walks)], default=0)

    def settle(self, scale: float) -> None:
        """All of it has come back."""
        self.scale = scale
        for walk in self.walks:
            if walk.listener is not None:
                walk.listener.settle()
                walk.listener = None

    def close(self) -> None:
        """Hold nothing of the graph."""
        self.known.clear()
        self.replay = None

    def drop(self) -> None:
        """Hold nothing at all."""
        self.records, self.walks, self.gradients, self.losses = {}, [], {}, []

    def segment(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A checkpoint's function, called twice: what it does once more takes the places that it took first."""
        places: list[tuple[int, bool]] | None = None

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal places
            if places is None:
                places = []
                with self.reserve(places):
                    return function(*args, **kwargs)
            with self.repeat(places):
                return function(*args, **kwargs)

        return run

    @contextlib.contextmanager
    def reserve(self, places: list[tuple[int, bool]]) -> Iterator[None]:
        """Note the places that are taken, for when the same calls are made once more."""
        self.reserving.append(places)
        try:
            yield
        finally:
            self.reserving.pop()

    @contextlib.contextmanager
    def repeat(self, places: list[tuple[int, bool]]) -> Iterator[None]:
        """The same calls once more, with the places that they had."""
        before, self.replay = self.replay, iter(places)
        try:
            with self.on():
                yield
        finally:
            self.replay = before


def is_on(tracer: Tracer) -> bool:
    """Whether the mode is on, here and now."""
    return tracer in _get_current_function_mode_stack()


def _tensors(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _replaced(values: Any, by: dict[int, Tensor]) -> Any:
    """The same nest with some tensors replaced."""
    out = []
    for value in values:
        if id(value) in by:
            value = by[id(value)]
        elif isinstance(value, dict):
            value = dict(zip(value, _replaced(list(value.values()), by), strict=True))
        elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            value = _replaced(value, by)
        out.append(value)
    if isinstance(values, tuple):
        return type(values)(*out) if hasattr(values, "_fields") else tuple(out)
    return out

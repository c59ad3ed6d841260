"""Sees every call of a model that has parameters in it, and gives each call its own alias of them.

A mode of `torch.overrides`: while it is on, each function of torch that a Python program calls comes by here. The calls
go on to torch as they were, save that a parameter is replaced by a view of itself, or that a hook listens to the
output; neither changes a bit of what is computed. Fused recurrent layers are walked by `bptt.trace.torch.fused`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from bptt.ledger import Place
from bptt.trace.torch.sources import (
    FLIPS,
    MASKS,
    PRODUCTS,
    Counter,
    Entrance,
    Source,
    replaced,
    tensors_in,
    writes,
)  # fmt: skip
from bptt.trace.torch.uses import Record, Signal, Slab, version_of

PASS = {torch.autograd.grad, torch.autograd.backward, Tensor.backward, Tensor.register_hook}
BACKWARD = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}


Call = Callable[["Tracer", Any, tuple[Any, ...], dict[str, Any]], Any]


class Tracer(TorchFunctionMode):
    """The mode, and what it has seen since `forget`.

    Args:
        parameters: name → parameter, those whose uses are wanted.
        constants: tensors that are no data: buffers.
        calls: function of torch → who makes its factors; NotImplemented from it means: as any other function.
        keep: as the ledger keeps it.  engine: of the fused layers, "compiled" or "torch".
        handles: whether the tensors are kept to which adjoints come, so that every loss can be asked on its own.
        scaler: the GradScaler that losses are scaled with.
    """

    def __init__(
        self, parameters: dict[str, Tensor], constants: list[Tensor], calls: dict[Any, Call], keep: str, engine: str,
        handles: bool = False, scaler: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.scaler = scaler
        self.parameters, self.calls, self.handles, self.keep, self.engine = parameters, calls, handles, keep, engine
        self.constants = constants
        self.forget()

    def forget(self) -> None:
        """Begin anew: no call was seen."""
        self.known = {id(tensor): Source(tensor, None) for tensor in self.constants}
        self.known |= {id(tensor): Source(tensor, name) for name, tensor in self.parameters.items()}
        self.worn: set[int] = set()  # of what was worked out, that which something has been worked out from in turn
        self.records: dict[str, list[Record]] = {}
        self.data: list[Tensor] = []  # what is no weight any more, kept so that no other tensor has its id
        self.walks: list[Any] = []  # fused layers, in the order of their calls
        self.losses: list[Tensor] = []  # what went back, as far as it was seen
        self.counters = [Counter(())]  # of calls; another one for each checkpoint that is made once more
        self.partial = False  # the program asked for some gradients only
        self.slab = Slab()
        self.measured: dict[str, Any] = {}  # of parameters, what the engine found of their uses
        self.repeats = 0  # how often a checkpoint was gone through that built no graph the first time
        self.quiet = False  # what comes back now is not the program's own backward pass
        self.cutting = False  # walks hand nothing on: each is walked back by itself
        self.gradients: dict[str, Tensor] = {}
        self.handed: dict[str, int] = {}  # parameter → where the sum lies that a walk handed to autograd
        self.untouched: set[str] = set()  # parameters that were left with just that
        self.places: dict[str, Place] = {}  # of parameters of cells
        self.scale = 1.0
        self.types: set[torch.dtype] = set()  # of what came back to walks

    # ---- the mode ----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch."""
        kwargs = kwargs or {}
        if func in PASS:
            if func in BACKWARD:
                some = func is torch.autograd.grad or kwargs.get("inputs") is not None
                self.note_losses(args[0] if args else kwargs.get("tensors", kwargs.get("outputs")), some)
            return func(*args, **kwargs)
        if not self._touches(args, kwargs) or getattr(func, "__name__", "") == "__set__":  # such as p.grad = g
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

    def note_losses(self, outputs: Any, partial: bool) -> None:
        """What goes back, before it does, and whether some gradients only are asked for."""
        if self.quiet:
            return
        if self.scaler is not None:  # whose scale may be another one when the ledger is asked for
            self.scale = float(self.scaler.get_scale())
        self.partial |= partial
        given = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        self.losses += [t.detach() for t in given if isinstance(t, Tensor) and t.numel() == 1]

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
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        tensors = list(tensors_in((*args, *kwargs.values())))
        if func in PRODUCTS:
            self._let_go_of_states(tensors)
        if all(map(self._given, tensors)) or (func in MASKS and self._masks(tensors)):
            out = func(*args, **kwargs)
            self._derive(func, tensors, out)
            return out
        if writes(func) and args and self.worked_out(args[0]):
            self._let_go(args[0])
        aliases = {id(t): self.alias(t) for t in tensors if self.is_weight(t) and t.requires_grad}
        if not aliases:
            return func(*args, **kwargs)
        return func(*replaced(args, aliases), **{k: replaced((v,), aliases)[0] for k, v in kwargs.items()})

    def used(self, tensor: Tensor) -> Tensor:
        """An alias of a parameter that is used here as data is, such as a start that is learned."""
        return self.alias(tensor) if self.is_weight(tensor) and tensor.requires_grad else tensor

    def is_weight(self, tensor: Any) -> bool:
        """Whether it is a parameter, or was worked out from some."""
        source = self.known.get(id(tensor))
        return source is not None and bool(source.names)

    def worked_out(self, tensor: Any) -> bool:
        """Whether it was worked out from parameters, and is none itself."""
        return self.is_weight(tensor) and self.known[id(tensor)].name is None

    def _given(self, tensor: Tensor) -> bool:
        """Whether no data is in it: a weight, or a buffer that nothing was written into that has a gradient."""
        return self.is_weight(tensor) or (id(tensor) in self.known and not tensor.requires_grad)

    def _masks(self, tensors: list[Tensor]) -> bool:
        """Whether a matrix of weights is only masked or scaled, by numbers that have no gradient."""
        weights = [t for t in tensors if self.is_weight(t)]
        rest = [t for t in tensors if not self.is_weight(t)]
        return (
            len(weights) == 1 and weights[0].dim() > 1 and not any(t.requires_grad for t in rest)
            and torch.broadcast_shapes(*(t.shape for t in tensors)) == weights[0].shape
        )  # fmt: skip

    def _let_go_of_states(self, tensors: list[Tensor]) -> None:
        """A product of what was worked out with a parameter that is in it already: it is no weight, but a state.

        So it is where a start is learned and nothing else comes in.
        """
        for one in tensors:
            others = {name for t in tensors if t is not one and self.is_weight(t) for name in self.known[id(t)].names}
            if self.worked_out(one) and id(one) not in self.worn and others & set(self.known[id(one)].names):
                self._let_go(one)

    def _let_go(self, tensor: Tensor) -> None:
        """What was worked out from parameters is data from here on: whatever comes back to it is one use of each."""
        if id(tensor) in self.worn:
            return
        source = self.known.pop(id(tensor))._replace(tensor=Entrance.apply(tensor))
        self.data.append(tensor)
        self._listen(tensor, source, torch.autograd.graph.get_gradient_edge(tensor))

    def own_function(self, apply: Any, *args: Any, **kwargs: Any) -> Any:
        """An autograd function of the program's own: what it does with a parameter is its own affair, and a use."""
        return self.generic(apply, args, kwargs) if self._touches(args, kwargs) else apply(*args, **kwargs)

    def alias(self, tensor: Tensor) -> Tensor:
        """A view of a tensor for one use of it, whose gradient is recorded."""
        source = self.known[id(tensor)]
        self.worn.add(id(tensor))
        if source.name is None:  # which may be written into later
            source = source._replace(tensor=Entrance.apply(tensor))
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            alias = tensor.view_as(tensor)
        self._listen(alias, source, alias)
        return alias

    def _listen(self, tensor: Tensor, source: Source, handle: Any) -> None:
        """Record what comes back to a tensor as a use of each parameter behind it."""
        signals = {name: self.record(name, "ready", None, handle=handle, source=source) for name in source.names}
        live = {name: signal for name, signal in signals.items() if signal is not None}
        if live:
            tensor.register_hook(lambda g: self.ready(source, live, g))

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
        self.worn |= {id(t) for t in tensors if id(t) in self.known}
        sources = [self.known[id(t)] for t in tensors if id(t) in self.known]
        names = tuple(dict.fromkeys(name for source in sources for name in source.names))
        for made in tensors_in((out,)):
            if id(made) in self.known or (names and not made.requires_grad):
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
        self.records.setdefault(name, []).append(Record(place, kind, z, signal, turned, *kept, version_of(z)))
        return signal

    def place(self) -> tuple[int, ...] | None:
        """The place of a use among all; None where it has been recorded before."""
        return self.counters[-1].next()

    # ---- what came back ----------------------------------------------------------------------------------------

    def gradient_hook(self, name: str) -> Callable[[Tensor], None]:
        """Listens to the whole gradient of a parameter, which may come in parts."""

        def take(g: Tensor) -> None:
            if not self.quiet:
                known = self.gradients.get(name)
                if known is None and g.data_ptr() == self.handed.get(name):
                    self.untouched.add(name)
                elif known is not None:
                    self.untouched.discard(name)
                self.gradients[name] = g.detach().clone() if known is None else known + g.detach()

        return take

    def settle(self) -> None:
        """All of it has come back."""
        self.walks.sort(key=lambda walk: walk.order)  # checkpoints make them from the last to the first
        for walk in self.walks:
            if walk.listener is not None:
                walk.listener.settle()
                walk.listener = None
            elif not walk.times and walk.live:
                walk.take_nothing(self)
            walk.own()

    def close(self) -> None:
        """Hold nothing of the graph."""
        self.known.clear()
        self.data.clear()

    def drop(self) -> None:
        """Hold nothing at all."""
        self.records, self.walks, self.gradients, self.losses, self.slab = {}, [], {}, [], Slab()

    def segment(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A reentrant checkpoint's function: its first call builds no graph, the second does and is recorded.

        What it records has its places at the place of the first call.
        """
        place, times = None, 0

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal place, times
            if not times:
                place, times = self.place(), 1
                return function(*args, **kwargs)
            self.repeats, times = max(self.repeats, times), times + 1
            return self.again(function, place)(*args, **kwargs)

        return run

    def again(self, function: Callable[..., Any], place: tuple[int, ...] | None = None) -> Callable[..., Any]:
        """A function that is called on the way back, for a place; or for None, where it has been recorded before."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.counters.append(Counter(place))
            try:
                with self.on():
                    return function(*args, **kwargs)
            finally:
                self.counters.pop()

        return run


def is_on(tracer: Tracer) -> bool:
    """Whether the mode is on, here and now."""
    return tracer in _get_current_function_mode_stack()

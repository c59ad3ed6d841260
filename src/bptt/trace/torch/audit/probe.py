"""The mode of an audit: it numbers every use of a parameter in the order of the calls, listens to each, or moves one.

Unlike a tracer's, a use is where values of a parameter meet data, whether or not autograd sees them: by `detach()`,
`.data`, under `no_grad`, as an array of NumPy, in an autograd function of one's own. The numbers are the same in every
run of the same program, so that use i can be moved by ±ε in one run and asked for its gradient in another.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bptt.errors import InputError
from bptt.trace.torch.audit.double import in_place, widen_call
from bptt.trace.torch.audit.lines import line, line_of
from bptt.trace.torch.audit.stepwise import STEPWISE
from bptt.trace.torch.sources import replaced, tensors_in

LOSSES = {torch.autograd.backward, Tensor.backward}
_PASS: Any = {
    Tensor.grad.__get__, Tensor.grad.__set__, Tensor.grad.__delete__, Tensor.register_hook, Tensor.retain_grad,  # type: ignore
    Tensor.requires_grad.__set__, Tensor.requires_grad_, torch.autograd.grad, Tensor.__hash__, Tensor.size, Tensor.dim,  # type: ignore
    Tensor.grad_fn.__get__, Tensor.is_leaf.__get__, Tensor.shape.__get__, Tensor.dtype.__get__, Tensor.device.__get__,  # type: ignore
    Tensor.requires_grad.__get__,  # type: ignore
}  # fmt: skip
_LEAVES: Any = {Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.item}  # values leave torch
_CUTS: Any = {
    Tensor.detach: "detach()", Tensor.detach_: "detach_()", torch.detach: "detach()",
    Tensor.data.__get__: ".data", Tensor.numpy: "numpy()", Tensor.__array__: "numpy()", Tensor.tolist: "tolist()",  # type: ignore
    Tensor.item: "item()",
}  # fmt: skip
_FRESH: Any = {torch.zeros, torch.zeros_like, Tensor.new_zeros, Tensor.zero_}
FRESH, FROZEN = "zeros", "frozen"  # events that are no cut by themselves
STEP = 1e-6  # relative, for what is worked out from parameters


class Made(NamedTuple):
    """A tensor that is known: a parameter, or worked out from parameters alone.

    ways: parameter → how it moves when that parameter moves along its direction.
    """

    tensor: Tensor
    ways: dict[str, Tensor]


class Site(NamedTuple):
    """One use: which function, where in the user's code, and how its value moves for each parameter behind it."""

    func: str
    line: str | None
    ways: dict[str, Tensor]


class Event(NamedTuple):
    """Something that may cut a gradient, seen before use number `at`; of which parameters, if it is done to those."""

    at: int
    what: str
    line: str | None
    of: tuple[str, ...] = ()


class Probe(TorchFunctionMode):
    """The mode.

    Args:
        parameters: name → parameter of the copy of the model that runs now.
        constants: buffers and frozen parameters.
        ways: name → direction in which a parameter is moved.
        sites: those of the first run; None in the first run, which makes them.
        move: (number of a use, parameter, ε), or (None, None, ε) for all of them; None to move nothing.
        came: called with (number of a use, parameter, ⟨gradient, direction⟩) whenever a gradient comes to a use.
        note_loss: called with (tensors, gradients given by hand or None) before a backward pass.
    """

    def __init__(
        self, parameters: dict[str, Tensor], constants: list[Tensor], ways: dict[str, Tensor],
        sites: list[Site] | None = None, move: tuple[int | None, str | None, float] | None = None,
        came: Callable[[int, str, float], None] | None = None,
        note_loss: Callable[[list[Tensor], list[Any]], None] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.parameters, self.move, self.came, self.note_loss = parameters, move, came, note_loss
        self.known = {id(p): Made(p, {name: ways[name]}) for name, p in parameters.items()}
        self.constants = {id(t): t for t in constants}
        self.first, self.sites = sites is None, [] if sites is None else sites
        self.events: list[Event] = []
        self.seen = 0
        self.watching = self.first  # what is called now is the program's own, and may cut
        self.inside = False  # a function with a backward of its own, or a backward pass: nothing in it is a use
        self.replay: Iterator[int] | None = None
        self.reserving: list[list[int]] = []
        self.held: list[Any] = []

    # ---- the mode ----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch."""
        kwargs = kwargs or {}
        if func in _PASS:
            return func(*args, **kwargs)
        if func in LOSSES:
            return self._backward(func, args, kwargs)
        func, args, kwargs = widen_call(func, args, kwargs)
        if self.watching:
            self._watch(func, args, kwargs)
        if self.inside:
            return func(*args, **kwargs)
        if func in STEPWISE:
            return STEPWISE[func](self, args)
        return self.use(func, args, kwargs)

    def use(self, func: Any, args: Any, kwargs: Any, own: bool = False) -> Any:
        """A function of torch, or somebody's own: a known tensor among data is a use."""
        tensors = list(tensors_in((*args, *kwargs.values())))
        mine = {id(t): t for t in tensors if id(t) in self.known}
        if not mine and own:
            with self.closed():
                return func(*args, **kwargs)
        if not mine:
            return func(*args, **kwargs)
        if in_place(func) and id(args[0]) in mine:
            return func(*args, **kwargs)
        if func not in _LEAVES and all(id(t) in self.known or id(t) in self.constants for t in tensors):
            out = func(*args, **kwargs)
            self._derive(func, args, kwargs, out)
            return out
        aliases = {key: self.alias(func, t) for key, t in mine.items()}
        args, kwargs = replaced(args, aliases), {k: replaced((v,), aliases)[0] for k, v in kwargs.items()}
        if not own:
            return func(*args, **kwargs)
        with self.closed():
            return func(*args, **kwargs)

    def own_function(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """An autograd function of the program's own; call: `functools.partial` of how it is applied, and it."""
        inner = call
        while isinstance(inner.args[0], functools.partial):  # other modes are on too
            inner = inner.args[0]
        cls = inner.args[0]
        if self.watching:
            self._note(f"{cls.__name__}.backward", line_of(cls.backward) or line())
        call.__name__ = cls.__name__
        return self.use(call, args, kwargs, own=True)

    def again(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What a checkpoint without reentry calls on the way back: it gives numbers once more, and no use."""
        return function

    @contextlib.contextmanager
    def closed(self, inside: bool = True) -> Iterator[None]:
        """Inside a function that has a backward of its own, and in backward passes."""
        before = self.watching, self.inside
        self.watching, self.inside = False, inside
        try:
            yield
        finally:
            self.watching, self.inside = before

    def alias(self, func: Any, tensor: Tensor) -> Tensor:
        """A tensor for one use of it: listened to, and moved if it is its turn."""
        made, i = self.known[id(tensor)], self._number()
        if i is None:
            return tensor
        if self.first and i == len(self.sites):
            self.sites.append(Site(getattr(func, "__name__", "?"), line(), made.ways))
        if i >= len(self.sites) or set(self.sites[i].ways) != set(made.ways):
            raise InputError(
                "audit", got=f"a program whose use {i + 1} of a parameter is not the same in every run",
                expected="the same calls in every run", do="Fix its seed, and let its path not depend on the clock.",
            )  # fmt: skip
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            moved = self._moved(i, tensor)
            if self.came is not None and moved.requires_grad:
                moved = moved.view_as(moved)
                moved.register_hook(lambda g: self._take(i, made, g))
        self.held.append(moved)  # so that no other tensor gets its id
        return moved

    # ---- moving and listening ----------------------------------------------------------------------------------

    def _moved(self, i: int, tensor: Tensor) -> Tensor:
        if self.move is None or (self.move[0] is not None and self.move[0] != i):
            return tensor
        _at, name, step = self.move
        for parameter, way in self.sites[i].ways.items():
            if name is None or parameter == name:
                tensor = tensor + step * way
        return tensor

    def _take(self, i: int, made: Made, g: Tensor) -> None:
        assert self.came is not None
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            for name, way in made.ways.items():
                root = self.parameters[name]
                if made.tensor is root:
                    self.came(i, name, float((g * way).sum()))
                    continue
                came, self.came = self.came, None
                (found,) = torch.autograd.grad(made.tensor, [root], g, retain_graph=True, allow_unused=True)
                self.came = came
                self.came(i, name, 0.0 if found is None else float((found * self._way(name)).sum()))

    def _way(self, name: str) -> Tensor:
        return self.known[id(self.parameters[name])].ways[name]

    def _derive(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """What is worked out from parameters alone is known too: its uses are theirs. A buffer stays a constant."""
        for place, made in enumerate(tensors_in((out,))):
            if id(made) not in self.known and id(made) not in self.constants and made.is_floating_point():
                ways = self._ways(func, args, kwargs, place) if self.first else self._names(args, kwargs)
                self.known[id(made)] = Made(made, ways)

    def _names(self, args: Any, kwargs: Any) -> dict[str, Tensor]:
        """In later runs only which parameters are behind it; how it moves was found in the first."""
        tensors = [t for t in tensors_in((*args, *kwargs.values())) if id(t) in self.known]
        return {name: way for t in tensors for name, way in self.known[id(t)].ways.items()}

    def _ways(self, func: Any, args: Any, kwargs: Any, place: int) -> dict[str, Tensor]:
        """How an output moves with each parameter, by a central difference of this one function."""
        state, found = torch.get_rng_state(), {}
        for name in self._names(args, kwargs):
            ends = [self._again(func, args, kwargs, name, step)[place] for step in (STEP, -STEP)]
            found[name] = (ends[0] - ends[1]) / (2 * STEP)
            torch.set_rng_state(state)
        return found

    def _again(self, func: Any, args: Any, kwargs: Any, name: str, step: float) -> list[Tensor]:
        """The outputs of a function once more, with a parameter moved; it may write into copies only."""
        torch.manual_seed(0)
        with torch.no_grad(), torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            copies = {id(t): t.detach().clone() for t in tensors_in((*args, *kwargs.values()))}
            for key in copies:
                if key in self.known and name in self.known[key].ways:
                    copies[key] += step * self.known[key].ways[name]
            out = func(*replaced(args, copies), **{k: replaced((v,), copies)[0] for k, v in kwargs.items()})
        return list(tensors_in((out,)))

    def _number(self) -> int | None:
        """The number of the next use; None in a checkpoint that is worked out again and has its graph already."""
        if self.replay is not None:
            return next(self.replay, None)
        i, self.seen = self.seen, self.seen + 1
        for reserved in self.reserving:
            reserved.append(i)
        return i

    # ---- losses and events -------------------------------------------------------------------------------------

    def _backward(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.note_loss is not None:
            self.note_loss(*losses_of(args, kwargs))
        with self.closed():
            return func(*args, **kwargs)

    def _watch(self, func: Any, args: Any, kwargs: Any) -> None:
        """Note what may cut; "frozen" where it is done to data that no gradient was to come to."""
        what = _CUTS.get(func)
        if what is not None and args:
            of = tuple(self.known[id(args[0])].ways) if id(args[0]) in self.known else ()
            live = args[0].requires_grad or of or what == "numpy()"
            self._note(what if live else FROZEN, line(), of)
        elif func in _FRESH:
            self._note(FRESH, line())
        elif not torch.is_grad_enabled():
            data = [t for t in tensors_in((*args, *kwargs.values())) if id(t) not in self.constants]
            if data:
                self._note("no_grad" if any(t.requires_grad for t in data) else FROZEN, line())

    def _note(self, what: str, where: str | None, of: tuple[str, ...] = ()) -> None:
        if self.replay is None:
            self.events.append(Event(self.seen, what, where, of))

    def segment(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A checkpoint's function: what it does once more has the numbers that it had first."""
        places: list[int] | None = None

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal places
            if places is None:
                places = []
                self.reserving.append(places)
                try:
                    return function(*args, **kwargs)
                finally:
                    self.reserving.remove(places)
            before, self.replay = self.replay, iter(places)
            try:
                with self.on(), self.closed(inside=False):
                    return function(*args, **kwargs)
            finally:
                self.replay = before

        return run

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """The mode switched on, unless it is."""
        from bptt.trace.torch.tracer import is_on

        if is_on(self):  # type: ignore[arg-type]
            yield
        else:
            with self:
                yield


def losses_of(args: Any, kwargs: Any) -> tuple[list[Tensor], list[Any]]:
    """The tensors that a backward pass begins at, and for each the gradient that was given by hand, or None."""
    outputs = args[0] if args else kwargs.get("tensors")
    given = args[1] if len(args) > 1 else kwargs.get("gradient", kwargs.get("grad_tensors"))
    tensors = [outputs] if isinstance(outputs, Tensor) else list(outputs or ())
    gradients = [given] if not isinstance(given, list | tuple) else list(given)
    return tensors, (gradients * len(tensors) if gradients == [None] else gradients)

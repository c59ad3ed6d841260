"""One armed pass of a watch: the forwards of a model, and the backward pass that follows them, recorded.

The mode of the tracer is on inside the model's forward and nowhere else. That a backward pass begins and ends is heard
at `torch.autograd.backward` and `torch.autograd.grad`, which stand replaced for as long as a pass waits, and no longer.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from bptt.ledger import Ledger
from bptt.trace.torch.patches import patched
from bptt.trace.torch.sources import tensors_in
from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.tracing import Trace
from bptt.trace.torch.uses import Signal

DOORS = ("backward", "grad")


class Pass:
    """From the first forward to the end of the backward pass.

    Args:
        trace: a trace that was not entered.
        done: called once with the pass and its ledger; or with what went wrong; or with neither, where there was no
            backward pass.

    forwards: how many the model made.  going: in its backward pass.  over: nothing is recorded any more.
    """

    def __init__(self, trace: Trace, done: Callable[["Pass", Ledger | None, Exception | None], None]):
        self.trace, self.tracer, self.done = trace, trace.tracer, done
        self.forwards, self.going, self.over = 0, False, False
        self._places: dict[tuple[int, ...], tuple[int, ...] | None] = {}  # None where the first call was recorded
        self._alive: Callable[[], Mark | None] = lambda: None
        self._hooks = [
            parameter.register_hook(self.tracer.gradient_hook(name))
            for name, parameter in self.tracer.parameters.items()
        ]
        _wait(self)

    @property
    def came(self) -> bool:
        """Whether anything of a backward pass has come to a parameter."""
        return bool(self.tracer.gradients)

    # ---- forward -----------------------------------------------------------------------------------------------

    def forward(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """One forward of the model, recorded; after an error in it nothing is left of the pass."""
        self.forwards += 1
        self._places[_key(args, kwargs)] = None if torch.is_grad_enabled() else self.tracer.place()
        try:
            with patched(self.tracer), self.tracer:
                out = call(*args, **kwargs)
        except BaseException:
            self.drop()
            raise
        self._follow(out)
        return out

    def again(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A forward that a checkpoint around the whole model makes once more: its uses are those of the first time."""
        key = _key(args, kwargs)
        if key not in self._places or self.over:
            return call(*args, **kwargs)
        return self.tracer.again(call, self._places[key])(*args, **kwargs)

    def _follow(self, out: Any) -> None:
        """Know when the last of the outputs is gone, and with it the chance of a backward pass."""
        known = self._alive()
        mark = known or Mark()
        if mark.stands_on(out) and known is None and not self.over:
            own = weakref.ref(self)
            self._alive = weakref.ref(mark, lambda _: _lost(own()))

    # ---- backward ----------------------------------------------------------------------------------------------

    def around(self, door: str, asked: Any, of: Any) -> contextlib.AbstractContextManager[None]:
        """Around a call of torch.autograd.backward or grad of some tensors, where gradients by `of` are asked for."""
        if door == "backward":
            return self.backward(asked, of is not None)
        own = {id(parameter) for parameter in self.tracer.parameters.values()}
        return self.backward(asked, True) if any(id(tensor) in own for tensor in tensors_in((of,))) else self.aside()

    @contextlib.contextmanager
    def backward(self, loss: Any, partial: bool) -> Iterator[None]:
        """Around a backward pass, which may be another model's; after an error in it nothing is left of the pass."""
        self.going = True
        losses = list(self.tracer.losses)
        self.tracer.note_losses(loss, partial)
        try:
            with patched(self.tracer):
                yield
        except BaseException:
            if self.came:
                self.drop()
            raise
        finally:
            self.going = False
        if self.came:
            self.finish()
        else:  # it was another model's
            self.tracer.losses = losses

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Around a gradient that is asked for by the way, as for a penalty: nothing of it is ours."""
        before, self.tracer.quiet = self.tracer.quiet, True
        try:
            yield
        finally:
            self.tracer.quiet = before

    # ---- the end -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The backward pass is over: make the ledger, and hold nothing any more."""
        if not self._end():
            return
        ledger, wrong, heard = None, None, list(_heard_on(self.tracer))
        try:
            with np.errstate(all="ignore"):  # numbers that are not finite are what one wants to see
                ledger = self.trace.ledger
        except Exception as error:  # noqa: BLE001 training goes on, whatever is wrong with what was seen of it
            wrong = error
        finally:  # after Ctrl-C too
            self._let_go(heard)
            self.done(self, ledger, wrong)

    def drop(self) -> None:
        """Nothing comes of this pass."""
        if self._end():
            self._let_go(list(_heard_on(self.tracer)))
            self.done(self, None, None)

    def _end(self) -> bool:
        """Take the hooks off and listen no more; False where that was done before."""
        if self.over:
            return False
        self.over = self.tracer.quiet = True
        for hook in self._hooks:
            hook.remove()
        _wait_no_more(self)
        return True

    def _let_go(self, heard: list[Any]) -> None:
        """Hold nothing, and let what lives as long as the program's graph hold nothing: hooks, and nodes of layers."""
        for one in heard:
            if isinstance(one, Signal):
                one.delta = None
            else:
                one.uses, one.sizes, one.listener = {}, None, None
                one.states = one.begins = one.ends = ()
        self.tracer.close()
        self.tracer.drop()
        self._hooks, self._places, self._alive = [], {}, lambda: None


def _heard_on(tracer: Tracer) -> Iterator[Any]:
    """Every signal and walk of a tracer."""
    for records in tracer.records.values():
        yield from (record.signal for record in records)
    for walk in tracer.walks:
        yield walk
        if walk.listener is not None:
            of_uses = (heard.signals for heard in walk.listener.heard.values())
            every = (one for some in of_uses for one in (some if isinstance(some, list) else [some]))
            yield from (one for one in every if one is not None)
            yield from (one for step in walk.listener.of_states for one in step)


class Mark:
    """A hook on each output of a model: it lives as long as one of them can be walked back from.

    hit: whether one was.
    """

    __slots__ = ("__weakref__", "hit")

    def __init__(self) -> None:
        self.hit = False

    def __call__(self, g: Any) -> None:
        """An adjoint has come."""
        self.hit = True

    def stands_on(self, out: Any) -> bool:
        """Put it on all tensors in an output that have a graph; False where there is none."""
        reached = [tensor for tensor in tensors_in((out,)) if tensor.grad_fn is not None]
        for tensor in reached:
            tensor.register_hook(self)
        return bool(reached)


def _lost(one: Pass | None) -> None:
    if one is not None and not one.going and not one.came:
        one.drop()


def _key(args: Any, kwargs: Any) -> tuple[int, ...]:
    """What a call was given, told by where it lies in memory: a checkpoint gives the same once more."""
    given = tensors_in((*args, *kwargs.values()))
    return tuple(tensor.data_ptr() for tensor in given if tensor.layout is torch.strided)


# ---- the doors -------------------------------------------------------------------------------------------------------

_waiting: list[Pass] = []
_torch_own: dict[str, Any] = {}


def _wait(one: Pass) -> None:
    if not _waiting:
        for door in DOORS:
            _torch_own[door] = getattr(torch.autograd, door)
            setattr(torch.autograd, door, _heard(door, _torch_own[door]))
    _waiting.append(one)


def _wait_no_more(one: Pass) -> None:
    _waiting.remove(one)
    if not _waiting:
        for door in DOORS:
            if getattr(getattr(torch.autograd, door), "waits", False):
                setattr(torch.autograd, door, _torch_own[door])


def _heard(door: str, own: Callable[..., Any]) -> Callable[..., Any]:
    """A door that tells those who wait."""

    @functools.wraps(own)
    def heard(*args: Any, **kwargs: Any) -> Any:
        asked = args[0] if args else kwargs.get("tensors", kwargs.get("outputs"))
        of = args[1] if len(args) > 1 and door == "grad" else kwargs.get("inputs")
        with contextlib.ExitStack() as stack:
            for one in [one for one in _waiting if not one.going]:
                stack.enter_context(one.around(door, asked, of))
            return own(*args, **kwargs)

    heard.waits = True  # type: ignore[attr-defined]
    return heard

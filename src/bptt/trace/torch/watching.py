"""`bptt.watch`: a training loop's own forward and backward passes, looked at every so many steps.

Nothing of a model is changed but what `Module.__call__` calls: a function that counts, and that on most steps does
nothing else. It stands in the module's own slot for that, which no copy and no file of the module takes along.
"""

import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from bptt.errors import InputError, unknown
from bptt.ledger import Ledger
from bptt.trace.torch.passes import Mark, Pass
from bptt.trace.torch.records import record_of
from bptt.trace.torch.sinks import sinks_of
from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.tracing import Trace

KEPT = ("norms", "factors")
SLOT = "_compiled_call_impl"  # of a module: what `Module.__call__` calls in place of `_call_impl`


class Watch:
    """Looks at a model while it is trained; made by `bptt.watch`.

    calls: forwards in training so far.  closed: whether it was taken off the model.
    last: the last record that went out, None before the first.  ledger: the ledger it was made from.
    """

    def __init__(self, model: nn.Module, every: int, to: Any, keep: str, engine: str, scaler: Any, start: int):
        _check(model, every, keep, start)
        self.model, self.every, self.keep, self.engine = model, every, keep, engine
        self.scaler, self.start, self.calls, self.closed = scaler, start, 0, False
        self.last: dict[str, Any] | None = None
        self.ledger: Ledger | None = None
        self._trace()  # what cannot be traced is said now
        self._sinks = sinks_of(to)
        self._pass: Pass | None = None
        self._step = start  # that is looked at, or was last
        self._due = self._next(start)  # the call, from 0, at which a pass is to be armed
        self._attend_after = max(self._due - 1, 0)
        self._mark: Callable[[], Mark | None] | None = None  # on the outputs of the forward before
        self._warned: set[str] = set()
        self._before = model.__dict__.get(SLOT)
        self._counting = self._counter()
        model.__dict__[SLOT] = self._counting

    # ---- counting ----------------------------------------------------------------------------------------------

    def _counter(self) -> Callable[..., Any]:
        """What stands in for the model's call: all that runs on a step that is not looked at."""
        model, call = self.model, self._before or self.model._call_impl
        graph, going_back = torch.is_grad_enabled, torch._C._current_graph_task_id  # type: ignore[attr-defined]

        def counted(*args: Any, **kwargs: Any) -> Any:
            if not model.training or not graph():
                return call(*args, **kwargs)
            if going_back() >= 0:
                return self._again(call, args, kwargs)
            self.calls += 1
            if self.calls > self._attend_after:
                return self._attend(call, args, kwargs)
            return call(*args, **kwargs)

        counted.watches = True  # type: ignore[attr-defined]
        return counted

    def _next(self, step: int) -> int:
        """The first call whose step, from `step` on, is a multiple of `every`."""
        return -(-step // self.every) * self.every - self.start

    def _attend(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A forward shortly before a pass is armed, or while one is."""
        if self._pass is not None and self._pass.came:  # a backward pass went by unheard
            self._pass.finish()
        if self._pass is None and self.calls > self._due and self._begins() and not _traced():
            self._arm()
        if self._pass is not None:
            return self._pass.forward(call, args, kwargs)
        out = call(*args, **kwargs)
        mark = Mark()
        self._mark = weakref.ref(mark) if mark.stands_on(out) else None
        return out

    def _begins(self) -> bool:
        """Whether this forward is the first of a pass: from the one before, the program went back or never will."""
        before = None if self._mark is None else self._mark()
        return before is None or before.hit

    def _arm(self) -> None:
        self._step = self.start + self.calls - 1
        self._due = self._next(self._step + 1)
        try:
            self._pass, self._attend_after = Pass(self._trace(), self._done), 0
        except Exception as error:  # noqa: BLE001 training goes on: the model may have been frozen, or moved, meanwhile
            self._attend_after = max(self._due - 1, 0)
            self._warn(error)

    def _again(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A forward inside a backward pass: a checkpoint's, made once more."""
        known = self._pass is not None and self._pass.going
        return self._pass.again(call, args, kwargs) if known else call(*args, **kwargs)  # type: ignore[union-attr]

    # ---- what came of it ---------------------------------------------------------------------------------------

    def _trace(self) -> Trace:
        return Trace(self.model, keep=self.keep, map=False, engine=self.engine, scaler=self.scaler)

    def _done(self, one: Pass, ledger: Ledger | None, wrong: Exception | None) -> None:
        """A pass is over: its record goes out, and the watch sleeps until shortly before the next."""
        self._pass, self._mark, self._attend_after = None, None, max(self._due - 1, 0)
        if ledger is not None:
            try:
                with np.errstate(all="ignore"):  # numbers that are not finite are what one wants to see
                    self.last, self.ledger = record_of(ledger, self._step, one.forwards), ledger
                for sink in self._sinks:
                    sink.send(self.last)
            except Exception as error:  # noqa: BLE001 training goes on, whatever is wrong with what was seen of it
                wrong = error
        if wrong is not None:
            self._warn(wrong)

    def _warn(self, wrong: Exception) -> None:
        """Say once why there is nothing to say."""
        if str(wrong) not in self._warned:
            self._warned.add(str(wrong))
            warnings.warn(f"bptt.watch says nothing of step {self._step}: {wrong}", stacklevel=2)

    # ---- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take the watch off the model, and close its files. To do so twice does no harm."""
        if self.closed:
            return
        self.closed = True
        if self.model.__dict__.get(SLOT) is self._counting:
            del self.model.__dict__[SLOT]
            if self._before is not None:
                self.model.__dict__[SLOT] = self._before
        if self._pass is not None:
            self._pass.finish() if self._pass.came and not self._pass.going else self._pass.drop()
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"every {self.every}"
        return f"Watch({type(self.model).__name__}, {state}, {self.calls} forwards)"


def watch(
    model: nn.Module, *, every: int = 200, to: Any = None, keep: str = "norms", engine: str = "auto",
    scaler: Any = None, start: int = 0,
) -> Watch:  # fmt: skip
    """Look at a training loop's own gradient, use by use, every so many steps; the loop stays as it is.

    A step is a forward of the model in training mode with gradients enabled, counted from `start`. What is looked at is
    one backward pass and all the forwards that it goes back to, of which the first is due: step 0, `every`, 2·`every`,
    …, or the first after it that begins a pass. On all other steps a counter runs and nothing else.

    Args:
        model: any module; wrapped in DDP or compiled too.
        every: steps from one look to the next.
        to: where the records go: a path (JSON lines, appended), anything with `.log_metrics(dict, step=)` or
            `.log(dict, step=)`, a TensorBoard `SummaryWriter`, a function of the record; or a list of these.
        keep: what `ledger` keeps of a look: "norms", or "factors" for shares as well.
        engine: of fused layers, as in `bptt.trace`.
        scaler: the `GradScaler` that the loss is scaled with; the record is divided by its scale.
        start: number of the first step, in a run that is resumed.

    Returns:
        The watch: `last` record, `ledger`, `close()`; a context manager too.

    Raises:
        InputError: nothing that can be traced, a model that is watched already, or `every` or `to` is of no use.
        FileError: the file cannot be written.

    >>> import torch
    >>> model, records = torch.nn.LSTM(3, 4), []
    >>> optimiser = torch.optim.SGD(model.parameters(), 0.1)
    >>> with watch(model, every=10, to=records.append):
    ...     for _ in range(20):
    ...         optimiser.zero_grad()
    ...         model(torch.ones(5, 2, 3))[0].square().sum().backward()
    ...         optimiser.step()
    >>> [record["step"] for record in records], sorted(records[0]["states"])
    ([0, 10], ['l0'])
    """
    return Watch(model, every, to, keep, engine, scaler, start)


def _check(model: Any, every: Any, keep: str, start: Any) -> None:
    for name, number, least in (("every", every, 1), ("start", start, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise InputError(f"watch(…, {name}=…)", got=repr(number), expected=f"a whole number from {least} on")
    if keep not in KEPT:
        raise unknown("keep", keep, KEPT)
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("bptt.watch", got="a scripted module", expected="one that runs in Python")
    if isinstance(model, nn.Module) and getattr(model.__dict__.get(SLOT), "watches", False):
        do = "Close the first watch, or give it several places to send to: to=[…]."
        raise InputError(f"model {type(model).__name__}", got="a model that is watched already", do=do)


def _traced() -> bool:
    """Whether a tracer is on, which sees what a second one would take from it."""
    return any(isinstance(mode, Tracer) for mode in _get_current_function_mode_stack())

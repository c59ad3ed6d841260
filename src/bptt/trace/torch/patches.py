"""Two doors of torch that no mode sees, opened while a tracer is on: functions of one's own, and checkpoints.

`torch.autograd.Function.apply` takes parameters straight to C++ (it is caught one class below, since programs keep
`MyFunction.apply` under names of their own); and a checkpoint calls its function a second time from
the backward pass. Both are replaced for as long as the tracer is on, and put back whatever happens.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.checkpoint as checkpoints
from torch.autograd.function import _SingleLevelFunction as BELOW  # that Function.apply calls
from torch.overrides import _get_current_function_mode_stack

from bptt.trace.torch.compiled import CompiledScan
from bptt.trace.torch.sources import Entrance
from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.unroll import Begun

GENERATOR = "_checkpoint_without_reentrant_generator"
OURS = {CompiledScan, Begun, Entrance}
LOCK = threading.Lock()
TRACERS: list[Tracer] = []  # those that are on, in any thread
BEFORE: dict[str, Any] = {}  # what stood there before the first of them


@contextlib.contextmanager
def patched(tracer: Tracer) -> Iterator[None]:
    """Both replaced, for as long as any tracer is on."""
    with LOCK:
        if not TRACERS:
            _replace()
        TRACERS.append(tracer)
    try:
        yield
    finally:
        with LOCK:
            TRACERS.remove(tracer)
            if not TRACERS:
                _put_back()


def _replace() -> None:
    generator: Any = getattr(checkpoints, GENERATOR, None)
    BEFORE["generator"] = generator
    if "torch._dynamo" in sys.modules:  # what is compiled runs as it is written, and can be seen
        BEFORE["stance"] = torch.compiler.set_stance("force_eager")

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return super(BELOW, cls).apply(*args, **kwargs)  # type: ignore[misc]

    def watched(cls: Any, *args: Any, **kwargs: Any) -> Any:
        on = [] if cls in OURS else tracers()
        if cls is checkpoints.CheckpointFunction:
            for tracer in on:
                args = (tracer.segment(args[0]), *args[1:])
            return apply(cls, *args, **kwargs)
        call = functools.partial(apply, cls)
        for tracer in on:
            call = functools.partial(tracer.own_function, call)
        return call(*args, **kwargs)

    def segmented(function: Any, *args: Any, **kwargs: Any) -> Any:
        for tracer in tracers():
            function = tracer.again(function)
        assert generator is not None
        return generator(function, *args, **kwargs)

    BELOW.apply = classmethod(watched)  # type: ignore[attr-defined]
    if generator is not None:
        setattr(checkpoints, GENERATOR, segmented)


def _put_back() -> None:
    if "stance" in BEFORE:
        BEFORE.pop("stance").__exit__(None, None, None)
    del BELOW.apply  # type: ignore[attr-defined]
    generator = BEFORE.pop("generator")
    if generator is not None:
        setattr(checkpoints, GENERATOR, generator)


def tracers() -> list[Any]:
    """Those that are on in this thread, the outermost first; the mode of an audit is one too."""
    return [mode for mode in _get_current_function_mode_stack() if hasattr(mode, "own_function")]

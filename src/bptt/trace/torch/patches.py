"""Two doors of torch that no mode sees, opened while a tracer is on: functions of one's own, and checkpoints.

`torch.autograd.Function.apply` takes parameters straight to C++; and a checkpoint calls its function a second time from
the backward pass. Both are replaced for as long as the tracer is on, and put back whatever happens.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.utils.checkpoint as checkpoints
from torch.autograd import Function

from bptt.trace.torch.compiled import CompiledScan
from bptt.trace.torch.tracer import Tracer, is_on

GENERATOR = "_checkpoint_without_reentrant_generator"


@contextlib.contextmanager
def patched(tracer: Tracer) -> Iterator[None]:
    """Both replaced."""
    before = Function.__dict__["apply"]
    apply = Function.apply.__func__  # type: ignore[attr-defined]

    def watched(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_on(tracer) or cls is CompiledScan:
            return apply(cls, *args, **kwargs)
        if cls is checkpoints.CheckpointFunction:
            return apply(cls, tracer.segment(args[0]), *args[1:], **kwargs)
        return tracer.own_function(cls, lambda *a, **k: apply(cls, *a, **k), args, kwargs)

    generator: Any = getattr(checkpoints, GENERATOR, None)

    def segmented(function: Any, *args: Any, **kwargs: Any) -> Any:
        return (
            _segment(tracer, generator, function, args, kwargs)
            if is_on(tracer)
            else generator(function, *args, **kwargs)
        )

    Function.apply = classmethod(watched)  # type: ignore[assignment, method-assign]
    if generator is not None:
        setattr(checkpoints, GENERATOR, segmented)
    try:
        yield
    finally:
        Function.apply = before  # type: ignore[method-assign]
        if generator is not None:
            setattr(checkpoints, GENERATOR, generator)


def _segment(tracer: Tracer, generator: Any, function: Any, args: Any, kwargs: Any) -> Iterator[None]:
    """What torch runs before and after a checkpoint's first call, which lies in between; it makes the second itself."""
    places: list[tuple[int, bool]] = []

    def again(*args: Any, **kwargs: Any) -> Any:
        with tracer.repeat(places):
            return function(*args, **kwargs)

    around = contextlib.contextmanager(generator)
    with around(again, *args, **kwargs), tracer.reserve(places):
        yield

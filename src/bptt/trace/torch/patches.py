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
from bptt.trace.torch.tracer import Entrance, Tracer, is_on
from bptt.trace.torch.unroll import Begun

GENERATOR = "_checkpoint_without_reentrant_generator"
OURS = {CompiledScan, Begun, Entrance}


@contextlib.contextmanager
def patched(tracer: Tracer) -> Iterator[None]:
    """Both replaced."""
    before = Function.__dict__["apply"]
    apply = Function.apply.__func__  # type: ignore[attr-defined]

    def watched(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_on(tracer) or cls in OURS:
            return apply(cls, *args, **kwargs)
        if cls is checkpoints.CheckpointFunction:
            return apply(cls, tracer.segment(args[0]), *args[1:], **kwargs)
        return tracer.own_function(cls, lambda *a, **k: apply(cls, *a, **k), args, kwargs)

    generator: Any = getattr(checkpoints, GENERATOR, None)

    def segmented(function: Any, *args: Any, **kwargs: Any) -> Any:
        return generator(tracer.segment(function) if is_on(tracer) else function, *args, **kwargs)

    Function.apply = classmethod(watched)  # type: ignore[assignment, method-assign]
    if generator is not None:
        setattr(checkpoints, GENERATOR, segmented)
    try:
        yield
    finally:
        Function.apply = before  # type: ignore[method-assign]
        if generator is not None:
            setattr(checkpoints, GENERATOR, generator)

"""What came back to the uses that a tracer saw: how often, to which parameters, and what it came to."""

from typing import Any

import numpy as np
import torch

from bptt.trace.torch.uses import to_array
from bptt.typing import Array


def gradient(tracer: Any, name: str) -> Array:
    """What the program's backward pass left for a parameter, without the scale of a GradScaler."""
    found = tracer.gradients.get(name)
    shape = tracer.parameters[name]
    return to_array(torch.zeros_like(shape) if found is None else found / tracer.scale if tracer.scale != 1 else found)


def loss_values(tracer: Any) -> Array:
    """(1,) the sum of the scalars that went back, NaN where none was seen to."""
    total = sum(loss.double().item() for loss in tracer.losses) if tracer.losses else float("nan")
    return np.array([total / tracer.scale])


def times(tracer: Any) -> int:
    """How often something came back to a use."""
    records = [record.signal.times for records in tracer.records.values() for record in records]
    return max([*records, *(walk.times for walk in tracer.walks), tracer.repeats], default=0)


def answers(tracer: Any) -> dict[str, list[bool]]:
    """Name → whether something came back, for each call or walk."""
    found = {name: [r.signal.times > 0 for r in records] for name, records in tracer.records.items()}
    for walk in tracer.walks:
        for name in walk.names():
            found.setdefault(name, []).extend([walk.times > 0] * 2)  # a layer is recurrent, of one step too
    return found


def reused(tracer: Any) -> list[str]:
    """Parameters with more than one use, or in a fused layer, save those whose gradient nobody asked for."""
    found = answers(tracer)
    return [
        name for name in tracer.parameters
        if len(found.get(name, ())) > 1 and (name in tracer.gradients or not (tracer.partial or any(found[name])))
    ]  # fmt: skip


def came_back(tracer: Any, names: list[str]) -> bool:
    """Whether a gradient came to any use of any of these parameters."""
    found = answers(tracer)
    return any(any(found[name]) for name in names)


def unseen(tracer: Any) -> list[str]:
    """Parameters with a gradient and no use."""
    found = answers(tracer)
    return [name for name in tracer.parameters if name in tracer.gradients and name not in found]


def precision(tracer: Any) -> torch.dtype:
    """The shortest type that a parameter or an adjoint has."""
    found = {p.dtype for p in tracer.parameters.values()} | tracer.types
    found |= {r.signal.delta.dtype for rs in tracer.records.values() for r in rs if r.signal.delta is not None}
    return min(found, key=lambda dtype: dtype.itemsize)

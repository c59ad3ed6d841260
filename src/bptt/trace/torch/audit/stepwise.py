"""Fused layers one step after the other, so that the recurrent product of each step is a use of its own."""

from collections.abc import Callable
from typing import Any

import torch

from bptt.trace.torch.fused import Packed, scans_of, walk_layers
from bptt.trace.torch.tracer import Tracer


def _nobody() -> Tracer:
    """A tracer that knows no parameter: the walk computes, and the mode of the audit sees its products."""
    return Tracer({}, [], {}, keep="norms", engine="torch")


def _stepwise(kind: str, nonlinearity: str = "tanh") -> Callable[..., Any]:
    def call(probe: Any, args: Any) -> Any:
        packed = isinstance(args[3], list | tuple)
        data, sizes, hx, weights = args[:4] if packed else (args[0], None, args[1], args[2])
        _bias, layers, dropout, train, both = args[4:9] if packed else args[3:8]
        batch_first = not packed and args[8]
        with probe.on():
            states = list(hx) if kind == "lstm" else [hx]
            x = data.transpose(0, 1) if batch_first else data
            shape = Packed.of(sizes, data.device) if sizes is not None else None
            scans = scans_of(_nobody(), kind, nonlinearity, weights, layers, both)
            x, ends = walk_layers(_nobody(), scans, x, states, shape, dropout if train else 0.0, 2 if both else 1)
            out = x.transpose(0, 1) if batch_first else x
            return (out, *(torch.stack(parts) for parts in zip(*ends, strict=True)))

    return call


STEPWISE: dict[Any, Callable[..., Any]] = {
    torch.lstm: _stepwise("lstm"),
    torch.gru: _stepwise("gru"),
    torch.rnn_tanh: _stepwise("rnn"),
    torch.rnn_relu: _stepwise("rnn", "relu"),
}

"""`nn.RNN`, `nn.GRU` and `nn.LSTM` as torch calls them: one function for all layers, walked here one after the other.

What torch does around its layers is done the same way: directions side by side, dropout between layers with the same
random numbers, packed sequences, projections.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bptt.cells import GRU, LSTM, RNN
from bptt.trace.torch.compiled import compiled_scan
from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.unroll import unrolled_scan
from bptt.trace.torch.uses import version_of

GATES = {"rnn": (), "gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}


class Scan(NamedTuple):
    """One layer in one direction.

    kind: "rnn", "gru" or "lstm".  cell: ours.  prefix: of its states in the ledger.  reverse: walks from last to first.
    weights: w_ih, w_hh, b_ih, b_hh, w_hr, None where there is none.  names: of the parameters they are, or None.
    """

    kind: str
    cell: Any
    prefix: str
    reverse: bool
    weights: tuple[Tensor | None, ...]
    names: tuple[str | None, ...]


class Packed(NamedTuple):
    """A batch of sequences of many lengths, the longest first, step after step without padding.

    T, B: steps and sequences.  at: (rows,) place t·B + b of each row.  valid: (T, B).
    """

    T: int
    B: int
    at: Tensor
    valid: Tensor

    @classmethod
    def of(cls, batch_sizes: Tensor, device: Any) -> "Packed":
        """From the number of sequences at each step."""
        sizes = batch_sizes.tolist()
        B = sizes[0]
        valid = torch.arange(B)[None] < batch_sizes[:, None]
        return cls(len(sizes), B, valid.reshape(-1).nonzero()[:, 0].to(device), valid.to(device))

    def spread(self, data: Tensor) -> Tensor:
        """(rows, D) → (T, B, D), 0 after each sequence's end."""
        out = data.new_zeros(self.T * self.B, data.shape[-1])
        return out.index_copy(0, self.at, data).reshape(self.T, self.B, -1)

    def gather(self, out: Tensor) -> Tensor:
        """(T, B, D) → (rows, D)."""
        return out.reshape(self.T * self.B, -1).index_select(0, self.at)


def fused(kind: str, nonlinearity: str = "tanh") -> Callable[..., Any]:
    """What stands in for torch.lstm, torch.gru, torch.rnn_tanh or torch.rnn_relu."""

    def call(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
        if kwargs or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        packed = isinstance(args[3], list | tuple)
        data, sizes, hx, weights = args[:4] if packed else (args[0], None, args[1], args[2])
        _bias, layers, dropout, train, both = args[4:9] if packed else args[3:8]
        batch_first = not packed and args[8]
        data, *states = (tracer.used(t) for t in (data, *(hx if kind == "lstm" else [hx])))
        if not any(t.requires_grad for t in (data, *states, *weights)):
            return func(*args)
        if kind == "lstm" and lowered(data, weights, layers * (2 if both else 1), packed):
            dtype = torch.get_autocast_dtype("cpu")
            data, *states = (t.to(dtype) for t in (data, *states))
        x = data.transpose(0, 1) if batch_first else data
        shape = Packed.of(sizes, data.device) if sizes is not None else None
        drop = dropout if train else 0.0
        scans = scans_of(tracer, kind, nonlinearity, weights, layers, both)
        before = len(tracer.walks)
        x, ends = walk_layers(tracer, scans, x, states, shape, drop, 2 if both else 1)
        out = x.transpose(0, 1) if batch_first else x
        after = [torch.stack(parts) for parts in zip(*ends, strict=True)]
        for walk in tracer.walks[before:]:
            i = next(i for i, scan in enumerate(scans) if scan is walk.scan)
            walk.begins, walk.ends = (tuple(part[i].detach() for part in parts) for parts in (states, after))
        return (out, *after)

    return call


def lowered(data: Tensor, weights: list[Tensor], scans: int, packed: bool) -> bool:
    """Whether autocast has torch's own LSTM walk in half precision throughout, states and outputs too.

    It does where oneDNN walks: on the CPU, not packed, not projected. Elsewhere only products are lowered.
    """
    walks = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled) and data.device.type == "cpu"
    fits = data.dtype in (torch.float32, torch.bfloat16) and data.numel() > 0
    return torch.is_autocast_enabled("cpu") and walks and fits and not packed and len(weights) // scans in (2, 4)


def walk_layers(
    tracer: Tracer, scans: list[Scan], x: Tensor, states: list[Tensor], packed: Packed | None, drop: float, dirs: int
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:  # fmt: skip
    """All layers: outputs, packed if they came so, and the state after each scan."""
    ends, layers = [], len(scans) // dirs
    for layer in range(layers):
        outs, inputs = [], x if packed is None else packed.spread(x)
        for i in range(layer * dirs, (layer + 1) * dirs):
            out, end = _scan(tracer, scans[i], inputs, tuple(s[i] for s in states), packed)
            outs.append(out if packed is None else packed.gather(out))
            ends.append(end)
        x = outs[0] if dirs == 1 else torch.cat(outs, -1)
        if drop and layer < layers - 1:
            x = F.dropout(x, drop, True)
    return x, ends


def _scan(
    tracer: Tracer, scan: Scan, x: Tensor, state: tuple[Tensor, ...], packed: Packed | None
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """One scan on the engine that can: outputs (T, B, W) and the state after."""
    valid = None if packed is None else packed.valid
    walk = compiled_scan if tracer.compiles(x, *state, *scan.weights) else unrolled_scan
    before = len(tracer.walks)
    found = walk(tracer, scan, x, state, valid)
    for made in tracer.walks[before:]:
        made.saw = x.detach(), version_of(x)
    return found


def scans_of(tracer: Tracer, kind: str, nonlinearity: str, weights: Any, layers: int, both: bool) -> list[Scan]:
    """Every layer in every direction with its weights."""
    dirs = 2 if both else 1
    each = len(weights) // (layers * dirs)
    projected = each in (3, 5)
    scans = []
    for i in range(layers * dirs):
        own = list(weights[i * each : (i + 1) * each])
        w_hr = own.pop() if projected else None
        w_ih, w_hh, b_ih, b_hh = (*own, None, None)[:4]
        gates = max(len(GATES[kind]), 1)
        cell = _cell(kind, nonlinearity, w_hh.shape[0] // gates, None if w_hr is None else w_hr.shape[0])
        all_of_it = (w_ih, w_hh, b_ih, b_hh, w_hr)
        names = tuple(tracer.known[id(t)].name if id(t) in tracer.known else None for t in all_of_it)
        tail = f"l{i // dirs}" + ("_reverse" if i % dirs else "")
        scans.append(Scan(kind, cell, tracer.state_prefix(kind, names, tail), i % dirs == 1, all_of_it, names))
    return scans


def _cell(kind: str, nonlinearity: str, hidden: int, projection: int | None) -> Any:
    if kind == "lstm":
        return LSTM(hidden, projection=projection)
    return GRU(hidden) if kind == "gru" else RNN(hidden, nonlinearity)


FUSED = {
    torch.lstm: fused("lstm"),
    torch.gru: fused("gru"),
    torch.rnn_tanh: fused("rnn"),
    torch.rnn_relu: fused("rnn", "relu"),
}

"""The calls whose factors are known: products, tables of vectors, and the three cells written as products.

A hook on the output hands over δ; the input is there already; torch goes on to make and add up its own gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bptt.ledger import Place
from bptt.trace.torch.sources import Source
from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.uses import Record, Signal, version_of

_OTHER = {"linear": "matmul", "matmul": "linear"}


def listen(tracer: Tracer, out: Tensor) -> tuple[Signal, Tensor]:
    """What comes back to a tensor, and the tensor for the program to go on with.

    Where every loss will be asked on its own that is a copy, so that the program may write into it.
    """
    signal = Signal()
    out.register_hook(lambda delta: None if tracer.quiet else signal.take(tracer.slab.hold(delta)))
    return signal, out.clone() if tracer.handles else out


def product(
    tracer: Tracer, source: Source, kind: str, z: Tensor, signal: Signal, handle: Tensor, turned: bool = False
) -> None:  # fmt: skip
    """Note a product with a parameter, "linear" (a = z Wᵀ) or "matmul" (a = z W), or with its transpose."""
    assert source.name is not None
    tracer.record(source.name, _OTHER[kind] if source.flipped else kind, z, signal, handle=handle, turned=turned)


def _plain(tracer: Tracer, *tensors: Tensor | None) -> bool:
    """Whether each is data or a parameter with a name, and none is worked out from parameters."""
    return torch.is_grad_enabled() and not any(tracer.worked_out(t) for t in tensors)


def linear(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """F.linear(x, W, b)."""
    bound = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    x, W, b = bound["input"], bound["weight"], bound.get("bias")
    if tracer.is_weight(x) or not _plain(tracer, W, b) or W.dim() != 2 or (b is not None and b.dim() != 1):
        return NotImplemented
    wanted = [t for t in (W, b) if t is not None and tracer.is_weight(t) and t.requires_grad]
    if not wanted:
        return NotImplemented
    out = func(*args, **kwargs)
    signal, onward = listen(tracer, out)
    if any(t is W for t in wanted):
        product(tracer, tracer.known[id(W)], "linear", _matrix(x), signal, out)
    if b is not None and any(t is b for t in wanted):
        tracer.record(tracer.known[id(b)].name, "bias", None, signal, handle=out)  # type: ignore[arg-type]
    return onward


def matmul(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """x @ W, or W x for a vector x."""
    if kwargs or len(args) != 2:
        return NotImplemented
    a, b = args
    if func is Tensor.__rmatmul__:
        a, b = b, a
    left, right = tracer.is_weight(a), tracer.is_weight(b)
    weight, x = (a, b) if left else (b, a)
    if left == right or not _plain(tracer, weight) or weight.dim() != 2 or not weight.requires_grad:
        return NotImplemented
    if left and x.dim() > 2:
        return NotImplemented
    out = func(*args)
    (signal, onward), source = listen(tracer, out), tracer.known[id(weight)]
    if right:
        product(tracer, source, "matmul", _matrix(x), signal, out)
    else:  # a = W x with a column for each sequence: dW = δ xᵀ
        product(tracer, source, "linear", _matrix(x) if x.dim() == 1 else x.t(), signal, out, x.dim() == 2)
    return onward


def _matrix(x: Tensor) -> Tensor:
    return x[None] if x.dim() == 1 else x


def embedding(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """F.embedding(ids, W): rows of W."""
    bound = dict(zip(("input", "weight", "padding_idx", "max_norm"), args, strict=False)) | kwargs
    ids, W = bound["input"], bound["weight"]
    if (
        not tracer.is_weight(W) or not _plain(tracer, W) or tracer.known[id(W)].flipped or not W.requires_grad
        or bound.get("padding_idx") is not None or bound.get("max_norm") is not None
        or bound.get("scale_grad_by_freq")
    ):  # fmt: skip
        return NotImplemented
    out = func(*args, **kwargs)
    signal, onward = listen(tracer, out)
    tracer.record(tracer.known[id(W)].name, "ids", ids, signal, handle=out)  # type: ignore[arg-type]
    return onward


# ---- cells -----------------------------------------------------------------------------------------------------------
# As torch writes them for the CPU (aten/src/ATen/native/RNN.cpp), in the same order, so that no bit differs.


def _gates(tracer: Tracer, x: Tensor, h: Tensor, weights: Any) -> Tensor:
    """x W_ihᵀ + b_ih + h W_hhᵀ + b_hh, listened to once for all four."""
    names = _names(tracer, (x, h), weights)
    if names is None:
        inner, recurrent = _both(tracer, x, h, weights)
        return recurrent.add_(inner) if _own(recurrent) else recurrent + inner
    w_ih, w_hh, b_ih, b_hh = weights
    gates = F.linear(h, w_hh, b_hh).add_(F.linear(x, w_ih, b_ih))
    _note_products(tracer, names, (x, h), (gates, gates))
    return gates


def _both(tracer: Tracer, x: Tensor, h: Tensor, weights: Any) -> tuple[Tensor, Tensor]:
    """x W_ihᵀ + b_ih and h W_hhᵀ + b_hh."""
    w_ih, w_hh, b_ih, b_hh = weights
    names = _names(tracer, (x, h), weights)
    if names is None:
        return _one(tracer, x, w_ih, b_ih), _one(tracer, h, w_hh, b_hh)
    products = F.linear(x, w_ih, b_ih), F.linear(h, w_hh, b_hh)
    _note_products(tracer, names, (x, h), products)
    return products


def _names(tracer: Tracer, inputs: Any, weights: Any) -> list[str] | None:
    """The parameters that a cell's weights are; None where that is not so simple, or every loss will be asked."""
    if tracer.handles or any(id(t) in tracer.known for t in inputs):
        return None
    names = []
    for weight in weights:
        source = tracer.known.get(id(weight))
        if source is None or source.name is None or source.flipped or not weight.requires_grad:
            return None
        names.append(source.name)
    return names


def _note_products(tracer: Tracer, names: list[str], inputs: Any, outputs: Any) -> None:
    """Note two products with their biases, and listen to each, or to their sum."""
    place, signal = tracer.place(), None
    if place is None:
        return
    for i, (z, out) in enumerate(zip(inputs, outputs, strict=True)):
        if signal is None or out is not outputs[0]:
            signal = Signal()
            _hear(tracer, out, signal)
        record = Record(place, "linear", z.detach(), signal, version=version_of(z))
        tracer.records.setdefault(names[i], []).append(record)
        tracer.records.setdefault(names[i + 2], []).append(Record(place, "bias", None, signal))


def _hear(tracer: Tracer, out: Tensor, signal: Signal) -> None:
    out.register_hook(lambda delta: None if tracer.quiet else signal.take(tracer.slab.hold(delta)))


def _one(tracer: Tracer, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    found = NotImplemented
    if any(id(t) in tracer.known for t in (W, b)):
        found = linear(tracer, F.linear, (x, W, b), {})
        if found is NotImplemented:
            found = tracer.generic(F.linear, (x, W, b), {})
        return found
    return F.linear(x, W, b)


def _arguments(args: Any, kwargs: Any) -> tuple[Tensor, Any, list[Tensor]]:
    bound = dict(zip(("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh"), args, strict=False)) | kwargs
    return bound["input"], bound["hx"], [bound.get(name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")]  # type: ignore


def _note_gates(tracer: Tracer, weights: Any, gates: str) -> None:
    """Know which rows of a cell's weights are which gate's."""
    for weight in weights:
        source = tracer.known.get(id(weight))
        if source is not None and source.name is not None and not source.flipped and source.name not in tracer.places:
            tracer.places[source.name] = Place(gates=tuple(gates), axis=0)


def _native(x: Tensor) -> bool:
    """Whether torch computes the cell from products, as it does on the CPU."""
    return torch.is_grad_enabled() and x.device.type == "cpu"


def lstm_cell(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """torch.lstm_cell."""
    x, (h, c), weights = _arguments(args, kwargs)
    if not _native(x):
        return NotImplemented
    _note_gates(tracer, weights, "ifgo")
    gates = _gates(tracer, x, h, weights)
    i, f, g, o = gates.unsafe_chunk(4, 1)
    i, f, g, o = i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
    c = (f * c).add_(i * g)
    return o * c.tanh(), c


def gru_cell(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """torch.gru_cell."""
    x, h, weights = _arguments(args, kwargs)
    if not _native(x):
        return NotImplemented
    _note_gates(tracer, weights, "rzn")
    inner, recurrent = _both(tracer, x, h, weights)
    x_r, x_z, x_n = inner.unsafe_chunk(3, 1)
    h_r, h_z, h_n = recurrent.unsafe_chunk(3, 1)
    r = h_r.add_(x_r).sigmoid_()
    z = h_z.add_(x_z).sigmoid_()
    n = x_n.add(h_n.mul_(r)).tanh_()
    return (h - n).mul_(z).add_(n)


def rnn_tanh_cell(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """torch.rnn_tanh_cell."""
    x, h, weights = _arguments(args, kwargs)
    if not _native(x):
        return NotImplemented
    return torch.tanh(_gates(tracer, x, h, weights))


def rnn_relu_cell(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """torch.rnn_relu_cell."""
    x, h, weights = _arguments(args, kwargs)
    if not _native(x):
        return NotImplemented
    return torch.relu(_gates(tracer, x, h, weights))


def _own(out: Tensor) -> bool:
    """Whether the sum may be made in place, as torch does."""
    return out.requires_grad and not out.is_leaf


CALLS: dict[Any, Any] = {
    F.linear: linear,
    F.embedding: embedding,
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mm, Tensor.mm), matmul),
    torch.lstm_cell: lstm_cell,
    torch.gru_cell: gru_cell,
    torch.rnn_tanh_cell: rnn_tanh_cell,
    torch.rnn_relu_cell: rnn_relu_cell,
}

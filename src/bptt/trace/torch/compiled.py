"""A fused layer on the compiled engine: one node of the graph, whose way back is the recording.

What the way back reads is kept by autograd itself (`save_for_backward`), so that it goes when the graph goes, and that
checkpoints, and the refusal of tensors that were changed meanwhile, work as they do for torch's own layers.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.trace.torch.tracer import Tracer
from bptt.trace.torch.uses import to_array
from bptt.trace.torch.walks import SLOTS, Walk
from bptt.typing import Array, Params

TWICE = (
    b"bptt.trace: got a second derivative through a fused layer, expected the first. "
    b"Leave this pass untraced: its gradient is no sum over the uses of one forward pass."
)


def compiled_scan(tracer: Tracer, scan: Any, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None) -> Any:
    """Outputs (T, B, W) and the state after."""
    walk = Walk(tracer, scan, *x.shape[:2])
    weights = [w for w in scan.weights if w is not None]
    if not walk.live:
        walk.places = {}
    out, *end = CompiledScan.apply(tracer, walk, valid, x, *state, *weights)
    if walk.live:
        tracer.note_walk(walk, (x, *state), (out, *end))
        if tracer.handles:
            walk.node = out.grad_fn
            return out.clone(), tuple(part.clone() for part in end)
    return out, tuple(end)


def once(backward: Any) -> Any:
    """A way back that cannot be differentiated in turn, and says what can."""

    @functools.wraps(backward)
    def call(ctx: Any, *grad_outputs: Any) -> Any:
        twice = torch.is_grad_enabled() and any(isinstance(d, Tensor) and d.requires_grad for d in grad_outputs)
        with torch.no_grad():
            found = backward(ctx, *grad_outputs)
        if not twice:
            return found
        fail: Any = torch._C._functions.DelayedError(TWICE, len(found))  # type: ignore[attr-defined]
        marked = fail(*(None if a is None else a.detach().requires_grad_() for a in found))
        return tuple(None if a is None else b for a, b in zip(found, marked, strict=True))

    return call


class CompiledScan(torch.autograd.Function):
    """One layer in one direction."""

    @staticmethod
    def forward(ctx: Any, tracer: Tracer, walk: Walk, valid: Tensor | None, x: Tensor, *tensors: Tensor) -> Any:
        """Walk: outputs (T, B, W), then the parts of the state after."""
        from bptt.engine.compiled.layer import Layer
        from bptt.engine.compiled.openmp import borrow

        borrow()  # torch's own threads
        parts = len(walk.scan.cell.State._fields)
        state, weights = tensors[:parts], tensors[parts:]
        before = walk.scan.cell.State(*(np.ascontiguousarray(to_array(s)) for s in state))
        inputs = np.ascontiguousarray(to_array(x))
        flags = None if valid is None else valid.numpy()
        layer = Layer(
            walk.scan.cell, ours(walk.scan, weights), inputs, before, flags, walk.scan.reverse, torch.get_num_threads()
        )
        out = torch.from_numpy(layer.output if valid is not None else layer.output.copy())
        end = [torch.from_numpy(part) for part in layer.state]
        tape = layer.take_tape()
        ctx.save_for_backward(x, *(torch.from_numpy(part) for part in tape), *tensors)
        walk.layer = layer
        ctx.tracer, ctx.walk, ctx.layer, ctx.parts, ctx.tapes = tracer, walk, layer, parts, len(tape)
        ctx.set_materialize_grads(False)
        return (out, *end)

    @staticmethod
    @once
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        """Walk back from the adjoints of its outputs; those of x, of the state before, and of the weights."""
        dout, *dend = grad_outputs
        none = (None,) * (3 + 1 + ctx.parts + len([w for w in ctx.walk.scan.weights if w is not None]))
        tracer, walk, layer = ctx.tracer, ctx.walk, ctx.layer
        if tracer.cutting or (dout is None and all(d is None for d in dend)):
            return none
        saved = ctx.saved_tensors
        x, tape = np.ascontiguousarray(to_array(saved[0])), tuple(part.numpy() for part in saved[1 : 1 + ctx.tapes])
        layer.give_tape(x, tape)
        T, B = x.shape[:2]
        top = np.zeros((T, B, walk.scan.cell.width), x.dtype) if dout is None else to_array(dout)
        ds = walk.scan.cell.State(
            *(np.zeros((B, w), x.dtype) if d is None else np.array(to_array(d), order="C")
              for d, w in zip(dend, walk.scan.cell.state_widths(), strict=True))
        )  # fmt: skip
        back = layer.back(top, ds, ctx.needs_input_grad[3], tracer.keep != "norms")
        layer.drop()
        weights = theirs(walk.scan, back.gradients)
        if walk.live:
            walk.take(tracer, back)
            for slot, gradient in weights.items():
                if slot in walk.sources and walk.sources[slot].name is not None:
                    tracer.handed[walk.sources[slot].name] = gradient.data_ptr()
        return (None, None, None, _tensor(back.dx), *map(torch.from_numpy, back.ds), *weights.values())


def _tensor(a: Array | None) -> Tensor | None:
    return None if a is None else torch.from_numpy(a)


def ours(scan: Any, weights: tuple[Tensor, ...]) -> Params:
    """torch's weights of one scan under our names: transposed views, and the biases added."""
    given = iter(to_array(w) for w in weights)
    w_ih, w_hh, b_ih, b_hh, w_hr = (None if w is None else next(given) for w in scan.weights)
    assert w_ih is not None
    assert w_hh is not None
    params = {"W_xh": w_ih.T, "W_hh": w_hh.T}
    n, H = len(w_ih), scan.cell.hidden
    b_ih = np.zeros(n, w_ih.dtype) if b_ih is None else b_ih
    b_hh = np.zeros(n, w_ih.dtype) if b_hh is None else b_hh
    if scan.kind == "gru":
        params |= {"b": np.concatenate([(b_ih + b_hh)[: 2 * H], b_ih[2 * H :]]), "b_hn": b_hh[2 * H :].copy()}
    else:
        params["b"] = b_ih + b_hh
    return params | ({} if w_hr is None else {"W_hr": w_hr.T})


def theirs(scan: Any, gradients: Params) -> dict[str, Tensor]:
    """Our gradients of one scan as torch's, slot → gradient, in the order of its weights."""
    b_hh = gradients["b_hh"] if scan.kind == "gru" else gradients["b"].copy()
    slots = {"w_ih": gradients["W_xh"].T, "w_hh": gradients["W_hh"].T, "b_ih": gradients["b"], "b_hh": b_hh}
    slots |= {"w_hr": gradients["W_hr"].T} if "W_hr" in gradients else {}
    return {slot: torch.from_numpy(slots[slot]) for slot, w in zip(SLOTS, scan.weights, strict=True) if w is not None}

"""`bptt.audit`: every use of every shared parameter moved by itself, beside what the gradient claims about it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bptt.errors import InputError
from bptt.trace.torch.audit.measure import counts, far_influence, measure
from bptt.trace.torch.audit.result import Audit
from bptt.trace.torch.audit.runs import Input, Program, Run, tensors_of
from bptt.trace.torch.audit.show import Bar
from bptt.trace.torch.audit.verdict import findings
from bptt.trace.torch.factory import default_losses
from bptt.trace.torch.tracing import describe, watched

CLOSE = 1e-9  # a layer step by step, against torch's own: relative, in float64


def audit(
    model: nn.Module,
    x: Any = None,
    losses: Callable[[Any], Tensor] | None = None,
    *,
    step: Callable[[nn.Module, Any], Any] | None = None,
    axis: int | None = None,
    inputs: bool = True,
) -> Audit:
    """Whether the gradient of a model is that of its values: for each loss k and each use t of each shared parameter.

    Use t alone is moved by ±ε along a fixed direction V, and the change of loss k is compared with ⟨∂L_k/∂(use t), V⟩.
    Values count wherever they go: through `detach()`, `.data`, NumPy, under `no_grad`. All of it happens in float64 on
    a copy, with one seed; the model is not touched.

    Args:
        model: any module.
        x: its batch: a tensor, a tuple of arguments, or a dict of named ones. Small is enough: a few sequences.
        losses: outputs → (K,) losses, one for each step, or a single one. By default the outputs' numbers at each step,
            weighted by fixed random ones.
        step: instead of losses, a training step: step(model, x) with its own backward calls. Each scalar that it sends
            back is one loss. An optimiser in it moves nothing.
        axis: of time in the batch's tensors; found by itself where the number of steps is that of the uses.
        inputs: whether floating inputs are moved too, step by step.

    Returns:
        Audit: `.ok`, `.findings`, `.reach`, `.tables`, `.to_dict()`; printed as a table.

    Raises:
        InputError: no batch, nothing used, a model that is not the same twice, or no loss with a graph.

    >>> cell = torch.nn.RNN(2, 3)
    >>> found = audit(cell, torch.ones(6, 1, 2))
    >>> found.ok, found.reach
    (True, 5)
    """
    watched(model)
    if x is None:
        raise InputError("audit", got="no batch", expected="what the model is called with")
    if losses is not None and step is not None:
        raise InputError("audit", got="losses and a step", expected="one of them: a step has its own losses")
    program = Program(model, x, None, step)
    first = program.run()
    uses = dict(counts(first))
    if not uses:
        do = "It may be inside a compiled or scripted function, which no mode of torch can see."
        raise InputError("audit", got="no use of a parameter", expected="a model that uses its parameters", do=do)
    batch_first = any(getattr(module, "batch_first", False) for module in model.modules())
    T, along = _time(program.batch, uses, batch_first, axis, set(_sizes(first.outputs)))
    if step is None:
        program.losses = losses or partial(default_losses, T=T, batch_first=batch_first)
    base = _listened(program, along if inputs else [])
    _check(program, base)
    found, bent = _judged(model, program, base, T)
    if found.ok or not bent:
        return found
    program.stir()  # off the kink, where there is one answer
    return _judged(model, program, _listened(program, along if inputs else []), T)[0]


def _judged(model: nn.Module, program: Program, base: Run, T: int) -> tuple[Audit, bool]:
    """The tables and what they show, and whether any of it stands at a kink."""
    uses = dict(counts(base))
    names = _input_names(program)
    with Bar(sum(map(len, uses.values())) + sum(given.T for given in program.inputs)) as bar:
        measured = measure(program, T, base, uses, names, bar.tick)
    shown = {name: table for name, table in measured.tables.items() if table.values.shape[1] > 1}
    found = findings(measured, partial(far_influence, program, measured))
    shown |= {name: measured.tables[name] for one in found for name in one.parameters if name in measured.tables}
    return Audit(describe(model), shown or measured.tables, found, T, program.runs), measured.bent


def _time(
    batch: Any, uses: dict[str, list[int]], batch_first: bool, axis: int | None, sizes: set[int]
) -> tuple[int, list[Input]]:
    """The number of steps, and the floating inputs along them."""
    many = {len(places) for places in uses.values() if len(places) > 1}
    tensors = list(tensors_of(batch))
    T = None
    for tensor in tensors:
        axes = [axis] if axis is not None else [1, 0] if batch_first else [0, 1]
        fits = [a for a in axes if tensor.dim() > a and (axis is not None or tensor.shape[a] in many)]
        usual = int(batch_first)  # where uses say nothing: as torch's own layers have it
        fits = fits or ([usual] if tensor.dim() == 3 and tensor.shape[usual] in sizes else [])
        if T is None and fits and tensor.shape[fits[0]] > 1:
            T = tensor.shape[fits[0]]
    steps = max(many, default=1) if T is None else T
    found = []
    for index, tensor in enumerate(tensors):
        axes = [axis] if axis is not None else [1, 0] if batch_first else [0, 1]
        fit = [a for a in axes if tensor.dim() > max(a, 1) and tensor.shape[a] == T]
        if fit and tensor.is_floating_point() and T is not None:
            found.append(Input(index, fit[0], tensor))
    return steps, found


def _sizes(outputs: Any) -> Iterator[int]:
    """Lengths of the first two axes of all outputs."""
    for tensor in tensors_of(outputs):
        yield from tensor.shape[:2]


def _input_names(program: Program) -> list[str]:
    if isinstance(program.batch, dict):
        names = [name for name, value in program.batch.items() for _ in tensors_of(value)]
        return [f"input {names[given.index]}" for given in program.inputs]
    return ["input" if len(program.inputs) == 1 else f"input {given.index}" for given in program.inputs]


def _listened(program: Program, inputs: list[Input]) -> Run:
    """The run whose gradients are compared. What comes to inputs is asked in another, since a graph that begins at them
    may be another; or not at all, where the program cannot have a gradient there.
    """
    base = program.run(listen=True)
    if inputs:
        program.inputs = inputs
        try:
            base.of_inputs = program.run(listen=True).of_inputs
        except RuntimeError:
            program.inputs = []
    return base


def _check(program: Program, base: Run) -> None:
    """The same losses in every run, and those of torch without us."""
    if not len(base.losses):
        do = "Call loss.backward() on a scalar in the step."
        raise InputError("step", got="no scalar loss that was sent back", expected="at least one", do=do)
    if not np.isfinite(base.losses).all():
        k = int(np.flatnonzero(~np.isfinite(base.losses))[0]) + 1
        raise InputError("audit", got=f"a loss {k} that is not finite", expected="numbers", do="Give a smaller batch.")
    again = program.run(base.sites)
    if again.seen != base.seen or not np.array_equal(again.losses, base.losses):
        do = "Seed what is random inside the model, and keep no state between calls outside of it."
        raise InputError("audit", got="two runs with different losses", expected="a deterministic program", do=do)
    plain = program.run(bare=True, listen=True)
    for what, a, b in (("losses", base.losses, plain.losses), ("gradients", _flat(base), _flat(plain))):
        if a.shape != b.shape or np.abs(a - b).max(initial=0) > CLOSE * max(1.0, np.abs(b).max(initial=0)):
            got = f"{what} that differ from those of the same program by itself"
            raise InputError("audit", got=got, expected="the same within 1e-9", do="Please report this model.")


def _flat(run: Run) -> Any:
    grads = [g.reshape(-1).cpu() for g in run.gradients.values()]
    return torch.cat(grads).numpy() if grads else np.zeros(0)

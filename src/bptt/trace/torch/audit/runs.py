"""One program, run again and again from the same beginning: as it is, listened to, or with one use moved by ε."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from bptt.errors import ShapeError
from bptt.trace.torch.audit.double import copied, widened
from bptt.trace.torch.audit.probe import Event, Probe, Site
from bptt.trace.torch.audit.recipe import Recipe
from bptt.trace.torch.factory import call
from bptt.trace.torch.patches import patched
from bptt.typing import Array

SEED = 20
STIR = 0.01  # relative


class Run:
    """What one run gave.

    losses: (K,).  claims: (number of a use, parameter) → loss → ⟨gradient, direction⟩.  of_inputs: the same by (input,
    step).  sites, events, seen: of the probe.  gradients: name → `.grad`.  recipe: what a step of the user's did.
    """

    def __init__(self) -> None:
        self.losses: Array = np.zeros(0)
        self.claims: dict[tuple[int, str], dict[int, float]] = {}
        self.of_inputs: dict[tuple[int, int], dict[int, float]] = {}
        self.sites: list[Site] = []
        self.events: list[Event] = []
        self.seen = 0
        self.k = 0
        self.gradients: dict[str, Tensor] = {}
        self.recipe: Recipe | None = None
        self.outputs: Any = None

    def came(self, use: int, name: str, value: float) -> None:
        """A gradient has come to a use."""
        row = self.claims.setdefault((use, name), {})
        row[self.k] = row.get(self.k, 0.0) + value

    def came_to_input(self, index: int, products: list[float]) -> None:
        """A gradient has come to an input, step by step."""
        for t, value in enumerate(products):
            row = self.of_inputs.setdefault((index, t), {})
            row[self.k] = row.get(self.k, 0.0) + value


class Input:
    """A floating tensor of the batch, along time.

    index: among the tensors of the batch.  axis: of time.  way: (…) direction of all its steps.
    """

    def __init__(self, index: int, axis: int, tensor: Tensor):
        self.index, self.axis, self.T = index, axis, tensor.shape[axis]
        self.way = direction(tensor, 1000 + index)

    def moved(self, tensor: Tensor, t: int | None, step: float) -> Tensor:
        """With one step moved, or all."""
        way = self.way.movedim(self.axis, 0)
        out = tensor.movedim(self.axis, 0).clone()
        if t is None:
            out += step * way
        else:
            out[t] += step * way[t]
        return out.movedim(0, self.axis)

    def products(self, g: Tensor) -> list[float]:
        """⟨gradient, direction⟩ of each step."""
        return (g * self.way).movedim(self.axis, 0).reshape(self.T, -1).sum(1).tolist()


class Program:
    """A model with its batch and its losses, or with a whole training step.

    Args:
        model: is copied.  batch: is copied.  losses: of the outputs.  step: instead of losses.
        inputs: floating tensors of the batch to move and listen to as well.
    """

    def __init__(self, model: nn.Module, batch: Any, losses: Callable[[Any], Any] | None, step: Any):
        self.model, self.batch, self.losses, self.step = copied(model), widened(batch), losses, step
        self.inputs: list[Input] = []
        self.runs = 0
        self.ways = {
            name: direction(p, i) for i, (name, p) in enumerate(self.model.named_parameters()) if p.requires_grad
        }

    def stir(self) -> None:
        """Move all weights and inputs a little, for good."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.ways:
                    parameter += STIR * self.ways[name]
        tensors = list(tensors_of(self.batch))
        moved = [
            (tensors[given.index], given.moved(tensors[given.index].detach(), None, STIR)) for given in self.inputs
        ]
        for tensor, other in moved:
            tensor.data.copy_(other)

    def run(
        self, sites: list[Site] | None = None, move: Any = None, move_input: Any = None, listen: bool = False,
        bare: bool = False,
    ) -> Run:  # fmt: skip
        """Once, from the beginning.

        Args:
            sites: uses as the first run found them.  move: (use, parameter, ε).  move_input: (input, step, ε).
            listen: whether gradients are wanted.  bare: without the probe.
        """
        self.runs += 1
        run, model = Run(), copied(self.model)
        parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        constants = [*model.buffers(), *(p for p in model.parameters() if not p.requires_grad)]
        run.recipe = Recipe(run, parameters, listen) if self.step is not None else None
        probe = Probe(
            parameters, constants, self.ways, sites, move, run.came if listen and not bare else None,
            None if run.recipe is None else run.recipe.note,
        )  # fmt: skip
        with same_beginning(), contextlib.ExitStack() as stack:
            batch = self._batch(run, move_input, listen and not bare)
            if not bare:
                stack.enter_context(patched(probe))  # type: ignore[arg-type]
            if run.recipe is not None:
                run.recipe.probe = probe
                pre, post = run.recipe.before_update, run.recipe.after_update
                stack.callback(register_optimizer_step_pre_hook(pre).remove)
                stack.callback(register_optimizer_step_post_hook(post).remove)
            stack.enter_context(Bare(run.recipe) if bare else probe)
            self._do(run, model, batch, probe, listen)
        run.sites, run.events, run.seen = probe.sites, probe.events, probe.seen
        run.gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.detach() for n, p in parameters.items()}
        return run

    def _do(self, run: Run, model: nn.Module, batch: Any, probe: Probe, listen: bool) -> None:
        if self.step is not None:
            self.step(model, batch)
            probe.watching = False
            assert run.recipe is not None
            run.losses = run.recipe.values()
            return
        run.outputs = outputs = call(model, batch)
        if self.losses is None:
            return
        losses = _vector(self.losses(outputs))
        probe.watching = False
        if listen and losses.requires_grad:
            for k in range(len(losses)):
                run.k = k
                losses[k].backward(retain_graph=True)
        run.losses = losses.detach().double().cpu().numpy().copy()

    def _batch(self, run: Run, move: Any, listen: bool) -> Any:
        """The batch, with one step of an input moved, or with ears."""
        batch = widened(self.batch)
        if not listen and move is None:
            return batch
        tensors = list(tensors_of(batch))
        by: dict[int, Tensor] = {}
        for n, given in enumerate(self.inputs):
            tensor = tensors[given.index]
            if move is not None and move[0] in (n, None):
                by[id(tensor)] = given.moved(tensor, move[1], move[2])
            elif listen:
                by[id(tensor)] = self._heard(run, n, given, tensor)
        return replaced(batch, by)

    @staticmethod
    def _heard(run: Run, n: int, given: Input, tensor: Tensor) -> Tensor:
        heard = tensor.requires_grad_().view_as(tensor)
        heard.register_hook(lambda g: run.came_to_input(n, given.products(g)))
        return heard


class Bare(torch.overrides.TorchFunctionMode):
    """Sees the losses of a step and nothing else."""

    def __init__(self, recipe: Recipe | None):
        super().__init__()
        self.recipe = recipe

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch."""
        from bptt.trace.torch.audit.double import widen_call
        from bptt.trace.torch.audit.probe import LOSSES, losses_of

        kwargs = kwargs or {}
        if func in LOSSES and self.recipe is not None:
            self.recipe.note(*losses_of(args, kwargs))
        if func not in LOSSES:
            func, args, kwargs = widen_call(func, args, kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def same_beginning() -> Iterator[None]:
    """Random numbers from one seed, float64 by default; put back as they were."""
    python, arrays, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(SEED)
        random.seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002
        torch.set_default_dtype(torch.float64)
        try:
            with torch.enable_grad():
                yield
        finally:
            torch.set_default_dtype(dtype)
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


def direction(tensor: Tensor, seed: int) -> Tensor:
    """Fixed random numbers of the size of a tensor's own."""
    way = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(SEED + seed), dtype=torch.float64)
    size = tensor.detach().double().square().mean().sqrt().item() if tensor.numel() else 1.0
    return (way * max(size, 0.1)).to(tensor.device)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor of a batch, in order."""
    if isinstance(value, PackedSequence):
        yield value.data
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_of(item)


def replaced(value: Any, by: dict[int, Tensor]) -> Any:
    """The same batch with some tensors replaced."""
    if isinstance(value, PackedSequence):
        return value._replace(data=by.get(id(value.data), value.data))
    if isinstance(value, Tensor):
        return by.get(id(value), value)
    if isinstance(value, Mapping):
        return {name: replaced(item, by) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replaced(item, by) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(replaced(item, by) for item in value)
    return value


def _vector(losses: Any) -> Tensor:
    """(K,) losses from what the user's function returned."""
    if isinstance(losses, list | tuple) and losses and all(isinstance(item, Tensor) for item in losses):
        losses = torch.stack([item.reshape(()) for item in losses if item.numel() == 1])
    if not isinstance(losses, Tensor) or losses.dim() > 1 or not losses.numel():
        got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise ShapeError("losses", got=got, expected="(K,), one loss per step", do="Add up over the batch first.")
    return losses.reshape(-1)

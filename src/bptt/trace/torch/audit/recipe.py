"""A training step of the user's own: which scalars it sends back, and what it does to `.grad`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.trace.torch.audit.lines import line
from bptt.typing import Array

NODES = 200_000  # of a graph that are looked at


class Recipe:
    """What happens in a step.

    by_hand: lines from which a gradient was sent on by hand.  again: (loss, loss that holds it, line).  stale: name
    → line of an update whose `.grad` holds what an earlier update had already.
    """

    def __init__(self, run: Any, parameters: dict[str, Tensor], listen: bool):
        self.probe: Any = None  # that sees nothing of an update
        self.run, self.parameters, self.listen = run, parameters, listen
        self.losses: list[tuple[list[Tensor], float]] = []
        self.by_hand: list[str | None] = []
        self.again: list[tuple[int, int, str | None]] = []
        self.stale: dict[str, str | None] = {}
        self.fresh: dict[str, Tensor] = {}
        self.older: dict[str, Tensor] = {}
        self.kept: list[tuple[Tensor, Tensor]] = []
        if listen:
            for name, parameter in parameters.items():
                parameter.register_hook(lambda g, name=name: self._fresh(name, g))

    # ---- losses ------------------------------------------------------------------------------------------------

    def note(self, tensors: list[Tensor], gradients: list[Tensor | None]) -> None:
        """A backward pass begins: at a new loss, at one that was sent back before, or at a state."""
        pairs = list(zip(tensors, gradients, strict=True))
        scalars = [(t, g) for t, g in pairs if t.numel() == 1 and (g is None or t.dim() == 0)]
        if not scalars:
            self.by_hand.append(line())
            return
        weight = 1.0 if scalars[0][1] is None else float(scalars[0][1])
        known = [k for k, (old, _w) in enumerate(self.losses) if [id(t) for t in old] == [id(t) for t, _g in scalars]]
        if known:
            self.run.k = known[0]
            self.again.append((known[0], known[0], line()))
            return
        if self.listen:
            self._held(len(self.losses), [t for t, _g in scalars])
        self.run.k = len(self.losses)
        self.losses.append(([t for t, _g in scalars], weight))

    def _held(self, k: int, tensors: list[Tensor]) -> None:
        """Losses that were sent back before and are part of this one."""
        earlier = {t.grad_fn: j for j, (old, _w) in enumerate(self.losses) for t in old if t.grad_fn is not None}
        if not earlier:
            return
        seen, todo = set(), [t.grad_fn for t in tensors]
        while todo and len(seen) < NODES:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in earlier:
                self.again.append((earlier[node], k, line()))
                continue
            todo += [before for before, _i in node.next_functions]

    def values(self) -> Array:
        """(K,) the losses."""
        return np.array([weight * sum(float(t.detach()) for t in tensors) for tensors, weight in self.losses])

    # ---- updates -----------------------------------------------------------------------------------------------

    def _fresh(self, name: str, g: Tensor) -> None:
        known = self.fresh.get(name)
        self.fresh[name] = g.detach().clone() if known is None else known + g.detach()

    def before_update(self, optimiser: Any, *_: Any) -> None:
        """Whether `.grad` is what came since the update before; weights are kept, since values must not move."""
        own = {id(p): name for name, p in self.parameters.items()}
        tensors = [p for group in optimiser.param_groups for p in group["params"]]
        if self.probe is not None:
            self.shut = self.probe.closed()
            self.shut.__enter__()
        self.kept = [(p, p.detach().clone()) for p in tensors]
        for p in tensors:
            name = own.get(id(p))
            if name in self.older and name in self.fresh and p.grad is not None:
                both = self.fresh[name] + self.older[name]
                if not _along(p.grad, self.fresh[name]) and _along(p.grad, both):
                    self.stale.setdefault(name, line())

    def after_update(self, *_: Any) -> None:
        """The weights as before."""
        with torch.no_grad(), torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            for p, before in self.kept:
                p.data.copy_(before)
        for name, g in self.fresh.items():
            self.older[name] = g + self.older.get(name, torch.zeros_like(g))
        self.kept, self.fresh = [], {}
        if self.probe is not None:
            self.shut.__exit__(None, None, None)


def _along(a: Tensor, b: Tensor) -> bool:
    """Whether one is the other, up to a factor as clipping has it."""
    size = float(a.norm() * b.norm())
    return size == 0 or float((a * b).sum()) > (1 - 1e-10) * size

"""Where tensors come from, as a tracer sees it: which are weights, which functions make weights of weights.

And how the tensors of a call are found and replaced, and which place a call has among all.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

PRODUCTS: Any = {
    torch.nn.functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mm, Tensor.mm,
    torch.bmm, Tensor.bmm, torch.mv, Tensor.mv, torch.addmm, Tensor.addmm, torch.baddbmm, torch.einsum,
}  # fmt: skip
MASKS: Any = {
    torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__, torch.div, Tensor.div,
    Tensor.__truediv__, Tensor.div_, torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_, torch.where,
    Tensor.where,
}  # fmt: skip
FLIPS: Any = {Tensor.t, torch.t, Tensor.T.__get__, Tensor.mT.__get__, Tensor.transpose, torch.transpose}  # type: ignore


class Source(NamedTuple):
    """Where a tensor comes from: a parameter, its transpose, or what was worked out from parameters alone.

    tensor: itself, or an `Entrance` to its graph.  name: of the parameter it is, or is the transpose of; else None.
    roots: names of the parameters it was worked out from; none for a constant.
    """

    tensor: Tensor
    name: str | None
    flipped: bool = False
    roots: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter behind it."""
        return self.roots if self.name is None else (self.name,)


class Entrance(torch.autograd.Function):
    """The graph of a tensor as it is now, whatever is written into the tensor later; no numbers are in it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """One element, seen as many."""
        return tensor.new_empty(()).expand(tensor.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        """As it comes."""
        return grad_outputs[0]


class Counter:
    """Places of calls, one after the other: (0,), (1,), …; those of a checkpoint that stands at (4,): (4, 0), (4, 1), …

    prefix: place of what they are in; None where they have been recorded before.
    """

    def __init__(self, prefix: tuple[int, ...] | None):
        self.prefix, self.count = prefix, 0

    def next(self) -> tuple[int, ...] | None:
        """The next place."""
        self.count += 1
        return None if self.prefix is None else (*self.prefix, self.count - 1)


def writes(func: Any) -> bool:
    """Whether a function writes into its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


def replaced(values: Any, by: dict[int, Tensor]) -> Any:
    """The same nest with some tensors replaced."""
    out = []
    for value in values:
        if id(value) in by:
            value = by[id(value)]
        elif isinstance(value, dict):
            value = dict(zip(value, replaced(list(value.values()), by), strict=True))
        elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            value = replaced(value, by)
        out.append(value)
    if isinstance(values, tuple):
        return type(values)(*out) if hasattr(values, "_fields") else tuple(out)
    return out

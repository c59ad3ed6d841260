"""What one call says of a parameter, while the graph is built and once the gradient has come.

A call whose operation is known leaves its factors: the input that it had, and the adjoint of its output, which a hook
on the output hands over. Of any other call a hook on the parameter's own alias hands over the gradient itself.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bptt.errors import InputError
from bptt.typing import Array
from bptt.uses import Elementwise, Linear, Matmul, Ready, Use


class Signal:
    """What comes back to one tensor: its adjoint, once; `times` says how often."""

    __slots__ = ("delta", "times")

    def __init__(self) -> None:
        self.delta: Tensor | None = None
        self.times = 0

    def take(self, delta: Tensor) -> None:
        """The adjoint has come."""
        self.delta = delta.detach()
        self.times += 1


SMALL = 8 << 10  # bytes of a tensor that is rather copied than kept where it lies


class Slab:
    """Memory in a few pieces for the many small tensors of a loop.

    One by one they would lie scattered among a backward pass's large ones, and leave holes in the heap that fit
    nothing: ten times the memory.
    """

    def __init__(self) -> None:
        self.pieces: dict[Any, tuple[Tensor, Iterator[Tensor]]] = {}

    def hold(self, a: Tensor) -> Tensor:
        """The same numbers: a copy of what is small."""
        if a.numel() * a.element_size() > SMALL:
            return a
        key = (a.shape, a.dtype, a.device)
        piece, places = self.pieces.get(key, (None, iter(())))
        place = next(places, None)
        if place is None:
            many = 8 if piece is None else min(2 * len(piece), 512)
            piece = torch.empty((many, *a.shape), dtype=a.dtype, device=a.device)
            places = iter(piece.unbind())
            self.pieces[key], place = (piece, places), next(places)
        return place.copy_(a.detach())


class Record(NamedTuple):
    """One call's use of a parameter.

    order: place among all calls.  kind: "linear", "matmul", "ids", "bias" or "ready".
    z: input of the call, None for a bias and for "ready".  signal: adjoint of its output, or the gradient itself.
    turned: whether rows and columns of the adjoint are exchanged.
    handle: the tensor that the signal belongs to, where every loss will be asked on its own; else None.
    source: what the handle is an alias of, where that was worked out from parameters.
    version: of z, which counts how often it was written into.
    """

    order: tuple[int, ...]
    kind: str
    z: Tensor | None
    signal: Signal
    turned: bool = False
    handle: Tensor | None = None
    source: Any = None
    version: int = 0


def version_of(tensor: Tensor | None) -> int:
    """How often a tensor was written into."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version


def check_version(name: str, z: Tensor | None, version: int) -> None:
    """Refuse an input that is no longer what it was.

    Raises:
        InputError: it was written into.
    """
    if version_of(z) != version:
        do = "Ask for trace.ledger before writing into it, or hand the model a copy."
        got = f"an input of {name} that was written into since"
        raise InputError("bptt.trace", got=got, expected="the numbers that the model saw", do=do)


def use_of(record: Record, delta: Tensor, losses: int = 0) -> Use:
    """The use as arrays: z (1, R, M) and δ (losses, 1, R, N)."""
    if record.kind == "ready":
        return Ready(to_array(delta.unsqueeze(losses)))
    delta = delta.mT if record.turned else delta
    d = to_array(delta.reshape(*delta.shape[:losses], 1, -1, delta.shape[-1]))
    if record.kind == "bias":
        return Elementwise(None, d)
    assert record.z is not None
    if record.kind == "ids":
        return Matmul(record.z.reshape(1, -1).cpu().numpy(), d)
    z = to_array(record.z.reshape(1, -1, record.z.shape[-1]))
    return Linear(z, d) if record.kind == "linear" else Matmul(z, d)


def to_array(a: Tensor) -> Array:
    """The same numbers as an array, without a copy where the memory can be shared; half precision becomes float32."""
    a = a.detach()
    if a.dtype in (torch.bfloat16, torch.float16):
        a = a.float()
    return a.cpu().resolve_conj().resolve_neg().numpy()

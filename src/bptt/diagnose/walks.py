"""Single losses, each walked back alone: several of them as further sequences of one batch.

L_k keeps the scale that it has in J: the weights of the whole loss stand in a mask, of which only step k is left.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt.engine import record
from bptt.engine.given import prepare
from bptt.engine.plan import Full
from bptt.ledger import Ledger
from bptt.ledger.recorder import delta_width
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array

GROUP_BYTES = 96 << 20  # δ of so many losses as fit in this are walked back together


class Walk(NamedTuple):
    """One loss walked back.

    step: k, from 0.  ledger: of several losses, each with its own B sequences.  rows: the sequences of this one.
    """

    step: int
    ledger: Ledger
    rows: slice


def weights_of(network: Network, batch: Batch, loss: Loss, states: States | None = None) -> Array:
    """w (T, B): what each ℓ counts in J, in float64, of a batch that was checked.

    Raises:
        ShapeError, InputError, NotFiniteError: as `bptt.gradient`.
    """
    prepare(network, batch, loss, Full(), states)
    return loss.weights(as_arrays(batch), network.width)


def as_arrays(batch: Batch) -> Batch:
    """The batch with arrays in all its fields."""
    optional = [None if part is None else np.asarray(part) for part in (batch.lengths, batch.mask)]
    return Batch(np.asarray(batch.x), np.asarray(batch.targets), *optional)


def walk_alone(
    network: Network, batch: Batch, loss: Loss, steps: Sequence[int] | Array, *, states: States | None = None,
    engine: str = "auto", keep: str = "factors",
) -> Iterator[Walk]:  # fmt: skip
    """Walk the losses at these steps (from 0) back, the latest first.

    Raises:
        ShapeError, InputError, NotFiniteError: as `bptt.gradient`.
    """
    batch = as_arrays(batch)
    weights, left = loss.weights(batch, network.width), sorted((int(k) for k in steps), reverse=True)
    summed, B = Loss(loss.kind, "sum", "all"), batch.x.shape[1]
    width = delta_width(network.shapes()) * network.dtype.itemsize
    while left:
        T = len(batch.x) if network.bidirectional else left[0] + 1  # what comes after it cannot be reached
        count = max(1, GROUP_BYTES // (width * B * T))
        group, left = left[:count], left[count:]
        ledger = record(
            network, _stacked(batch, weights, group, T), summed, states=_repeated(states, len(group)), keep=keep,
            engine=engine,
        )  # fmt: skip
        for i, step in enumerate(group):
            yield Walk(step, ledger, slice(i * B, (i + 1) * B))


def _stacked(batch: Batch, weights: Array, group: list[int], T: int) -> Batch:
    """The first T steps once for every loss of the group, side by side; each copy counts at its own step."""
    B, n = batch.x.shape[1], len(group)
    mask = np.zeros((T, n * B))
    for i, k in enumerate(group):
        mask[k, i * B : (i + 1) * B] = weights[k]
    x, targets = (np.tile(a[:T], (1, n, *[1] * (a.ndim - 2))) for a in (batch.x, batch.targets))
    lengths = None if batch.lengths is None else np.tile(np.minimum(batch.lengths, T), n)
    return Batch(x, targets, lengths, mask)


def _repeated(states: States | None, n: int) -> Any:
    if states is None:
        return None
    return {
        prefix: type(state)(*(np.tile(part, (n, 1)) for part in state)) if isinstance(state, tuple) else state
        for prefix, state in states.items()
    }

"""A batch made ready for any engine: checked, cleaned of its padding, and what a pass over it gives."""

from typing import Any, NamedTuple

import numpy as np

from bptt.engine.plan import Plan
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array, Params


class Pass(NamedTuple):
    """One forward and one backward pass.

    loss: J.  losses: (T,) L_k.  gradients: name → dJ/dW.  states: after the last step.
    dstates: prefix → dJ/ds_0, the gradient of the initial state.  dx: (T, B, D), None for ids and for Windowed.
    """

    loss: float
    losses: Array
    gradients: Params
    states: States
    dstates: States
    dx: Array | None


def valid_steps(batch: Batch) -> Array | None:
    """(T, B) whether a sequence still goes on; None where all have T steps."""
    T = len(batch.x)
    if batch.lengths is None or (np.asarray(batch.lengths) == T).all():
        return None
    return np.arange(T)[:, None] < np.asarray(batch.lengths)


def clean_inputs(x: Array, valid: Array | None, dtype: Any) -> Array:
    """The inputs in the network's dtype, with 0 after each sequence's end, so that padding cannot touch any number.

    They are the caller's own array where nothing has to be changed.
    """
    if x.dtype.kind not in "iu":
        x = x.astype(np.result_type(dtype, x.dtype) if x.dtype.kind == "c" else dtype, copy=False)
    return x if valid is None else np.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), x, x.dtype.type(0))


class Given(NamedTuple):
    """What an engine walks.

    network, loss, plan: as they were given.  T: steps.  B: sequences.
    valid: (T, B) whether a sequence still goes on, None for all.
    x: (T, B, D) in the network's dtype or ids (T, B), 0 after each sequence's end.
    targets, weights: (T, B, …) and (T, B) of the loss; targets are 0 where nothing counts.
    states: initial states.
    """

    network: Network
    loss: Loss
    plan: Plan
    T: int
    B: int
    valid: Array | None
    x: Array
    targets: Array
    weights: Array
    states: States


def prepare(network: Network, batch: Batch, loss: Loss, plan: Plan, states: States | None) -> Given:
    """The batch, checked.

    Raises:
        ShapeError, InputError, NotFiniteError: as `bptt.gradient`.
    """
    optional = [None if part is None else np.asarray(part) for part in (batch.lengths, batch.mask)]
    batch = Batch(np.asarray(batch.x), np.asarray(batch.targets), *optional)
    network.check_batch(batch)
    T, B = batch.x.shape[:2]
    states = network.check_states(states, B)
    valid = valid_steps(batch)
    weights = loss.weights(batch, network.width, np.empty(0, network.dtype).real.dtype)
    counted = weights != 0
    loss.check(batch, network.width, counted)
    targets = batch.targets
    if not counted.all():
        counted = counted.reshape(*counted.shape, *[1] * (targets.ndim - 2))
        targets = np.where(counted, targets, targets.dtype.type(0))
    if targets.dtype.kind == "f":
        targets = targets.astype(weights.dtype, copy=False)
    x = clean_inputs(batch.x, valid, network.dtype)
    return Given(network, loss, plan, T, B, valid, x, targets, weights, states)

"""The update attributed to the steps: which use moved the weights, after clipping, momentum and learning rate.

    ΔW = Σ_t S ∘ dW_t + carried + decay        share of step t = ⟨S ∘ dW_t, ΔW⟩ / ‖ΔW‖² = ⟨dW_t, S ∘ ΔW⟩ / ‖ΔW‖²

The shares of all steps, of what momentum carried in, and of weight decay sum to 1. A negative one worked against the
way the weights went.
"""

from dataclasses import dataclass

import numpy as np

from bptt.errors import NotKeptError
from bptt.ledger import Ledger, inner, matrices
from bptt.ledger.norms import norm, norms, pythagoras
from bptt.ledger.reductions import blocks, steps_of
from bptt.train.optimisers import ParameterUpdate, Scale, Update
from bptt.typing import Array
from bptt.uses import Use


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where one parameter's update came from.

    shares: (T,) of each step's use; they and the next two sum to 1, or all are 0 where nothing moved.
    carried: share of the momentum from earlier iterations.
    decay: share of weight decay.
    norms: (T,) ‖S ∘ dW_t‖, how far each use alone would have moved the weights.
    moved: ‖ΔW‖.
    """

    shares: Array
    carried: float
    decay: float
    norms: Array
    moved: float


def attribute(update: Update, ledger: Ledger) -> dict[str, Attribution]:
    """Name → where its update came from.

    Args:
        update: made from the gradients of the same pass that the ledger records.
        ledger: with factors.

    Raises:
        NotKeptError: the ledger kept norms only.
    """
    if not ledger.uses:
        raise NotKeptError("the shares of an update", got="norms only", do="Record with keep='factors' or 'full'.")
    return {name: _attribute(part, ledger.uses[name]) for name, part in update.parameters.items()}


def _attribute(part: ParameterUpdate, use: Use) -> Attribution:
    delta, scale = part.delta, part.scale
    largest = np.abs(delta).max(initial=0)
    norms = _scaled_norms(use, scale, delta.shape)
    if largest == 0:
        return Attribution(np.zeros(len(norms), delta.dtype), 0.0, 0.0, norms, 0.0)
    unit = delta / largest  # its square neither under- nor overflows
    squared = largest * np.square(unit).sum()
    shares = inner(use, np.broadcast_to(scale * unit, delta.shape)) / squared
    carried, decay = (float(np.sum(extra * unit) / squared) for extra in (part.carried, part.decay))
    return Attribution(shares, carried, decay, norms, norm(delta))


def _scaled_norms(use: Use, scale: Scale, shape: tuple[int, ...]) -> Array:
    """‖S ∘ dW_t‖ of every step: from factors where S is one number, else a block of full matrices at a time."""
    if np.ndim(scale) == 0:
        return abs(scale) * norms(use, shape)
    parts = [matrices(steps_of(use, block), shape) * scale for block in blocks(use, shape)]
    return np.concatenate([pythagoras(part.reshape(len(part), -1)) for part in parts])


__all__ = ["Attribution", "attribute"]

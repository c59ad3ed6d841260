"""Losses per step: J = Σ_k L_k, where L_k = Σ_b w[k, b] · ℓ(y[k, b], target[k, b]).

The weights w hold all that masks, lengths, "last step only" and the reduction have to say, so that the total is a plain
sum and every L_k is on the scale of J.

    cross_entropy    ℓ = log Σ_j e^{y_j} − y_target       dℓ/dy = softmax(y) − onehot(target)
    squared_error    ℓ = Σ_o (y_o − target_o)²            dℓ/dy = 2 (y − target)

With "mean", cross-entropy divides by the number of counted steps and squared error by the number of counted values
(steps × O), as PyTorch's losses do. A mask with values other than 0 and 1 weighs the steps, and "mean" divides by the
sum of the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bptt.errors import InputError, ShapeError, unknown
from bptt.model.batch import Batch
from bptt.model.network import require_finite
from bptt.typing import Array

REDUCTIONS = ("mean", "sum")
STEPS = ("all", "last")


class LossValue(NamedTuple):
    """What a loss says of the outputs: per_step (T,) L_k, and dy (T, B, O) = ∂J/∂y."""

    per_step: Array
    dy: Array


def cross_entropy(y: Array, targets: Array) -> tuple[Array, Array]:
    """ℓ (T, B) and dℓ/dy (T, B, O) of logits y (T, B, O) and integer classes targets (T, B).

    The largest logit is taken out before the exponential, by its real part, so that complex steps pass through.
    """
    shifted = y - y.real.max(-1, keepdims=True)
    exps = np.exp(shifted)
    sums = exps.sum(-1, keepdims=True)
    at_target = np.take_along_axis(shifted, targets[..., None], -1)
    dl = exps / sums
    np.put_along_axis(dl, targets[..., None], np.take_along_axis(dl, targets[..., None], -1) - 1, -1)
    return (np.log(sums) - at_target)[..., 0], dl


def squared_error(y: Array, targets: Array) -> tuple[Array, Array]:
    """ℓ (T, B) and dℓ/dy (T, B, O) of values y and targets, both (T, B, O)."""
    error = y - targets
    return (error * error).sum(-1), 2 * error


KINDS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "cross_entropy": cross_entropy,
    "squared_error": squared_error,
}


@dataclass(frozen=True)
class Loss:
    """A loss per step and how its terms are added.

    Args:
        kind: "cross_entropy" (nats) or "squared_error".
        reduction: "mean" over all counted steps of all sequences, or "sum".
        steps: "all", or "last": only the last step of each sequence.

    Raises:
        UnknownName: a kind, reduction or choice of steps that there is not.
    """

    kind: str = "cross_entropy"
    reduction: str = "mean"
    steps: str = "all"

    def __post_init__(self):
        for what, got, known in [
            ("loss", self.kind, tuple(KINDS)),
            ("reduction", self.reduction, REDUCTIONS),
            ("loss steps", self.steps, STEPS),
        ]:
            if got not in known:
                raise unknown(what, got, known)

    def weights(self, batch: Batch, outputs: int, dtype: np.dtype | type = np.float64) -> Array:
        """w (T, B): what each ℓ counts in J.

        Raises:
            InputError: every step is masked, so that there is no loss at all; negative or not finite mask values.
        """
        T, B = batch.x.shape[:2]
        if batch.mask is None and batch.lengths is None and self.steps == "all":
            counted = T * B * (outputs if self.kind == "squared_error" else 1)
            return np.full((T, B), 1 / counted if self.reduction == "mean" else 1, dtype)
        w = np.ones((T, B)) if batch.mask is None else np.array(batch.mask, np.float64)
        if not (np.isfinite(w).all() and (w >= 0).all()):
            raise InputError("mask", got="values below 0 or not finite", expected="weights of 0 or more")
        lengths = np.full(B, T) if batch.lengths is None else batch.lengths
        steps = np.arange(T)[:, None]
        w *= steps == lengths - 1 if self.steps == "last" else steps < lengths
        total = w.sum()
        if total == 0:
            raise InputError("loss", got="every step masked", expected="at least one step that counts")
        if self.reduction == "mean":
            w /= total * (outputs if self.kind == "squared_error" else 1)
        return w.astype(dtype)

    def evaluate(self, y: Array, targets: Array, weights: Array) -> LossValue:
        """L_k (T,) and ∂J/∂y (T, B, O) of outputs y (T, B, O), under weights (T, B) from `weights`.

        Steps with weight 0 are left out exactly, whatever stands there.
        """
        counted = weights != 0
        safe = np.where(counted[..., None], y, 0)
        values, dl = KINDS[self.kind](safe, targets)
        return LossValue((weights * values).sum(1), weights[..., None] * dl)

    def check(self, batch: Batch, outputs: int, counted: Array | None = None) -> None:
        """Raise an error if the targets do not fit outputs of width O = `outputs`.

        counted: (T, B) where a target is used, None for everywhere; elsewhere it may be anything.

        Raises:
            ShapeError: shape or dtype.  InputError: a class out of range.  NotFiniteError: NaN or infinity.
        """
        (T, B), targets = batch.x.shape[:2], batch.targets
        if self.kind == "cross_entropy":
            if targets.shape != (T, B) or targets.dtype.kind not in "iu":
                got = f"shape {targets.shape} of {targets.dtype}"
                raise ShapeError("targets of cross-entropy", got=got, expected=f"integers (T, B) = {(T, B)}")
            used = targets if counted is None else targets[counted]
            low, high = int(used.min()), int(used.max())
            if low < 0 or high >= outputs:
                got = f"class {low if low < 0 else high}"
                raise InputError("targets of cross-entropy", got=got, expected=f"0 to {outputs - 1}")
        elif targets.shape != (T, B, outputs):
            expected = f"(T, B, O) = {(T, B, outputs)}"
            raise ShapeError("targets of squared error", got=f"shape {targets.shape}", expected=expected)
        require_finite(targets, "targets", counted)

"""Clipping: what the loss produced, cut to what the optimiser may see.

    by global norm    g ← g · min(1, c / ‖g‖), ‖g‖ over all parameters together (Pascanu, Mikolov, Bengio 2013)
    by value          g ← min(max(g, −c), c), element by element

The numbers are those of torch.nn.utils.clip_grad_norm_ and clip_grad_value_, with torch's ε = 1e-6 beside the norm.
"""

from dataclasses import dataclass, field

import numpy as np

from bptt.errors import InputError, NotFiniteError
from bptt.ledger.norms import norm
from bptt.typing import Array, Params

EPSILON = 1e-6  # torch's


@dataclass(frozen=True, eq=False)
class Clipped:
    """What clipping does to one gradient.

    norm: ‖g‖ over all parameters, before clipping.
    factor: what the whole gradient is multiplied by: 1 where the norm is within the limit, or no norm is set.
    by_value: name → array of factors, one per element, for clipping by value; empty otherwise.
    clipped: whether anything was changed.
    """

    norm: float
    factor: float
    by_value: dict[str, Array] = field(default_factory=dict)
    clipped: bool = False

    def factor_of(self, name: str) -> Array | float:
        """The factor of one parameter: c with g = c ∘ dW."""
        return self.by_value.get(name, self.factor)

    def apply(self, gradients: Params) -> Params:
        """The clipped gradient; the arrays themselves where nothing changes."""
        if not self.clipped:
            return gradients
        return {name: g * self.factor_of(name) for name, g in gradients.items()}


@dataclass(frozen=True)
class Clip:
    """Limits for the gradient: of its global norm, or of each value.

    Args:
        norm: the largest ‖g‖, above 0; None for no limit.
        value: the largest |g_i|, above 0; None for no limit.

    Raises:
        InputError: a limit that is not above 0, or both at once.

    >>> Clip(norm=1.0).measure({"w": np.array([3.0, 4.0])}).norm
    5.0
    """

    norm: float | None = None
    value: float | None = None

    def __post_init__(self):
        for what, limit in (("clip norm", self.norm), ("clip value", self.value)):
            if limit is not None and not limit > 0:
                raise InputError(what, got=limit, expected="a number above 0", do="Leave it out for no clipping.")
        if self.norm is not None and self.value is not None:
            raise InputError("clip", got="a norm and a value", expected="one of the two")

    def measure(self, gradients: Params) -> Clipped:
        """The norm of a gradient and the factors that bring it within the limits; changes nothing.

        Raises:
            NotFiniteError: a norm that is NaN or infinite.
        """
        total = global_norm(gradients)
        if not np.isfinite(total):
            do = "The gradient explodes: lower the learning rate."
            raise NotFiniteError("gradient norm", got=total, expected="a finite number", do=do)
        if self.value is not None:
            factors = {name: _factors(g, self.value) for name, g in gradients.items()}
            return Clipped(total, 1.0, factors, any((f < 1).any() for f in factors.values()))
        factor = 1.0 if self.norm is None else min(1.0, self.norm / (total + EPSILON))
        return Clipped(total, factor, clipped=factor < 1)


def global_norm(gradients: Params) -> float:
    """‖g‖ over all parameters together, without under- or overflow."""
    return norm(np.array([norm(g) for g in gradients.values()]))


def _factors(g: Array, limit: float) -> Array:
    """The c with c ∘ g = g clipped to ±limit."""
    size = np.abs(g)
    return np.divide(limit, size, out=np.ones_like(g), where=size > limit)


__all__ = ["EPSILON", "Clip", "Clipped", "global_norm"]

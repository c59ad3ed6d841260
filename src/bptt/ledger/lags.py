"""How far back: the table C[k, t] by the lag between a loss and a use."""

from typing import NamedTuple

import numpy as np

from bptt.errors import InputError, ShapeError
from bptt.typing import Array


class LagProfile(NamedTuple):
    """lags: how many steps back, along the direction of the parameter.  values: Σ ‖C[k, t]‖ over k − t = lag."""

    lags: Array
    values: Array


def check_positions(loss_steps: Array, K: int) -> None:
    """Whether `loss_steps` says of each of K losses at which step it stands.

    Raises:
        ShapeError: it has another shape.  InputError: not whole numbers from 1 on.
    """
    if np.shape(loss_steps) != (K,):
        raise ShapeError("loss_steps", got=f"shape {np.shape(loss_steps)}", expected=f"(K,) = ({K},)")
    if np.asarray(loss_steps).dtype.kind not in "iu" or np.min(loss_steps, initial=1) < 1:
        raise InputError("loss_steps", got=np.asarray(loss_steps).tolist(), expected="whole numbers from 1 on")


def positions(loss_steps: Array | None, K: int, T: int) -> Array | None:
    """The use, from 1, beside which each loss stands, (K,); None where losses and T uses are not aligned."""
    if loss_steps is None:
        return np.arange(1, K + 1) if K == T else None
    return loss_steps if np.max(loss_steps, initial=1) <= T else None


def not_aligned(name: str, K: int, T: int, loss_steps: Array | None) -> InputError:
    """The error for lags that nobody can know."""
    losses, uses = "1 loss" if K == 1 else f"{K} losses", "1 use" if T == 1 else f"{T} uses"
    if loss_steps is None:
        do = "Say at which step each loss stands: at=…"
        return InputError(f"lags of {name}", got=f"{losses} and {uses}, which are not aligned", do=do)
    got = f"a loss at step {np.max(loss_steps)} and {uses}, which are not aligned"
    return InputError(f"lags of {name}", got=got, do="Ask for a parameter that is used at every step.")


def pairs(at: Array, T: int, lag: int, reverse: bool) -> tuple[Array, Array]:
    """Losses and steps that stand `lag` apart along the direction; all counted from 0, loss k beside use at[k]."""
    steps = at + lag if reverse else at - lag
    losses = np.flatnonzero((steps >= 0) & (steps < T))
    return losses, steps[losses]


def by_lag(table: Array, at: Array, lags: Array, reverse: bool) -> Array:
    """A map (K, T) as (K, lags), 0 where no step stands at that lag."""
    k = at[:, None]
    steps = k + lags if reverse else k - lags
    inside = (steps >= 0) & (steps < table.shape[1])
    return np.where(inside, np.take_along_axis(table, np.where(inside, steps, 0), 1), 0)

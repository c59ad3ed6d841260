"""An independent look at a gradient: the complex-step derivative along a random direction (Squire & Trapp 1998)."""

import numpy as np

from bptt.engine.plan import Full
from bptt.engine.reference import Run
from bptt.ledger.norms import norm
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Params

STEP = 1e-30  # no difference is taken, so nothing cancels however small the step


def check_gradient(
    network: Network, batch: Batch, loss: Loss, gradients: Params, *, states: States | None = None, seed: int = 0
) -> float:
    """Relative error of ⟨dJ/dW, V⟩ against the derivative of the forward pass alone, V random over all parameters.

    One forward pass in complex128; the backward code has no part in it. V is larger for a parameter whose gradient is
    small, so that a wrong gradient of a bias is seen beside that of a matrix (down to a hundredth of the whole).

    Args:
        network, batch, loss, states: of the pass that gave the gradients.
        gradients: name → dJ/dW, what is checked.
        seed: of V.

    Returns:
        About 1e-15 for a float64 gradient of Full or Checkpointed, 1e-7 in float32; the truncation bias along V for
        Chunked and Windowed, which leave terms out.

    Raises:
        ShapeError, InputError, NotFiniteError: as `gradient`.
    """
    rng = np.random.default_rng(seed)
    sizes = {name: norm(np.asarray(gradients[name], float)) for name in network.params}
    whole = norm(np.array(list(sizes.values()))) or 1.0
    V = {
        name: rng.standard_normal(value.shape) / max(sizes[name] / whole, 1e-2)
        for name, value in network.params.items()
    }
    moved = network.astype(np.complex128)
    for name in moved.params:
        moved.params[name] += 1j * STEP * V[name]
    slope = float(Run(moved, batch, loss, Full(), states).losses.imag.sum() / STEP)
    ours = float(sum(np.sum(gradients[name] * V[name]) for name in V))
    return abs(ours - slope) / (whole * len(V) ** 0.5)

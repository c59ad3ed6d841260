"""How far back the gradient really reaches: the truncation bias and the horizon, exact, from a ledger's contributions.

    b(K) = ‖dW_K − dW‖ / ‖dW‖,   dW_K = Σ C[k, t] over lags below K      (relative bias, Aicher et al. 2019)

dW_K is what `Windowed(K)` gives in a causal network: every loss reaches its own step and the K − 1 before it.
"""

import numpy as np

from bptt.errors import InputError
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.typing import Array


def truncation_bias(ledger: Ledger, name: str) -> Array:
    """b(K) of one parameter for K = 1…T, (T,), T its uses; b(T) is 0. All zero where there is no gradient.

    Args:
        ledger: recorded with keep="full".
        name: the parameter.

    Raises:
        NotKeptError: the ledger has no contributions.
        InputError: the ledger's own pass was truncated, or nothing says at which step each loss stands.
        UnknownName: no such parameter.
    """
    plan = ledger.meta.get("plan", "Full()")
    if not plan.startswith(("Full", "Checkpointed", "autograd")):
        do = "A truncated pass cannot say what it leaves out: record with plan=Full() or Checkpointed()."
        raise InputError("truncation bias", got=f"a ledger under {plan}", expected="the whole gradient", do=do)
    dW = norm(ledger.gradient(name))
    ledger.loss_positions(name)  # whether there are lags at all
    lags = ledger.lags(name)
    bias = np.zeros(ledger.steps(name))
    if dW == 0:
        return bias
    beyond = np.zeros_like(ledger.gradient(name))  # Σ of the contributions with lag K and more
    for K in range(len(bias) - 1, 0, -1):
        beyond += ledger.lag_gradient(name, K)
        if lags[0] < 0:
            beyond += ledger.lag_gradient(name, -K)
        bias[K - 1] = norm(beyond) / dW
    return bias


def horizon(ledger: Ledger, name: str, tolerance: float = 0.01) -> int:
    """The smallest K from which on b(K) stays within the tolerance: how many steps back the gradient really reaches.

    1 means that only the loss's own step counts; T, that the whole sequence does (a longer one might reach further).

    Args:
        ledger: recorded with keep="full".
        name: the parameter.
        tolerance: ε, the bias that is let pass.

    Raises:
        InputError: a tolerance that is not above 0.
        NotKeptError, UnknownName: as `truncation_bias`.
    """
    if not tolerance > 0:
        raise InputError("tolerance", got=tolerance, expected="a number above 0")
    beyond = np.flatnonzero(truncation_bias(ledger, name) > tolerance)
    return int(beyond[-1]) + 2 if len(beyond) else 1

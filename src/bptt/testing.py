"""For other people's test suites: a model whose gradient does not reach back fails a test.

>>> import torch
>>> assert_reaches(torch.nn.GRU(2, 8), lag=10)
"""

from typing import Any

from bptt import trace
from bptt.errors import InputError


def assert_reaches(model: Any, lag: int = 50, x: Any = None, losses: Any = None, *, step: Any = None) -> None:
    """Fail unless the gradient of a model is right and reaches so many steps back.

    Args:
        model: a torch.nn.Module.
        lag: steps between a loss and a use that it has to reach.
        x: the model's batch, of more than `lag` steps; made for models that begin with an embedding, a recurrent layer
            or cell, or a linear layer.
        losses: as in `bptt.audit`.
        step: a training step, as in `bptt.audit`.

    Raises:
        AssertionError: it does not; says where it ends.
        InputError: no batch can be made, or `lag` is none.
    """
    if lag < 1:
        raise InputError("lag", got=lag, expected="at least 1")
    room = trace.adapter(model)
    found = room.audit(model, room.make_batch(model, lag + 4) if x is None else x, losses, step=step)
    wrong = [f for f in found.findings if not (f.code == "BPA103" and found.reach >= lag)]
    if wrong:
        one = wrong[0]
        border = "" if one.border is None else f" from (k, t) = {one.border}"
        at = "" if one.line is None else f" at {one.line}"
        more = "" if one.cause is None else f" ({one.cause})"
        raise AssertionError(
            f"{one.code} {one.name}{border}{at}{more}: {one.says}; the gradient reaches {found.reach} steps back, "
            f"expected {lag}. {one.do}"
        )
    if found.reach < lag:
        why = f"values reach {found.values_reach}, in {found.T} steps"
        raise AssertionError(f"the gradient reaches {found.reach} steps back, expected {lag}: {why}")

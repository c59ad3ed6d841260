"""One training step of somebody's model, traced: with the map and what the horizon needs, where they are to be had.

What a loss at every step allows is decided after the forward pass, when it is known how many losses and uses there are.
"""

from typing import Any, NamedTuple

from torch import Tensor

from bptt.errors import BpttError, InputError
from bptt.ledger import Ledger
from bptt.trace.torch.factory import Given, call, default_losses
from bptt.trace.torch.returned import times
from bptt.trace.torch.tracing import Trace

FULL_BYTES = 1 << 30  # of a ledger that holds δ for every pair of loss and step
MAP_STEPS = 128  # a map walks back once for every loss
PROBE = "outputs of every step, weighted by fixed random numbers: a probe, since the factory gave no losses"


class Step(NamedTuple):
    """ledger: of the step.  note: why it has no map, or "" where it has one."""

    ledger: Ledger
    note: str


def one_step(given: Given, what: str, *, map: bool | None = None, engine: str = "auto") -> Step:
    """Trace one forward and backward pass, or the training step that a factory gave.

    Args:
        given: what the factory returned.
        what: how errors name it.
        map: whether each loss is asked on its own; None for where there is one per step, up to MAP_STEPS of them.
        engine: as in `bptt.trace`.

    Raises:
        InputError: no batch, the model or its losses raised, there are no losses of every step for a map that was asked
            for, or what `bptt.trace` refuses.
    """
    if given.step is not None:
        if map:
            do = "Return losses in place of step."
            raise InputError("--map", got=f"{what} with a step of its own", expected="losses of every step", do=do)
        step = given.step
        with Trace(given.model, keep="factors", map=False, engine=engine, scaler=None) as trace:
            _theirs(f"step of {what}", lambda: step(given.model, given.batch))
        _check_shared(trace, what)
        return Step(trace.ledger, "no map: the factory gives a whole step. Return losses(outputs) instead to see one.")
    if given.batch is None:
        raise InputError(what, got="a model without a batch", expected="(model, batch) or (model, batch, losses)")
    trace = Trace(given.model, keep="factors" if map is False else "full", map=False, engine=engine, scaler=None)
    with trace:
        outputs = _theirs(f"model of {what}", lambda: call(given.model, given.batch))
        losses = _losses(given, outputs, what, _uses(trace))
        note = _walk_back(trace, losses, map, what)
    _check_shared(trace, what)
    ledger = trace.ledger
    if given.losses is None:
        ledger.meta["loss"] = PROBE
    return Step(ledger, note)


def _check_shared(trace: Trace, what: str) -> None:
    """Raises where a model has uses, and one at most of every parameter."""
    if _uses(trace) == 1 and not trace.tracer.walks:
        expected = "a recurrent model, or one that shares weights some other way"
        raise InputError(what, got="no parameter that is used more than once", expected=expected)


def _theirs(what: str, program: Any) -> Any:
    """What somebody's program returns; what it raises as one line."""
    try:
        return program()
    except BpttError:
        raise
    except Exception as error:
        text = (" ".join(str(error).split()) or "without a word")[:200]
        raise InputError(what, got=f"it raised {type(error).__name__}: {text}") from error


def _losses(given: Given, outputs: Any, what: str, T: int) -> Tensor:
    """(K,) losses; a single one is (1,)."""
    if given.losses is None:
        return default_losses(outputs, T, any(getattr(m, "batch_first", False) for m in given.model.modules()))
    of = given.losses
    losses = _theirs(f"losses of {what}", lambda: of(outputs))
    if not isinstance(losses, Tensor) or losses.dim() > 1 or not losses.is_floating_point():
        got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise InputError(
            f"losses of {what}", got=got, expected="(K,) losses, or one", do="Add up over the batch first."
        )
    if not losses.requires_grad:
        do = "Compute them from the outputs, without detach() or item()."
        raise InputError(f"losses of {what}", got="numbers without a graph", expected="losses of the outputs", do=do)
    return losses.reshape(-1)


def _walk_back(trace: Trace, losses: Tensor, map: bool | None, what: str) -> str:
    """The backward pass; returns why there is no map."""
    K, T = len(losses), _uses(trace)
    if map and K == 1:
        raise InputError("--map", got="one loss", expected=f"losses(outputs) of {what} to return one for each step")
    wanted = map if map is not None else 1 < K == T <= MAP_STEPS
    if not wanted:
        _expect_no_map(trace)
        _theirs(f"backward pass of {what}", lambda: losses.sum().backward())
        return "" if map is False else _why(K, T)
    if K != T or _bytes(trace, K) > FULL_BYTES:
        trace.tracer.keep = "factors"
    try:
        _theirs(f"backward pass of {what}", lambda: trace.backward(losses))
    except InputError as error:
        if map or times(trace.tracer):  # asked for, or failed in the sum's own pass
            raise
        _expect_no_map(trace)
        _theirs(f"backward pass of {what}", lambda: losses.sum().backward())
        return f"no map: the losses cannot be asked one by one ({str(error.got).removeprefix('it raised ')})."
    if K != T:
        return f"no horizon: {K} losses and {T} uses are not aligned."
    return (
        ""
        if trace.tracer.keep == "full"
        else f"no horizon: {K} × {T} contributions take too much memory. Use fewer sequences."
    )


def _expect_no_map(trace: Trace) -> None:
    """The losses go back together, whatever was prepared for."""
    trace.map, trace.tracer.keep = False, "factors"


def _why(K: int, T: int) -> str:
    if K == 1:
        return "no map and no horizon: one loss. See how far back it reaches with losses(outputs) of every step."
    if not T:
        return "no map: a checkpoint with reentry builds its graph on the way back only. Say use_reentrant=False."
    if K != T:
        return f"no map: {K} losses and {T} uses. Add --map to see what each loss says."
    return f"no map: {T} steps are many. Add --map for one all the same."


def _uses(trace: Trace) -> int:
    """T: the most uses that a parameter has so far."""
    found = {name: len(records) for name, records in trace.tracer.records.items()}
    for walk in trace.tracer.walks:
        for source in walk.sources.values():
            for name in source.names:
                found[name] = found.get(name, 0) + walk.T
    return max(found.values(), default=0)


def _bytes(trace: Trace, K: int) -> int:
    """About what δ takes for K losses, or dW_t where the operation is not known."""
    tracer, numbers = trace.tracer, 0
    for name, records in tracer.records.items():
        for record in records:
            ready = record.kind == "ready" or record.handle is None
            numbers += tracer.parameters[name].numel() if ready else record.handle.numel()  # type: ignore[union-attr]
    for walk in tracer.walks:
        numbers += walk.T * walk.B * max((source.tensor.shape[0] for source in walk.sources.values()), default=0)
    return K * numbers * 4

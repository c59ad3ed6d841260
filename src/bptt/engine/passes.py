"""What is asked of an engine: a training step, the same step with a ledger, or the way forward alone.

Two engines give the same numbers: "reference" is NumPy and one Python loop over time, to be read; "compiled" hands
whole sequences to machine code, and needs the extra `fast`. "auto" takes the compiled one where it is installed.
"""

import contextlib
import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bptt.cells import GRU, LSTM, RNN
from bptt.engine.cores import thread_count
from bptt.engine.given import Pass, clean_inputs, prepare, valid_steps
from bptt.engine.plan import Checkpointed, Plan, as_plan
from bptt.engine.reference import Run
from bptt.engine.reference.walk import forward
from bptt.errors import InputError, MissingExtra, NotFiniteError, unknown
from bptt.ledger import Ledger, Place, Recorder
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array

ENGINES = ("auto", "reference", "compiled")
CELLS = (RNN, GRU, LSTM)  # what it has kernels of
GATED = ("W_xh", "W_hh", "b")  # whose columns are a cell's gates
NOT_THERE = "no numba"
REAL = (np.dtype(np.float32), np.dtype(np.float64))  # what the compiled engine computes in


def choose_engine(engine: str, dtype: Any = np.float64, cell: Any = None) -> str:
    """The engine that runs when this one is asked for, for a network of this dtype and cell.

    Raises:
        UnknownName: there is none of that name.  MissingExtra: "compiled" without the extra `fast`.
        InputError: "compiled" for anything but float32 and float64, or for a cell of your own.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine == "reference":
        return engine
    missing, real, known = _missing(), np.dtype(dtype) in REAL, cell is None or type(cell) in CELLS
    if engine == "compiled" and missing:
        upgrade = "" if missing == NOT_THERE else "--upgrade "
        raise MissingExtra("engine 'compiled'", got=missing, do=f"pip install {upgrade}'bptt[fast]'")
    if engine == "compiled" and not real:
        raise InputError("engine 'compiled'", got=np.dtype(dtype), expected="float32 or float64")
    if engine == "compiled" and not known:
        raise InputError("engine 'compiled'", got=f"the cell {type(cell).__name__}", expected="RNN, GRU or LSTM")
    return "compiled" if real and known and not missing else "reference"


@functools.cache
def _missing() -> str | None:
    """What the compiled engine lacks here, None for nothing; a numba that does not load is told of, once."""
    if importlib.util.find_spec("numba") is None:
        return NOT_THERE
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "a numba that NUMBA_DISABLE_JIT switches off"
    try:
        importlib.import_module("bptt.engine.compiled")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = f"a numba that does not load ({str(error).splitlines()[0]})"
        warnings.warn(f"bptt runs on its reference engine: {reason}", RuntimeWarning, stacklevel=2)
        return reason
    return None


def _passed(
    engine: str, threads: int | None, given: tuple[Any, ...], do: Callable[[Any], Any], own: bool = False
) -> Any:
    """What `do` makes of a forward pass; where a number is not finite, the reference says which and where.

    own: whether the inputs are kept, so that they must not be the caller's array.
    """
    if threads is not None:
        thread_count(threads)
    if choose_engine(engine, given[0].dtype, given[0].cell) == "reference":
        return do(Run(*given))
    from bptt.engine.compiled import Run as CompiledRun
    from bptt.engine.compiled import Unfinished

    ready = prepare(*given)
    try:
        with np.errstate(all="ignore"):  # what overflows is looked for, and named
            return do(CompiledRun(ready._replace(x=ready.x.copy()) if own else ready, thread_count(threads)))
    except Unfinished:
        Run(*given).gradient()
        got, do_this = "overflow in the compiled engine alone", "Clip the gradient, or lower the learning rate."
        raise NotFiniteError("loss or gradient", got=got, expected="finite numbers", do=do_this) from None


def evaluate(
    network: Network, batch: Batch, loss: Loss, states: States | None = None, *, engine: str = "auto",
    threads: int | None = None,
) -> tuple[Array, States]:  # fmt: skip
    """Losses per step (T,) and the states after the last step; forward only, in the memory of √T tapes.

    Raises:
        ShapeError, InputError, NotFiniteError: as `gradient`.
    """
    given = (network, batch, loss, Checkpointed(), states)
    return _passed(engine, threads, given, lambda run: (run.losses, run.states))


def predict(
    network: Network, x: Array, lengths: Array | None = None, states: States | None = None, *, engine: str = "auto",
    threads: int | None = None,
) -> tuple[Array, States]:  # fmt: skip
    """Outputs y (T, B, O) and the states after the last step; 0 after a sequence's end where there is no readout.

    Args:
        network: the network.
        x: (T, B, D), or ids (T, B).
        lengths: (B,) steps of each sequence.
        states: initial states, zeros by default.
        engine, threads: as `gradient`.

    Raises:
        ShapeError, InputError, NotFiniteError: x, lengths or states do not fit the network, or hold NaN.
    """
    if threads is not None:
        thread_count(threads)
    x = np.asarray(x)
    blank = Batch(x, np.zeros(x.shape[:2], int), None if lengths is None else np.asarray(lengths))
    network.check_batch(blank)
    T, B = x.shape[:2]
    states, valid, every = network.check_states(states, B), valid_steps(blank), Checkpointed().steps(T)
    x = clean_inputs(x, valid, network.dtype)
    if choose_engine(engine, network.dtype, network.cell) == "compiled":
        from bptt.engine.compiled import outputs

        return outputs(network, x, states, valid, every, thread_count(threads))
    with np.errstate(all="ignore"):  # what overflows is infinite in y, for the caller to see
        stretch = forward(network, x, states, valid, every=every)
    return stretch.y, stretch.states


def gradient(
    network: Network, batch: Batch, loss: Loss, *, plan: Plan | str | None = None, states: States | None = None,
    engine: str = "auto", threads: int | None = None, dx: bool = True,
) -> Pass:  # fmt: skip
    """J, its gradient by every parameter and by the initial state, by explicit backpropagation through time.

    Args:
        network: the network.
        batch: B sequences of up to T steps.
        loss: what is minimised.
        plan: how to walk back, or its name ("chunked:20"); Full() by default.
        states: initial states, prefix of the scan → state with parts (B, S); zeros by default.
        engine: "auto", "reference" or "compiled" (needs the extra `fast`); they give the same numbers.
        threads: of the compiled engine; one per core by default, or what the environment variable BPTT_THREADS says.
            The numbers do not depend on it.
        dx: whether ∂J/∂x is wanted, which is one more product.

    Raises:
        ShapeError: the batch or the states do not fit the network.
        InputError: ids or classes out of range; every step masked; threads below 1.
        NotFiniteError: NaN or infinity in the data, the state, the loss or the gradient, with step and tensor.
        UnknownName, MissingExtra: an engine that there is not, or that is not installed.

    Source: Werbos 1990.
    """
    return _passed(engine, threads, (network, batch, loss, as_plan(plan), states), lambda run: run.gradient(dx))


def record(
    network: Network, batch: Batch, loss: Loss, *, plan: Plan | str | None = None, states: States | None = None,
    keep: str = "factors", map: bool = False, shares: bool = False, source: str = "bptt", engine: str = "auto",
    threads: int | None = None,
) -> Ledger:  # fmt: skip
    """The same pass with its ledger: every use of every parameter, and what each contributes.

    Args:
        network, batch, loss, plan, states, engine, threads: as `gradient`.
        keep: "factors" (z and δ of every use), "norms" (T numbers per parameter, no factor), or "full" (factors for
            every loss on its own, so that C[k, t] can be had as an array).
        map: whether to measure ‖C[k, t]‖, which walks back once for all losses together; "full" implies it.
        shares: whether to measure the shares at once; a ledger with factors can also work them out when asked.
        source: what the ledger says it came from.

    Raises:
        As `gradient`; InputError too for an unknown `keep` or a "full" ledger that would not fit in memory.
    """

    def make(shapes: dict[str, tuple[int, ...]], T: int, B: int, dtype: Any) -> Recorder:
        return Recorder(shapes, T, B, dtype, keep, map)

    return record_with(
        make, network, batch, loss, plan=plan, states=states, shares=shares, source=source, engine=engine,
        threads=threads, own=keep != "norms",
    )  # fmt: skip


def record_with(
    make: Callable[[dict[str, tuple[int, ...]], int, int, Any], Recorder], network: Network, batch: Batch, loss: Loss,
    *, plan: Plan | str | None = None, states: States | None = None, shares: bool = False, source: str = "bptt",
    engine: str = "auto", threads: int | None = None, own: bool = True,
) -> Ledger:  # fmt: skip
    """As `record`, with a recorder that keeps something else of the walks back.

    make: (shapes, T, B, dtype) → the recorder.  own: whether it keeps the inputs, which are then copied.
    """
    plan = as_plan(plan)
    shapes = {name: value.shape for name, value in network.params.items()}
    meta = {
        "source": source,
        "network": network.describe(),
        "engine": choose_engine(engine, network.dtype, network.cell),
        "gradient": "raw: before clipping and scaling",
        "loss": f"{loss.kind}, {loss.reduction}, {loss.steps} steps",
        "plan": repr(plan),
    }

    def ledger(run: Any) -> Ledger:
        recorder = make(shapes, run.T, run.B, network.dtype)
        done = run.record(recorder, shares)
        reverse = {scan.prefix: scan.reverse for scan in network.scans()}
        return recorder.ledger(done.losses, done.gradients, meta, _places(network), reverse)

    return _passed(engine, threads, (network, batch, loss, plan, states), ledger, own=own)


def _places(network: Network) -> dict[str, Place]:
    """Where each parameter stands; the readout works on no state."""
    places = dict.fromkeys(network.params, Place())
    for scan in network.scans():
        for name in network.cell.shapes(scan.inputs):
            gates = network.cell.gates if name in GATED else ()
            places[scan.prefix + name] = Place(scan.prefix, scan.reverse, gates)
    return places


def warm_up(network: Network, batch: Batch, loss: Loss, plan: Plan | str | None = None, engine: str = "auto") -> None:
    """Let an engine compile what a training step on such a batch needs, on two steps of it.

    Raises:
        ShapeError, InputError, UnknownName, MissingExtra: as `gradient`; what is not finite is left to the step.
    """
    with contextlib.suppress(NotFiniteError):
        if choose_engine(engine, network.dtype, network.cell) == "compiled":
            few = Batch(np.asarray(batch.x)[:2], np.asarray(batch.targets)[:2])
            gradient(network, few, loss, plan=plan, engine=engine, dx=False)

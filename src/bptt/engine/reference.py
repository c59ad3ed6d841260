"""The reference engine: NumPy, one Python loop over time, and the numbers that every faster engine must give.

`gradient` is a training step; `record` is the same step with a ledger; `evaluate` only walks forward.
"""

import numpy as np

from bptt.engine.plan import Checkpointed, Plan, as_plan
from bptt.engine.run import Pass, Run, clean_inputs, valid_steps
from bptt.engine.walk import forward
from bptt.ledger import Ledger, Recorder
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array


def evaluate(network: Network, batch: Batch, loss: Loss, states: States | None = None) -> tuple[Array, States]:
    """Losses per step (T,) and the states after the last step; forward only, in the memory of √T tapes.

    Raises:
        ShapeError, InputError, NotFiniteError: as `gradient`.
    """
    run = Run(network, batch, loss, Checkpointed(), states)
    return run.losses, run.states


def predict(
    network: Network, x: Array, lengths: Array | None = None, states: States | None = None
) -> tuple[Array, States]:
    """Outputs y (T, B, O) and the states after the last step; 0 after a sequence's end where there is no readout.

    Args:
        network: the network.
        x: (T, B, D), or ids (T, B).
        lengths: (B,) steps of each sequence.
        states: initial states, zeros by default.

    Raises:
        ShapeError, InputError, NotFiniteError: x, lengths or states do not fit the network, or hold NaN.
    """
    x = np.asarray(x)
    blank = Batch(x, np.zeros(x.shape[:2], int), None if lengths is None else np.asarray(lengths))
    network.check_batch(blank)
    T, B = x.shape[:2]
    states = network.check_states(states, B)
    valid = valid_steps(blank)
    with np.errstate(all="ignore"):  # what overflows is infinite in y, for the caller to see
        stretch = forward(network, clean_inputs(x, valid, network.dtype), states, valid, every=Checkpointed().steps(T))
    return stretch.y, stretch.states


def gradient(
    network: Network, batch: Batch, loss: Loss, *, plan: Plan | str | None = None, states: States | None = None
) -> Pass:
    """J, its gradient by every parameter and by the initial state, by explicit backpropagation through time.

    Args:
        network: the network.
        batch: B sequences of up to T steps.
        loss: what is minimised.
        plan: how to walk back, or its name ("chunked:20"); Full() by default.
        states: initial states, prefix of the scan → state with parts (B, S); zeros by default.

    Raises:
        ShapeError: the batch or the states do not fit the network.
        InputError: ids or classes out of range; every step masked.
        NotFiniteError: NaN or infinity in the data, the state, the loss or the gradient, with step and tensor.

    Source: Werbos 1990.
    """
    return Run(network, batch, loss, as_plan(plan), states).gradient()


def record(
    network: Network,
    batch: Batch,
    loss: Loss,
    *,
    plan: Plan | str | None = None,
    states: States | None = None,
    keep: str = "factors",
    map: bool = False,
    source: str = "bptt",
) -> Ledger:
    """The same pass with its ledger: every use of every parameter, and what each contributes.

    Args:
        network, batch, loss, plan, states: as `gradient`.
        keep: "factors" (z and δ of every use), "norms" (T numbers per parameter, no factor), or "full" (factors for
            every loss on its own, so that C[k, t] can be had as an array).
        map: whether to measure ‖C[k, t]‖, which walks back once for all losses together; "full" implies it.
        source: what the ledger says it came from.

    Raises:
        As `gradient`; InputError too for an unknown `keep` or a "full" ledger that would not fit in memory.
    """
    plan = as_plan(plan)
    run = Run(network, batch, loss, plan, states)
    recorder = Recorder(
        {name: value.shape for name, value in network.params.items()}, run.T, run.B, network.dtype, keep, map
    )

    done = run.record(recorder)
    meta = {
        "source": source,
        "network": network.describe(),
        "engine": "reference",
        "gradient": "raw: before clipping and scaling",
        "loss": f"{loss.kind}, {loss.reduction}, {loss.steps} steps",
        "plan": repr(plan),
    }
    return recorder.ledger(
        done.losses, done.gradients, meta, network.cell.gates, {s.prefix: s.reverse for s in network.scans()}
    )

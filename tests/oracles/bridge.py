"""A problem as `bptt` takes it. The only file here that imports the package under test."""

import numpy as np

from bptt.cells import make_cell
from bptt.engine import Chunked, Full, Windowed, gradient, predict, record
from bptt.model import Batch, Loss, Network

ENGINES = ("reference", "compiled")


def network_of(problem, dtype=np.float64):
    cell = make_cell(problem.kind, problem.hidden, **problem.options)
    params = {name: value.astype(dtype) for name, value in problem.params.items()}
    return Network(cell, problem.inputs, problem.outputs, problem.layers, problem.bidirectional, params)


def batch_of(problem):
    return Batch(problem.x, problem.targets, problem.lengths, problem.mask)


def loss_of(problem):
    return Loss(problem.loss, problem.reduction, problem.steps)


def states_of(problem, dtype=np.float64):
    state = make_cell(problem.kind, problem.hidden, **problem.options).State
    return {prefix: state(*(part.astype(dtype) for part in parts)) for prefix, parts in problem.states.items()}


def plan_of(problem):
    return {"full": Full, "chunked": Chunked, "windowed": Windowed}[problem.cut[0]](*problem.cut[1:])


def call(problem, dtype=np.float64):
    """The positional and named arguments that `gradient` and `record` share."""
    arguments = (network_of(problem, dtype), batch_of(problem), loss_of(problem))
    return arguments, {"plan": plan_of(problem), "states": states_of(problem, dtype)}


def recorded(problem, dtype=np.float64, **options):
    """The ledger of a problem by the reference engine; `plan` and `engine` may be given in place of its own."""
    arguments, named = call(problem, dtype)
    return record(*arguments, **(named | {"keep": "full", "engine": "reference"} | options))


def everything(problem, dtype=np.float64, *, keep="full", plan=None, **options):
    """All numbers of a problem, by their kind and name: of a pass, of its ledger, and the outputs of the way forward.

    options: `engine`, `threads`. Shares are given as ⟨dW_t, dW⟩ / ‖dW‖, which is as large as a norm.
    """
    (network, batch, loss), named = call(problem, dtype)
    named |= options | ({} if plan is None else {"plan": plan})
    done = gradient(network, batch, loss, **named)
    ledger = record(network, batch, loss, keep=keep, map=True, shares=True, **named)
    y, after = predict(network, batch.x, batch.lengths, named["states"], **options)
    out = {("losses", ""): done.losses, ("losses", "of the ledger"): ledger.losses, ("outputs", ""): y}
    if done.dx is not None:
        out["dx", ""] = done.dx
    for kind, states in (("dstates", done.dstates), ("states", done.states), ("states", after)):
        out |= {(kind, f"{prefix}{i} {states is after}"): p for prefix, s in states.items() for i, p in enumerate(s)}
    for name in ledger.names:
        out |= {
            ("gradients", name): done.gradients[name],
            ("gradients", f"{name} of the ledger"): ledger.gradient(name),
        }
        out |= {("norms", name): ledger.norms(name), ("norms", f"{name} by sequence"): ledger.sequence_norms(name)}
        out |= {
            ("shares", name): ledger.shares(name) * np.linalg.norm(done.gradients[name]),
            ("map", name): ledger.map(name),
        }
        out |= {("steps", name): ledger.step_gradients(name)} if keep != "norms" else {}
        out |= {("contributions", name): ledger.contributions(name)} if keep == "full" else {}
    for prefix in ledger.states:
        out["carried", f"{prefix} norms"] = ledger.states[prefix]
        parts = ledger.state_parts[prefix] if keep != "norms" else ()
        out |= {("carried", f"{prefix}{i}"): part for i, part in enumerate(parts)}
    return out


def differences(ours, theirs):
    """Of two results of `everything`, kind → the largest difference, relative to the largest number of that kind."""
    assert ours.keys() == theirs.keys()
    largest, worst = {}, {}
    for key, value in theirs.items():
        assert ours[key].shape == value.shape, key
        assert ours[key].dtype == value.dtype, key
        assert np.isfinite(ours[key]).all(), key
        largest[key[0]] = max(largest.get(key[0], 0.0), np.abs(value).max(initial=0))
        worst[key[0]] = max(worst.get(key[0], 0.0), np.abs(ours[key].astype(np.float64) - value).max(initial=0))
    return {kind: worst[kind] / largest[kind] if largest[kind] > 0 else worst[kind] for kind in worst}


def error(ours, theirs, scale=None):
    """Largest error, relative to the largest number there is: of `theirs`, or of the terms `scale` it is a sum of."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"shape {ours.shape}, expected {theirs.shape}"
    largest = np.abs(theirs if scale is None else scale).max(initial=0)
    worst = np.abs(ours - theirs).max(initial=0)
    return worst / largest if largest > 0 else worst

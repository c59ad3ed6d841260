"""A problem as `bptt` takes it. The only file here that imports the package under test."""

import numpy as np

from bptt.cells import make_cell
from bptt.engine import Chunked, Full, Windowed, record
from bptt.model import Batch, Loss, Network


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
    """The ledger of a problem; `plan` may be given in place of the problem's own."""
    arguments, named = call(problem, dtype)
    return record(*arguments, **(named | {"keep": "full"} | options))


def error(ours, theirs, scale=None):
    """Largest error, relative to the largest number there is: of `theirs`, or of the terms `scale` it is a sum of."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"shape {ours.shape}, expected {theirs.shape}"
    largest = np.abs(theirs if scale is None else scale).max(initial=0)
    worst = np.abs(ours - theirs).max(initial=0)
    return worst / largest if largest > 0 else worst

"""Wrong versions of a module: its text with one thing changed, run as a module of its own."""

import functools
import inspect
import sys
import types

import numpy as np

from bptt.engine import passes
from oracles.bridge import batch_of, loss_of, network_of, plan_of, states_of
from oracles.untied import initial_state_gradient, input_gradient, losses, table

RED = 1e-5  # a mutation must move some number by at least this, relative to the largest of its kind; rounding is 1e-14


def mutated(module, old, new, count=1):
    """`module` with `old` replaced by `new`; `old` must stand there so many times, or the mutation would be stale."""
    text = inspect.getsource(module)
    assert text.count(old) == count, f"{old!r} stands {text.count(old)} times in {module.__name__}, expected {count}"
    copy = types.ModuleType(module.__name__ + "_mutated")
    copy.__file__, copy.__package__ = module.__file__, module.__package__
    sys.modules[copy.__name__] = copy  # dataclasses look their module up
    try:
        exec(compile(text.replace(old, new), f"{module.__file__} (mutated)", "exec"), copy.__dict__)
    finally:
        del sys.modules[copy.__name__]
    return copy


def unchanged(module):
    """`module` run from its text, as the mutated ones are."""
    return mutated(module, '"""', '"""', inspect.getsource(module).count('"""'))


@functools.cache
def expected(problem):
    """What the oracle says of a problem: every table, loss, initial state's gradient and, with a full plan, dx."""
    out = {"losses": losses(problem)[0].real} | {name: table(problem, name) for name in problem.params}
    for prefix in problem.states:
        for i, part in enumerate(initial_state_gradient(problem, prefix)):
            out[f"dstates {prefix}{i}"] = part
    if problem.x.ndim == 3 and problem.cut[0] == "full":
        out["dx"] = input_gradient(problem)
    return out


def worst_error(problem, *, cell=None, loss=None):
    """The largest relative error of anything the engine says of a problem, against the oracle."""
    network, batch, loss = network_of(problem), batch_of(problem), loss or loss_of(problem)
    network.cell = cell or network.cell
    named = {"plan": plan_of(problem), "states": states_of(problem)}
    if cell is not None:
        named["states"] = {prefix: cell.State(*parts) for prefix, parts in problem.states.items()}
    done, ledger = (
        passes.gradient(network, batch, loss, engine="reference", **named),
        passes.record(network, batch, loss, keep="full", engine="reference", **named),
    )
    found = {"losses": done.losses, "dx": done.dx} | {name: ledger.contributions(name) for name in problem.params}
    totals = {}
    for prefix, parts in done.dstates.items():
        found |= {f"dstates {prefix}{i}": part for i, part in enumerate(parts)}
    wanted = expected(problem)
    for name in problem.params:
        totals[name] = (done.gradients[name], wanted[name].sum((0, 1)), wanted[name])
        totals["steps " + name] = (ledger.step_gradients(name), wanted[name].sum(0), wanted[name])
    pairs = [(found[name], value, value) for name, value in wanted.items()] + list(totals.values())
    errors = [np.abs(ours - theirs).max() / max(np.abs(scale).max(), 1e-300) for ours, theirs, scale in pairs]
    return float(np.nan_to_num(max(errors), nan=np.inf))

"""Every line of the walk, the stack, the plans and the losses matters: with one thing wrong, some number is wrong."""

import functools
from unittest import mock

import numpy as np
import pytest

import bptt.engine.given as given
import bptt.engine.passes as passes
import bptt.engine.reference.run as run
import bptt.engine.reference.sums as sums
import bptt.engine.reference.walk as walk
import bptt.engine.stack as stack
import bptt.ledger.norms as norms
import bptt.ledger.recorder as recorder
import bptt.ledger.reductions as reductions
import bptt.model.losses as losses
from oracles.bridge import recorded
from oracles.mutate import RED, mutated, unchanged, worst_error
from oracles.problems import make_problem
from oracles.untied import table

RAGGED = {"T": 4, "B": 3, "D": 2, "lengths": (4, 2, 3), "layers": 2, "loss": "squared_error"}


@functools.cache
def problem_for(name):
    return make_problem(
        seed=5,
        **{
            "plain": {"cell": "lstm", "T": 4, "layers": 2, "loss": "squared_error"},
            "ragged": dict(cell="gru after", **RAGGED),
            "both directions": dict(cell="lstm", bidirectional=True, **RAGGED),
            "ids": {"cell": "gru before", "T": 4, "B": 3, "D": 2, "ids": True, "layers": 2},
            "chunked": dict(cell="gru after", cut=("chunked", 2), bidirectional=True, **RAGGED),
            "windowed": dict(cell="gru after", cut=("windowed", 2), bidirectional=True, **RAGGED),
            "causal window": {"cell": "lstm", "cut": ("windowed", 2), "T": 4, "layers": 2, "lengths": (4, 3)},
            "cross-entropy": {"cell": "rnn tanh", "T": 4, "O": 3, "mask": "weights", "reduction": "mean"},
            "classes, ragged": {"cell": "rnn tanh", "T": 4, "B": 3, "O": 3, "lengths": (4, 1, 2), "mask": "binary"},
            "last step": {
                "cell": "rnn tanh",
                "T": 4,
                "B": 3,
                "steps": "last",
                "lengths": (4, 2, 3),
                "loss": "squared_error",
            },
        }[name],
    )


WALK = {
    "forgotten carry forward": (
        "plain",
        "s, tape = self.step(t, s)\n            tapes",
        "_, tape = self.step(t, s)\n            tapes",
    ),
    "ended sequences go on": (
        "both directions",
        "np.where(live, a, b) for a, b in zip(new, s",
        "a for a, b in zip(new, s",
    ),
    "reverse walks forward": ("both directions", "range(n - 1, -1, -1) if reverse", "range(n) if reverse"),
    "swapped halves": (
        "both directions",
        "[..., width:] if reverse else dtop(t)[..., :width]",
        "[..., :width] if reverse else dtop(t)[..., width:]",
    ),
    "forgotten carry back": (
        "plain",
        "ds = ds._replace(h=ds.h + masked(dh(t), live))",
        "ds = ds._replace(h=masked(dh(t), live))",
    ),
    "forgotten output": (
        "plain",
        "ds = ds._replace(h=ds.h + masked(dh(t), live))",
        "ds = ds._replace(h=ds.h + 0 * masked(dh(t), live))",
    ),
    "ended sequences hand nothing on": (
        "both directions",
        "np.where(live, new, old) for new",
        "np.where(live, new, 0 * old) for new",
    ),
    "adjoint not masked": ("ragged", "tapes[t], _where(live, ds))", "tapes[t], type(ds)(*(part + 1 for part in ds)))"),
    "cut ignored": ("chunked", "ds = _where(kept, ds_prev)", "ds = ds_prev"),
    "cut one step off": ("chunked", "kept = keep(at, at + onward)", "kept = keep(at - onward, at)"),
    "window one step off": ("causal window", "kept = keep(at, at + onward)", "kept = keep(at, at)"),
    "padding cuts": ("chunked", "if kept is not None and valid is not None and", "if False and"),
    "directions not added": ("both directions", "dx[..., t, :, :] += dx_t", "dx[..., t, :, :] = dx_t"),
}

RUN = {
    "chunk one step off": ("chunked", "t // plan.K == to // plan.K or", "(t + 1) // plan.K == (to + 1) // plan.K or"),
    "initial state cut off a chunk": ("chunked", "or not 0 <= to < T else False", "else False"),
    "initial state cut off a window": ("windowed", "if 0 <= to < T else None", "if True else None"),
    "window one step too long": ("windowed", "np.abs(rows - to) < plan.K", "np.abs(rows - to) <= plan.K"),
    "window one step too short": ("causal window", "np.abs(rows - to) < plan.K", "np.abs(rows - to) < plan.K - 1"),
    "window without end": ("windowed", "np.abs(rows - to) < plan.K", "rows - to < plan.K"),
    "window backwards only": ("windowed", "np.abs(rows - to) < plan.K", "np.abs(to - rows + 0.5) < plan.K"),
    "readout transposed wrongly": ("plain", "reshape(-1, W.shape[1]) @ W.T)", "reshape(-1, W.shape[1]) @ W.T[::-1])"),
    "readout's use shifted": ("plain", "Matmul(stretch.top, dy)", "Matmul(np.roll(stretch.top, 1, 0), dy)"),
    "one loss for all": ("plain", "out[start + t - losses.start] = dtop[t]", "out[:] = dtop[t]"),
}

GIVEN = {
    "stale mask": (
        "both directions",
        "np.arange(T)[:, None] < np.asarray(batch.lengths)",
        "np.arange(T)[:, None] <= np.asarray(batch.lengths)",
    ),
    "no mask": ("both directions", "return np.arange(T)[:, None] < np.asarray(batch.lengths)", "return None"),
}

STACK = {
    "one step late": (
        "plain",
        "self.arrays[z][t - self.start] = part.z",
        "self.arrays[z][t - self.start - 1] = part.z",
    ),
    "deltas in the wrong row": (
        "plain",
        "into[first : first + len(delta), t] = delta",
        "into[first : first + len(delta), t] = delta[::-1]",
    ),
    "window keeps the last loss only": ("windowed", "into[t] += delta.sum(0)", "into[t] += delta[-1]"),
    "window overwrites": ("windowed", "into[t] += delta.sum(0)", "into[t] = delta.mean(0)"),
}

LOSSES = {
    "forgotten one-hot": (
        "cross-entropy",
        "np.take_along_axis(dl, targets[..., None], -1) - 1",
        "np.take_along_axis(dl, targets[..., None], -1)",
    ),
    "not normalised": ("cross-entropy", "dl = exps / sums", "dl = exps / (1 + sums)"),
    "missing factor 2": ("plain", "2 * error", "error"),
    "weights not in the gradient": ("cross-entropy", "weights[..., None] * dl", "dl / len(dl)"),
    "weights not in the value": ("cross-entropy", "(weights * values).sum(1)", "values.sum(1)"),
    "stale mask": (
        "classes, ragged",
        "w *= steps == lengths - 1 if self.steps",
        "1 * steps == lengths - 1 if self.steps",
    ),
    "length one too long": ("ragged", "steps < lengths", "steps <= lengths"),
    "last step one early": ("last step", "steps == lengths - 1", "steps == np.maximum(lengths - 2, 0)"),
    "mean over all steps": ("ragged", "w /= total * (outputs", "w /= T * B * (outputs"),
    "mean over steps, not values": ("plain", "T * B * (outputs if self.kind", "T * B * (1 if self.kind"),
    "mean over steps, not values, ragged": ("ragged", "total * (outputs if self.kind", "total * (1 if self.kind"),
    "ragged as if it were not": ("ragged", "and batch.lengths is None and", "and"),
    "last step as if it were all": ("last step", 'batch.lengths is None and self.steps == "all"', "True"),
    "masked as if it were not": ("cross-entropy", "batch.mask is None and", ""),
    "mask forgotten": ("cross-entropy", "if batch.mask is None else np.array(batch.mask, np.float64)", ""),
}


def test_the_engine_as_it_stands_is_green():
    for name in (
        "plain", "ragged", "both directions", "ids", "chunked", "windowed", "causal window", "cross-entropy",
        "classes, ragged", "last step",
    ):  # fmt: skip
        assert worst_error(problem_for(name)) < 1e-12, name
    with mock.patch.object(passes, "Run", unchanged(run).Run):
        assert worst_error(problem_for("windowed")) < 1e-12


@pytest.mark.parametrize("mutation", WALK)
def test_a_mutated_walk_is_red(mutation):
    name, *change = WALK[mutation]
    wrong = mutated(walk, *change)
    with mock.patch.multiple(run, forward=wrong.forward, back=wrong.back):
        assert worst_error(problem_for(name)) > RED


@pytest.mark.parametrize("mutation", RUN)
def test_a_mutated_engine_is_red(mutation):
    name, *change = RUN[mutation]
    with mock.patch.object(passes, "Run", mutated(run, *change).Run):
        assert worst_error(problem_for(name)) > RED


@pytest.mark.parametrize("mutation", GIVEN)
def test_a_batch_made_ready_wrongly_is_red(mutation):
    name, *change = GIVEN[mutation]
    with mock.patch.object(run, "prepare", mutated(given, *change).prepare):
        assert worst_error(problem_for(name)) > RED


@pytest.mark.parametrize(
    "change",
    [
        ("else type(ds)(*(a + b for a, b in zip(known, rows, strict=True)))", "else rows"),
        ("carries[losses.start] = carry", "pass"),
        ("carries.get(low)", "carries.get(low + 1)"),
        ("range(low, min(low + size, self.T))", "range(low, min(low + size, self.T - 1))"),
        ("self.plan.K - 1 if", "self.plan.K - 2 if"),
        ("ahead = 0 if causal else reach if self.valid is None else self.T", "ahead = 0"),
    ],
)
def test_a_mutation_of_the_groups_is_red(change):
    """Losses in several groups, and steps in several stretches."""
    wrong, red = mutated(run, *change).Run, []
    for name, plan in (("windowed", None), ("plain", passes.Checkpointed(2))):
        problem = problem_for(name)
        named = {"plan": plan} if plan else {}
        with mock.patch.object(run.Run, "group_size", return_value=2):
            right = recorded(problem, **named)
        with (
            mock.patch.object(wrong, "group_size", return_value=2),
            mock.patch.object(passes, "Run", wrong),
        ):
            ours = recorded(problem, **named)
        pairs = [(ours.contributions(n), right.contributions(n)) for n in right.names]
        pairs += [(ours.states[p], right.states[p]) for p in right.states]
        red.append(max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs))
    assert max(red) > RED


@pytest.mark.parametrize("mutation", STACK)
def test_a_mutated_stack_is_red(mutation):
    name, *change = STACK[mutation]
    with mock.patch.object(run, "Stack", mutated(stack, *change).Stack):
        assert worst_error(problem_for(name)) > RED


def test_a_ledger_that_loses_a_step_has_a_residual():
    """The engine adds the gradient up by itself, so that the ledger can be held against it."""
    problem = problem_for("plain")
    assert recorded(problem).residual < 1e-14
    lossy = mutated(stack, "into[t] = delta", "into[t] = delta if t != 1 else 0 * delta")
    with mock.patch.object(run, "Stack", lossy.Stack):
        for keep in ("factors", "norms", "full"):
            assert recorded(problem, keep=keep).residual > RED


def test_the_losses_of_a_window_add_up_in_what_the_state_carries():
    problem = problem_for("windowed")
    right = recorded(problem)
    wrong = mutated(recorder, "rows if known is None else [a + b for a, b in zip(known, rows, strict=True)]", "rows")
    with (
        mock.patch.object(run.Run, "group_size", return_value=2),
        mock.patch.object(passes, "Recorder", wrong.Recorder),
    ):
        ours = recorded(problem)
    worst = max(np.abs(ours.states[p] - right.states[p]).max() / right.states[p].max() for p in right.states)
    assert worst > RED


def errors_with(wrong, steps):
    """Worst errors of a windowed and a plain problem when `wrong` adds the gradient up, so many steps at a time."""
    with mock.patch.object(wrong, "STEPS", steps), mock.patch.object(run, "Sums", wrong.Sums):
        return [worst_error(problem_for(name)) for name in ("windowed", "plain")]


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_how_many_steps_are_added_at_once_changes_no_number(steps):
    assert max(errors_with(sums, steps)) < 1e-12


@pytest.mark.parametrize(
    "change",
    [
        ("a.sum(0) if lead", "a[0] if lead"),
        ("join([use.z for use in plain])", "join([use.z for use in plain[::-1]])"),
        ("self.sums[name] += part", "self.sums[name] = part.astype(float)"),
        ("for prefix in list(self.waiting):", "for prefix in list(self.waiting)[1:]:"),
    ],
)
def test_a_mutated_sum_is_red(change):
    try:
        red = max(errors_with(mutated(sums, *change), 3))
    except KeyError:  # a parameter without any sum at all
        red = np.inf
    assert red > RED


@pytest.mark.parametrize("mutation", LOSSES)
def test_a_mutated_loss_is_red(mutation):
    name, *change = LOSSES[mutation]
    problem = problem_for(name)
    wrong = mutated(losses, *change).Loss(problem.loss, problem.reduction, problem.steps)
    assert worst_error(problem, loss=wrong) > RED


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("plain", "inputs[part].T @ rows[part]", "inputs[part][::-1].T @ rows[part]"),
        ("ids", "out[ordered[starts]] =", "out[ordered[starts] - 1] ="),
        ("ids", "keys = (ids + M * np.arange(count)[:, None])", "keys = (ids + M * np.arange(count)[::-1, None])"),
        ("ids", "return np.concatenate([matrices(part,", "return np.concatenate([0 * matrices(part,"),
        ("plain", "np.swapaxes(use.z, -1, -2) @ use.delta", "np.swapaxes(use.z[::-1], -1, -2) @ use.delta"),
        ("plain", "(use.delta if use.z is None else use.z * use.delta).sum(-2)", "use.delta.mean(-2)"),
    ],
)  # fmt: skip
def test_a_mutated_reduction_is_red(name, old, new):
    problem, wrong = problem_for(name), mutated(reductions, old, new)
    ledger, worst = recorded(problem), 0
    for parameter in ledger.names:
        C, shape = table(problem, parameter), problem.params[parameter].shape
        use, of_losses = ledger.uses[parameter], ledger.loss_uses[parameter]
        pairs = [(wrong.total(use, shape), C.sum((0, 1))), (wrong.matrices(use, shape), C.sum(0))]
        pairs += [(wrong.matrices(of_losses, shape), C)]
        worst = max(worst, *(np.abs(ours - theirs).max() / np.abs(C).max() for ours, theirs in pairs))
    assert worst > RED


def test_a_norm_without_the_products_between_sequences_is_red():
    problem = make_problem("lstm", T=3, B=2, H=3)
    wrong = mutated(norms, '"...bc,...bc->...", zz, dd', '"...bb,...bb->...", zz, dd')
    use, shape = recorded(problem).uses["layer0.W_hh"], (3, 12)
    expected = np.sqrt(np.square(table(problem, "layer0.W_hh").sum(0)).sum((1, 2)))
    assert norms.norms(use, shape) == pytest.approx(expected, rel=1e-12)
    assert np.abs(wrong.norms(use, shape) / expected - 1).max() > RED

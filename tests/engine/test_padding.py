"""What stands after a sequence's end, or under a mask of 0, has no part in any number."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.engine import evaluate, gradient, predict
from bptt.errors import InputError, NotFiniteError
from oracles.bridge import batch_of, call, error, loss_of, network_of, recorded, states_of
from oracles.problems import changed, make_problem, problems

PLANS = ("full", "chunked", "windowed")


def everything(problem, engine):
    """All numbers of a pass and of its ledger."""
    arguments, named = call(problem)
    done, ledger = gradient(*arguments, engine=engine, **named), recorded(problem, engine=engine)
    out = {"losses": done.losses} | {f"gradient {name}": value for name, value in done.gradients.items()}
    out |= {f"dstates {prefix} {i}": part for prefix, parts in done.dstates.items() for i, part in enumerate(parts)}
    out |= {f"after {prefix} {i}": part for prefix, parts in done.states.items() for i, part in enumerate(parts)}
    for name in ledger.names:
        out |= {f"norms {name}": ledger.norms(name), f"map {name}": ledger.map(name)}
        out |= {f"sequences {name}": ledger.sequence_norms(name), f"C {name}": ledger.contributions(name)}
    return out


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def outside(problem):
    lengths = np.full(problem.B, problem.T) if problem.lengths is None else problem.lengths
    return np.arange(problem.T)[:, None] >= lengths


@given(problems(cuts=PLANS), st.sampled_from([np.nan, np.inf, -1e300]))
def test_garbage_in_padded_inputs_changes_nothing(engine, problem, garbage):
    padded = outside(problem)
    x = problem.x.copy()
    x[padded] = -7 if x.ndim == 2 else garbage
    assert_same(everything(problem, engine), everything(changed(problem, x=x), engine))


@given(problems(cuts=PLANS), st.sampled_from([np.nan, np.inf, -1e300]))
def test_garbage_in_uncounted_targets_changes_nothing(engine, problem, garbage):
    uncounted = outside(problem)
    if problem.mask is not None:
        uncounted = uncounted | (problem.mask == 0)
    targets = problem.targets.copy()
    targets[uncounted] = 99 if targets.ndim == 2 else garbage
    assert_same(everything(problem, engine), everything(changed(problem, targets=targets), engine))


@given(problems(cuts=PLANS), st.integers(1, 3))
def test_more_padding_changes_nothing(engine, problem, more):
    """Not even where a chunk ends, how far a window reaches, or the gradient of an initial state at the far end."""
    grow = lambda a: np.concatenate([a, np.zeros((more, *a.shape[1:]), a.dtype)])  # noqa: E731
    lengths = np.full(problem.B, problem.T) if problem.lengths is None else problem.lengths
    mask = None if problem.mask is None else grow(problem.mask)
    longer = changed(problem, x=grow(problem.x), targets=grow(problem.targets), lengths=lengths, mask=mask)
    arguments, named = call(problem)
    short = gradient(*arguments, engine=engine, **named)
    arguments, named = call(longer)
    long = gradient(*arguments, engine=engine, **named)
    scale = max(np.abs(value).max() for value in short.gradients.values())
    for name, value in short.gradients.items():
        assert np.abs(long.gradients[name] - value).max() <= 1e-13 * max(scale, 1e-300), name
    for which in ("dstates", "states"):
        for prefix, parts in getattr(short, which).items():
            for ours, theirs in zip(getattr(long, which)[prefix], parts, strict=True):
                assert np.abs(ours - theirs).max() <= 1e-13 * max(1, np.abs(theirs).max()), (which, prefix)
    assert not long.losses[problem.T :].any()


@given(problems(cuts=PLANS))
def test_a_step_with_weight_zero_has_a_row_of_exact_zeros(engine, problem):
    ledger = recorded(problem, engine=engine)
    weights = loss_of(problem).weights(batch_of(problem), problem.width)
    for k in np.flatnonzero(~weights.any(1)):
        assert ledger.losses[k] == 0
        for name in ledger.names:
            assert not ledger.contributions(name)[k].any(), name


@given(problems(cuts=PLANS))
def test_uses_after_the_end_of_every_sequence_are_exactly_zero(engine, problem):
    ledger = recorded(problem, engine=engine)
    for t in np.flatnonzero(outside(problem).all(1)):
        for name in ledger.names:
            assert not ledger.step_gradient(name, t + 1).any(), name
            assert ledger.norms(name)[t] == 0


@given(problems())
def test_a_batch_of_sequences_is_the_sum_of_each_alone(engine, problem):
    arguments, named = call(dataclasses.replace(problem, reduction="sum"))
    together, sums = gradient(*arguments, engine=engine, **named), {}
    for b in range(problem.B):
        L = problem.length(b)
        if problem.mask is not None and not problem.mask[:L, b].any():
            continue
        if problem.mask is not None and problem.steps == "last" and not problem.mask[L - 1, b]:
            continue
        alone = changed(
            problem,
            x=problem.x[:L, b : b + 1],
            targets=problem.targets[:L, b : b + 1],
            lengths=None,
            mask=None if problem.mask is None else problem.mask[:L, b : b + 1],
            states={prefix: tuple(part[b : b + 1] for part in parts) for prefix, parts in problem.states.items()},
            reduction="sum",
        )
        arguments, named = call(alone)
        done = gradient(*arguments, engine=engine, **named)
        for prefix, parts in done.states.items():
            for ours, theirs in zip(together.states[prefix], parts, strict=True):
                assert np.allclose(ours[b], theirs[0], rtol=0, atol=1e-13 * max(1, np.abs(theirs).max()))
        for name, value in done.gradients.items():
            sums[name] = sums.get(name, 0) + value
    scale = max(np.abs(value).max() for value in together.gradients.values())
    for name, value in sums.items():
        assert np.abs(together.gradients[name] - value).max() <= 1e-12 * max(scale, 1), name


@given(problems())
def test_predict_and_evaluate_ignore_padding_and_agree_with_gradient(engine, problem):
    (network, batch, loss), named = call(problem)
    done, states = gradient(network, batch, loss, engine=engine, **named), states_of(problem)
    losses, after = evaluate(network, batch, loss, states, engine=engine)
    y, after_too = predict(network, batch.x, batch.lengths, states, engine=engine)
    weights = loss.weights(batch, network.width)
    safe = np.where((weights != 0).reshape(weights.shape + (1,) * (batch.targets.ndim - 2)), batch.targets, 0)
    assert np.array_equal(losses, done.losses)
    from_outputs = loss.evaluate(y, safe, weights).per_step
    assert error(from_outputs, done.losses) <= (0 if engine == "reference" else 1e-14), "another exp, another order"
    for prefix, parts in done.states.items():
        for part, one, two in zip(parts, after[prefix], after_too[prefix], strict=True):
            assert np.array_equal(part, one)
            assert np.array_equal(part, two)
    if network.outputs is None:
        assert not y[outside(problem)].any()


def test_what_counts_is_still_looked_at(engine):
    problem = make_problem(T=3, B=2, lengths=(3, 2), loss="squared_error")
    x = problem.x.copy()
    x[1, 1, 0] = np.nan
    with pytest.raises(NotFiniteError, match="inputs x at step 2, sequence 2: got nan"):
        recorded(changed(problem, x=x), engine=engine)
    targets = problem.targets.copy()
    targets[2, 0, 1] = np.inf
    with pytest.raises(NotFiniteError, match="targets at step 3, sequence 1: got inf"):
        recorded(changed(problem, targets=targets), engine=engine)
    ids = make_problem(T=3, B=2, lengths=(3, 2), ids=True)
    x = ids.x.copy()
    x[1, 1] = 2
    with pytest.raises(InputError, match="inputs x: got id 2, expected 0 to 1"):
        recorded(changed(ids, x=x), engine=engine)
    targets = ids.targets.copy()
    targets[1, 1] = -1
    with pytest.raises(InputError, match="targets of cross-entropy: got class -1, expected 0 to 1"):
        recorded(changed(ids, targets=targets), engine=engine)


def test_the_states_after_a_short_sequence_are_those_after_its_own_last_step(engine):
    problem = make_problem("gru after", T=4, B=2, lengths=(4, 2))
    _y, after = predict(network_of(problem), problem.x, problem.lengths, states_of(problem), engine=engine)
    early = {p: type(s)(*(part[1:] for part in s)) for p, s in states_of(problem).items()}
    _, alone = predict(network_of(problem), problem.x[:2, 1:], None, early, engine=engine)
    assert np.allclose(after["layer0."].h[1], alone["layer0."].h[0], rtol=0, atol=1e-15)

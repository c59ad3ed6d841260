"""What a plan leaves out, what it leaves alone, and that how the work is cut up changes no number."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.engine import Checkpointed, Chunked, Full, Windowed, compiled, gradient, parse_plan, record
from bptt.engine.compiled import sweep
from bptt.engine.given import prepare
from bptt.engine.reference import run as reference
from bptt.errors import InputError, UnknownName
from bptt.ledger import recorder, reductions
from oracles.bridge import call, error, recorded
from oracles.problems import changed, make_problem, problems
from oracles.untied import table

PLANS = ("full", "chunked", "windowed")


def run(engine, problem, plan):
    arguments, named = call(problem)
    return gradient(*arguments, engine=engine, **(named | {"plan": plan}))


def so_many_at_once(engine, size):
    """So many losses walked back at once, as if there were no memory for more."""
    if engine == "reference":
        return mock.patch.object(reference.Run, "group_size", return_value=size)
    return mock.patch.object(sweep, "group_size", return_value=size)


def assert_same_pass(ours, theirs, tolerance):
    scale = max(np.abs(value).max() for value in theirs.gradients.values())
    assert error(ours.losses, theirs.losses) <= tolerance
    for name, value in theirs.gradients.items():
        assert error(ours.gradients[name], value, scale=scale) <= tolerance, name
    for prefix, parts in theirs.dstates.items():
        for one, two in zip(ours.dstates[prefix], parts, strict=True):
            assert np.abs(one - two).max() <= tolerance * max(1, np.abs(two).max()), prefix


@given(problems(), st.none() | st.integers(1, 6))
def test_checkpointed_gives_the_numbers_of_full(engine, problem, n):
    full, ours = run(engine, problem, Full()), run(engine, problem, Checkpointed(n))
    assert_same_pass(ours, full, 1e-14)
    ledger, theirs = recorded(problem, plan=Checkpointed(n), engine=engine), recorded(problem, engine=engine)
    for name in ledger.names:
        C = theirs.contributions(name)  # products over fewer rows at once may round differently, so not to the bit
        assert error(ledger.contributions(name), C) < 1e-14, name
        assert error(ledger.step_gradients(name), theirs.step_gradients(name), scale=C) < 1e-14, name
        assert error(ledger.map(name), theirs.map(name)) < 1e-13, name
    for prefix in ledger.states:
        assert error(ledger.state_norms(prefix), theirs.state_norms(prefix)) < 1e-14, prefix


@given(problems(ways=(2,)), st.integers(1, 6))
def test_checkpointed_in_both_directions_is_full_to_the_last_bit(problem, n):
    """Of the reference; the compiled engine adds up block by block, and is held to `assert_same_pass` above."""
    full, ours = run("reference", problem, Full()), run("reference", problem, Checkpointed(n))
    assert all(np.array_equal(ours.gradients[name], value) for name, value in full.gradients.items())
    assert (ours.dx is None) == (problem.x.ndim == 2)


@given(problems(), st.integers(0, 3))
def test_a_chunk_as_long_as_the_sequence_is_full(engine, problem, more):
    assert_same_pass(run(engine, problem, Chunked(problem.T + more)), run(engine, problem, Full()), 1e-14)


@given(problems(), st.integers(0, 3))
def test_a_window_as_long_as_the_sequence_is_full(engine, problem, more):
    assert_same_pass(run(engine, problem, Windowed(problem.T + more)), run(engine, problem, Full()), 1e-13)


@given(problems(ways=(1,)), st.integers(1, 6), st.sampled_from(["chunked", "windowed"]))
def test_a_causal_plan_keeps_whole_cells_of_the_full_table(engine, problem, K, kind):
    """Chunked: k and t in one chunk. Windowed: lag k − t < K. What is kept is untouched, the rest is exactly zero."""
    k, t = np.indices((problem.T, problem.T))
    kept = (k // K == t // K) if kind == "chunked" else (k - t < K)
    full, cut = (
        recorded(problem, engine=engine),
        recorded(problem, plan={"chunked": Chunked, "windowed": Windowed}[kind](K), engine=engine),
    )
    for name in full.names:
        C, ours = full.contributions(name), cut.contributions(name)
        assert error(ours[kept], C[kept], scale=C) < 1e-14, name
        assert not ours[~kept].any(), name
        assert error(cut.gradient(name), C[kept].sum(0), scale=C) < 1e-13, name


@given(problems(cuts=PLANS))
def test_a_window_of_one_step_leaves_the_diagonal_only(engine, problem):
    ledger = recorded(problem, plan=Windowed(1), engine=engine)
    for name in ledger.names:
        assert not ledger.map(name)[~np.eye(problem.T, dtype=bool)].any(), name


@given(problems(cuts=PLANS))
def test_what_is_kept_changes_no_number(engine, problem):
    ledgers = {keep: recorded(problem, keep=keep, map=True, engine=engine) for keep in ("factors", "norms", "full")}
    full = ledgers["full"]
    for keep, ledger in ledgers.items():
        assert np.array_equal(ledger.losses, full.losses)
        assert ledger.meta["keep"] == keep
        for name in full.names:
            assert np.array_equal(ledger.gradient(name), full.gradient(name)), (keep, name)
            assert np.array_equal(ledger.norms(name), full.norms(name)), (keep, name)
            assert np.array_equal(ledger.sequence_norms(name), full.sequence_norms(name)), (keep, name)
            assert error(ledger.map(name), full.map(name)) < 1e-13, (keep, name)
        for prefix in full.states:
            assert np.array_equal(ledger.state_norms(prefix), full.state_norms(prefix)), (keep, prefix)


@given(problems(cuts=PLANS), st.integers(1, 3), st.none() | st.integers(1, 4))
def test_how_many_losses_walk_back_at_once_changes_no_number(engine, problem, size, n):
    plan = {} if n is None or problem.cut[0] != "full" else {"plan": Checkpointed(n)}
    whole = recorded(problem, engine=engine)
    with so_many_at_once(engine, size):
        parts = recorded(problem, engine=engine, **plan)
    for name in whole.names:
        C = table(problem, name)
        assert error(parts.contributions(name), whole.contributions(name)) < 1e-13, name
        assert error(parts.map(name), whole.map(name)) < 1e-13, name
        assert error(parts.gradient(name), whole.gradient(name), scale=C) < 1e-13, name
    for prefix in whole.states:
        assert error(parts.states[prefix], whole.states[prefix]) < 1e-13, prefix


def test_little_memory_means_one_loss_at_a_time():
    problem = make_problem("lstm", T=5, layers=2)
    (network, batch, loss), named = call(problem)
    run = reference.Run(network, batch, loss, Full(), named["states"])
    compiled_run = compiled.Run(prepare(network, batch, loss, Full(), named["states"]), 1)
    assert run.group_size() == sweep.group_size(compiled_run) == 5
    with mock.patch.object(reference, "ROWS_BYTES", 1), mock.patch.object(sweep, "ROWS_BYTES", 1):
        assert run.group_size() == sweep.group_size(compiled_run) == 1


@given(problems(cuts=PLANS), st.sampled_from([1, 200, 1000]))
def test_how_many_matrices_are_formed_at_once_changes_no_number(engine, problem, size):
    whole = recorded(problem, engine=engine)
    with mock.patch.object(reductions, "BLOCK_BYTES", size):
        parts = recorded(problem, engine=engine)
        for name in whole.names:
            C = table(problem, name)
            for number in ("norms", "map", "cosines", "shares"):
                ours, theirs = getattr(parts, number)(name), getattr(whole, number)(name)
                assert np.allclose(ours, theirs, rtol=1e-13, atol=1e-13 * max(1, np.abs(theirs).max())), (number, name)
            assert parts.residuals[name] * np.abs(parts.gradient(name)).max() <= 1e-13 * np.abs(C).max(), name


def test_a_ledger_says_what_ran():
    problem = make_problem("gru before", T=3, cut=("chunked", 2))
    meta = recorded(problem, keep="norms", source="a test").meta
    assert meta["source"] == "a test"
    assert meta["plan"] == "Chunked(K=2)"
    assert meta["engine"] == "reference"
    assert meta["loss"] == "cross_entropy, mean, all steps"
    assert meta["gradient"].startswith("raw")
    assert (meta["keep"], meta["dtype"], meta["T"], meta["B"], meta["schema"]) == ("norms", "float64", 3, 2, 2)
    assert meta["network"] == "GRU (reset before), D=2, H=3, O=2, 62 parameters"


def test_a_full_ledger_that_would_not_fit_is_refused_before_it_is_tried():
    problem = make_problem("lstm", T=4)
    with (
        mock.patch.object(recorder, "FULL_LIMIT", 1000),
        pytest.raises(InputError, match=r"keep='full': got 0.0 GiB, expected at most 4 GiB. Use keep='factors'"),
    ):
        recorded(problem)


def test_an_unknown_keep_is_named():
    (network, batch, loss), _ = call(make_problem("rnn tanh"))
    with pytest.raises(
        UnknownName, match=r"keep: got 'norm', expected one of factors, norms, full. Did you mean 'norms'"
    ):
        record(network, batch, loss, keep="norm")


@pytest.mark.parametrize("plan", [Chunked, Windowed, Checkpointed])
@pytest.mark.parametrize("K", [0, -1, 2.5])
def test_a_plan_of_no_steps_is_refused(plan, K):
    with pytest.raises(InputError, match="expected a whole number of steps, at least 1"):
        plan(K)


def test_plans_are_read_from_text():
    assert parse_plan("full") == Full()
    assert parse_plan("chunked:20") == Chunked(20)
    assert parse_plan("Windowed:3") == Windowed(3)
    assert parse_plan("checkpointed") == Checkpointed()
    assert parse_plan("checkpointed:7") == Checkpointed(7)
    for text in ("chunked", "full:3", "windowed:x", "chunked:-1", "chunked:2.5", "windowed:", "chunked:0"):
        with pytest.raises(InputError):
            parse_plan(text)
    with pytest.raises(UnknownName, match="Did you mean 'chunked'"):
        parse_plan("chunks:3")


def test_checkpoints_are_the_square_root_of_the_steps_apart():
    assert [Checkpointed().steps(T) for T in (1, 2, 4, 5, 9, 10, 100, 101)] == [1, 2, 2, 3, 3, 4, 10, 11]
    assert Checkpointed(7).steps(5) == 5


def test_the_problem_is_left_as_it_was(engine):
    problem = make_problem("lstm both", layers=2, bidirectional=True, lengths=(4, 2), mask="weights")
    (network, batch, loss), named = call(problem)
    before = {name: value.copy() for name, value in network.params.items()}
    held = [batch.x.copy(), batch.targets.copy(), batch.mask.copy(), batch.lengths.copy()]
    starts = {prefix: [part.copy() for part in state] for prefix, state in named["states"].items()}
    record(network, batch, loss, keep="full", engine=engine, **named)
    assert all(np.array_equal(network.params[name], value) for name, value in before.items())
    now = [batch.x, batch.targets, batch.mask, batch.lengths]
    assert all(np.array_equal(one, two) for one, two in zip(now, held, strict=True))
    assert all(
        np.array_equal(one, two)
        for prefix, parts in starts.items()
        for one, two in zip(named["states"][prefix], parts, strict=True)
    )


def test_cutting_changes_the_gradient_where_there_is_something_to_cut(engine):
    """Guards the tests above: a plan that did nothing would pass several of them."""
    problem = make_problem("lstm", T=4)
    full = run(engine, problem, Full()).gradients["layer0.W_hh"]
    for plan in (Chunked(2), Windowed(2)):
        assert np.abs(run(engine, problem, plan).gradients["layer0.W_hh"] - full).max() > 1e-4 * np.abs(full).max()
    both = changed(problem, cut=("chunked", 2))
    assert np.abs(table(both, "layer0.W_hh") - table(problem, "layer0.W_hh")).max() > 1e-4


def test_a_plan_may_be_given_by_its_name_and_nothing_else_runs_as_full(engine):
    problem = make_problem("rnn tanh")
    by_name, by_plan = (
        recorded(problem, plan="chunked:2", engine=engine),
        recorded(problem, plan=Chunked(2), engine=engine),
    )
    assert by_name.meta["plan"] == "Chunked(K=2)"
    assert all(np.array_equal(by_name.gradients[name], by_plan.gradients[name]) for name in by_plan.names)
    with pytest.raises(InputError, match=r"plan: got 3, expected Full\(\)"):
        recorded(problem, plan=3, engine=engine)
    assert Chunked(np.int64(3)).K == 3
    with pytest.raises(InputError, match="got True"):
        Chunked(True)


def test_the_checkpointed_plan_keeps_factors_shared(engine):
    ledger = recorded(make_problem("lstm", T=6), plan=Checkpointed(2), engine=engine)
    assert ledger.uses["layer0.W_xh"].delta is ledger.uses["layer0.W_hh"].delta is ledger.uses["layer0.b"].delta

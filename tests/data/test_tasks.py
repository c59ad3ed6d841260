"""Tasks: the target recomputed with plain loops, the baseline measured, the lag found by changing one input."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.data import TASKS, adding, copy, copy_recall, echo, make_task, parity, temporal_order
from bptt.errors import DataError, InputError, UnknownName

ALL = [adding(7), copy(3, 4, 2), copy_recall(3, 4, 2), echo(2, 6, 5), parity(6), temporal_order(20)]
every_task = pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)


def answer_with_loops(task, x):
    """Targets of one sequence, {step index: target} for the steps that count. Shares no code with the package."""
    kind, T = task.name.split(":")[0], len(x)
    if kind == "echo":
        return {t: x[t - task.lag] for t in range(task.lag, T)}
    if kind == "adding":
        total = 0.0
        for value, mark in x:
            if mark == 1.0:
                total += value
        return {T - 1: total}
    if kind == "parity":
        return {t: [0, 1][list(x[: t + 1]).count(1) % 2] for t in range(T)}
    if kind == "temporal-order":
        seen = "".join("XY"[i - 4] for i in x if i in (4, 5))
        return {T - 1: ["XX", "XY", "YX", "YY"].index(seen)}
    blank = max(x) - 1  # the delimiter is the highest id
    memory = []
    for i in x:
        if i == blank:
            break
        memory.append(i)
    recalled = dict(zip(range(T - len(memory), T), memory, strict=True))
    silent = {} if kind == "copy-recall" else dict.fromkeys(range(T - len(memory)), blank)
    return silent | recalled


@every_task
@given(seed=st.integers(0, 2**32))
def test_targets_are_what_a_plain_loop_finds(task, seed):
    batch = task.batch(np.random.default_rng(seed), 3)
    mask = np.ones((task.steps, 3)) if batch.mask is None else batch.mask
    for b in range(3):
        answer = answer_with_loops(task, batch.x[:, b].tolist())
        assert sorted(answer) == np.flatnonzero(mask[:, b]).tolist()
        for t, expected in answer.items():
            assert np.squeeze(batch.targets[t, b]) == pytest.approx(expected, rel=1e-14)


@every_task
def test_baseline_is_the_loss_of_the_best_guess_per_step_measured_over_many_samples(task):
    """For each step the best constant, fitted to the samples themselves: mean for squared error, frequencies else."""
    n = 20_000
    batch = task.batch(np.random.default_rng(1), n)
    counted = [t for t in range(task.steps) if batch.mask is None or batch.mask[t, 0]]
    losses = []
    for t in counted:
        if task.loss == "squared_error":
            losses.append(np.var(batch.targets[t]))
        else:
            p = np.bincount(batch.targets[t]) / n
            losses.append(-sum(q * math.log(q) for q in p if q))
    assert np.mean(losses) == pytest.approx(task.baseline, rel=0.015)


def test_adding_baseline_is_reached_by_always_saying_one():
    targets = adding(10).batch(np.random.default_rng(2), 20_000).targets[-1]
    assert np.mean((targets - 1) ** 2) == pytest.approx(adding(10).baseline, rel=0.02)


def test_copy_baseline_counts_the_silent_steps_as_free():
    assert copy(20).baseline == pytest.approx(10 * math.log(8) / 40)
    assert copy_recall(20).baseline == pytest.approx(math.log(8))
    recall, whole = copy_recall(7, 5, 3), copy(7, 5, 3)
    assert whole.baseline * whole.steps == pytest.approx(recall.baseline * 3)


@every_task
def test_lag_is_the_distance_to_the_farthest_input_that_a_counted_target_depends_on(task):
    """Where two sequences first give different answers, changing one input shows how far back it is needed."""
    farthest = 0
    for seed in range(300):
        x = task.batch(np.random.default_rng(seed), 1).x[:, 0].tolist()
        before = answer_with_loops(task, x)
        for t in range(task.steps):
            changed = list(x)
            changed[t] = other(task, x[t])
            if changed[t] is None:
                continue
            after = answer_with_loops(task, changed)
            lags = [k - t for k in before if k in after and before[k] != after[k]]
            assert min(lags, default=0) >= 0
            farthest = max([farthest, *lags])
    assert farthest == task.lag


def other(task, value):
    """Another input of the same kind, or None for the ones that mark places."""
    kind = task.name.split(":")[0]
    if kind == "adding":
        return (1 - value[0], value[1])
    if kind == "temporal-order":
        return {4: 5, 5: 4}.get(value)
    if kind == "parity":
        return 1 - value
    symbols = task.outputs if kind == "echo" else task.outputs - 1
    return (value + 1) % symbols if value < symbols else None


@every_task
def test_shapes_types_and_ranges_are_what_the_task_says(task):
    batch = task.batch(np.random.default_rng(0), 64)
    T = task.steps
    assert batch.lengths is None
    if batch.x.dtype == np.int32:
        assert batch.x.shape == (T, 64)
        assert set(np.unique(batch.x)) == set(range(task.inputs))
    else:
        assert batch.x.dtype == np.float64
        assert batch.x.shape == (T, 64, task.inputs)
    if task.loss == "cross_entropy":
        assert batch.targets.dtype == np.int32
        assert batch.targets.shape == (T, 64)
        assert set(np.unique(batch.targets)) == set(range(task.outputs))
        assert task.score_name == "accuracy"
    else:
        assert batch.targets.shape == (T, 64, task.outputs)
        assert task.score_name == "mse"
    assert batch.mask is None or (batch.mask.shape == (T, 64) and batch.mask.dtype == np.float64)


@every_task
def test_the_generator_alone_decides(task):
    one, two = (task.batch(np.random.default_rng(5), 8) for _ in range(2))
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.targets, two.targets)
    rng = np.random.default_rng(5)
    assert not np.array_equal(task.batch(rng, 8).x, task.batch(rng, 8).x)


@pytest.mark.parametrize("steps", [2, 3, 10, 11])
def test_adding_marks_once_in_each_half_and_reaches_every_place(steps):
    marks = adding(steps).batch(np.random.default_rng(0), 2_000).x[:, :, 1]
    assert set(np.unique(marks)) <= {0, 1}
    assert (marks[: steps // 2].sum(axis=0) == 1).all()
    assert (marks[steps // 2 :].sum(axis=0) == 1).all()
    assert marks.any(axis=1).all()


def test_temporal_order_of_100_has_the_places_of_the_paper():
    x = temporal_order(100).batch(np.random.default_rng(0), 3_000).x
    places = np.array([np.flatnonzero(np.isin(x[:, b], (4, 5))) + 1 for b in range(x.shape[1])])
    assert set(places[:, 0]) == set(range(10, 21))
    assert set(places[:, 1]) == set(range(50, 61))
    assert (x[0] == 6).all()
    assert (x[-1] == 7).all()


@pytest.mark.parametrize("steps", range(10, 31))
def test_temporal_order_always_has_two_signals(steps):
    x = temporal_order(steps).batch(np.random.default_rng(0), 200).x
    assert (np.isin(x, (4, 5)).sum(axis=0) == 2).all()
    assert (x[0] == 6).all()
    assert (x[-1] == 7).all()


def test_copy_looks_as_in_the_paper():
    batch = copy(4, symbols=8, width=3).batch(np.random.default_rng(0), 1)
    x, targets = batch.x[:, 0].tolist(), batch.targets[:, 0].tolist()
    assert x[3:] == [8, 8, 8, 9, 8, 8, 8]  # lag - 1 blanks, the delimiter, width blanks
    assert targets == [8] * 7 + x[:3]
    assert batch.mask is None


@every_task
def test_the_name_of_a_task_makes_it_again(task):
    assert make_task(task.name) == task


def test_specifications():
    assert make_task("echo:5") == echo(5, 20)
    assert make_task("echo:5").name == "echo:5"
    assert make_task(" echo : 5 : 30 ").name == "echo:5:30"
    assert make_task("copy:20:4:5") == copy(20, 4, 5)
    assert make_task("temporal-order:60") == temporal_order(60)
    assert list(TASKS) == sorted(TASKS)
    assert {len(inspect.signature(builder).parameters) > 0 for builder in TASKS.values()} == {True}


def test_a_wrong_name_suggests_the_nearest():
    for wrong, right in (("ading:5", "adding"), ("temporal_order:60", "temporal-order"), ("Copy:3", "copy")):
        with pytest.raises(UnknownName, match=f"Did you mean '{right}'"):
            make_task(wrong)
    with pytest.raises(UnknownName, match="expected one of adding, copy, copy-recall, echo, parity, temporal-order"):
        make_task("")


@pytest.mark.parametrize(
    "spec", ["echo", "echo:", "echo:x", "echo:1.5", "echo:1:2:3:4", "echo:²", "echo:" + "9" * 5000]
)
def test_a_wrong_number_shows_the_form(spec):
    with pytest.raises(DataError) as caught:
        make_task(spec)
    assert str(caught.value).endswith("expected echo:lag[:steps][:symbols] with whole numbers. For example echo:20.")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("echo:0", "lag of echo: got 0, expected a whole number of at least 1"),
        ("echo:-3", "lag of echo: got -3"),
        ("echo:5:5", "steps of echo: got 5, expected more than the lag, 5. No step would count."),
        ("echo:5:9:1", "symbols of echo: got 1, expected a whole number of at least 2"),
        ("adding:1", "steps of adding: got 1, expected a whole number of at least 2"),
        ("copy:0", "lag of copy: got 0"),
        ("copy-recall:3:8:0", "width of copy-recall: got 0"),
        ("temporal-order:9", "steps of temporal-order: got 9, expected a whole number of at least 10"),
        ("parity:1", "steps of parity: got 1"),
    ],
)
def test_numbers_that_make_no_sense(spec, message):
    with pytest.raises(DataError) as caught:
        make_task(spec)
    assert message in str(caught.value)


def test_a_seed_is_not_a_generator():
    with pytest.raises(InputError, match=r"rng: got int, expected np.random.Generator. Make one with"):
        parity(3).batch(3, 2)
    with pytest.raises(DataError, match="batch size: got 0"):
        parity(3).batch(np.random.default_rng(0), 0)

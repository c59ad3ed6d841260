"""Ledgers of other models: uses of every kind, each question against brute force over the whole table C[k, t]."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bptt
import bptt.ledger.ledger as ledger_module
from bptt.errors import InputError, NotKeptError
from bptt.ledger import Ledger, Place, lags, reductions
from bptt.ledger.recorder import Recorder
from bptt.train.attribution import _attribute
from bptt.train.optimisers import ParameterUpdate
from bptt.uses import Columns, Elementwise, Linear, Matmul, Ready, with_factors
from oracles.by_hand import (
    GATES,
    NAMES,
    asked,
    cases,
    check_losses,
    check_steps,
    close,
    different_uses,
    ledger_of,
    of_losses,
    size_of,
)
from oracles.mutate import RED, mutated


@given(cases())
def test_every_question_has_the_answer_of_the_whole_table(case):
    tables, at, reverse = case
    ledger = ledger_of(tables, loss_steps=at, reverse=reverse)
    for kind, (use, C) in tables.items():
        for name, table in asked(NAMES[kind], C):
            check_steps(ledger, name, table)
            check_losses(ledger, name, table)
            check_lags(ledger, name, table, at, reverse)
        if kind == "linear":
            alone = use.delta.sum(0)[..., :, None] * use.z[..., None, :]
            for (name, _), (_, each) in zip(asked(NAMES[kind], C), asked("", alone), strict=True):
                close(ledger.sequence_norms(name), size_of(each, 2))
        else:
            with pytest.raises(NotKeptError, match="norms by sequence: got dW_t with all sequences added up"):
                ledger.sequence_norms(NAMES[kind])
    assert ledger.residual < 1e-10 or min(np.abs(g).max() for g in ledger.gradients.values()) < 1e-3


def check_lags(ledger, name, C, at, reverse):
    K, T = C.shape[:2]
    at = at or range(1, K + 1)
    lag_of = lambda k, t: t + 1 - at[k] if reverse else at[k] - t - 1  # noqa: E731
    known = ledger.lags(name)
    assert known.tolist() == list(range(1 - T if reverse else 0, T))
    assert ledger.has_lags(name)
    assert ledger.loss_positions(name).tolist() == list(at)
    profile = np.zeros(len(known))
    for i, lag in enumerate(known):
        pairs = [(k, t) for k in range(K) for t in range(T) if lag_of(k, t) == lag]
        expected = sum((C[pair] for pair in pairs), np.zeros(C.shape[2:]))
        close(ledger.lag_gradient(name, int(lag)), expected)
        column = np.zeros(K)
        for k, t in pairs:
            column[k] = np.linalg.norm(C[k, t])
        close(ledger.map_by_lag(name)[:, i], column)
        profile[i] = column.sum()
    close(ledger.lag_profile(name).values, profile)
    with pytest.raises(InputError, match=rf"^lag: got {T}, expected {known[0]} to {T - 1}$"):
        ledger.lag_gradient(name, T)


@given(cases())
def test_the_bias_of_a_cut_is_what_the_further_contributions_make(case):
    tables, at, _ = case
    ledger = ledger_of(tables, loss_steps=at)
    for kind, (_, C) in tables.items():
        K, T = C.shape[:2]
        lag = np.array(at or range(1, K + 1))[:, None] - np.arange(1, T + 1)
        far = [C[lag >= cut].reshape(-1, *C.shape[2:]).sum(0) for cut in range(1, T + 1)]
        dW = C.sum((0, 1))
        bias = bptt.truncation_bias(ledger, NAMES[kind])
        assert bias.shape == (T,)
        close(bias * np.linalg.norm(dW), [np.linalg.norm(rest) for rest in far])


@given(cases(), st.booleans())
def test_a_ledger_of_any_kind_survives_a_file(tmp_path_factory, case, full):
    tables, at, reverse = case
    path = tmp_path_factory.mktemp("kinds") / "x.safetensors"
    states = {"cell.": np.ones((4, 2))}
    ledger = ledger_of(tables, full=full, loss_steps=at, reverse=reverse, states=states)
    ledger.save(path)
    loaded = Ledger.load(path)
    assert (loaded.places, loaded.reverse, loaded.meta) == (ledger.places, ledger.reverse, ledger.meta)
    assert loaded.loss_steps is None if at is None else loaded.loss_steps.tolist() == at
    assert loaded.residuals == ledger.residuals
    for field in ("uses", "loss_uses"):
        ours, theirs = getattr(loaded, field), getattr(ledger, field)
        assert list(ours) == list(theirs)
        for name, use in theirs.items():
            assert type(ours[name]) is type(use)
            assert all(np.array_equal(a, b) for a, b in zip(ours[name], use, strict=True))


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("kind", ["matmul", "ids", "linear", "ready", "columns"])
def test_a_block_of_a_use_is_that_block_of_its_matrices(kind, axis):
    rng = np.random.default_rng(0)
    z, delta = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 6))
    use, shape = {
        "matmul": (Matmul(z, delta), (4, 6)),
        "ids": (Matmul(rng.integers(0, 4, (3, 2)), delta), (4, 6)),
        "linear": (Linear(z, delta), (6, 4)),
        "ready": (Ready(rng.standard_normal((3, 6, 4))), (6, 4)),
        "columns": (Columns((Matmul(z, delta), Matmul(2 * z, delta[..., :2]))), (4, 8)),
    }[kind]
    block, whole = slice(1, 3), reductions.matrices(use, shape)
    expected = whole[..., block] if axis == -1 else whole[..., block, :]
    part = reductions.block_of(use, block, axis)
    close(reductions.matrices(part, expected.shape[1:]), expected)
    close(reductions.total(part, expected.shape[1:]), expected.sum(0))


def test_blocks_of_an_elementwise_use_take_its_input_along():
    z, delta = np.arange(12.0).reshape(2, 1, 6), np.ones((2, 1, 6))
    part = reductions.block_of(Elementwise(z, delta), slice(2, 4), -1)
    assert reductions.matrices(part, (2,)).tolist() == [[2, 3], [8, 9]]


def test_a_linear_use_is_the_transpose_of_a_product():
    rng = np.random.default_rng(1)
    z, delta = rng.standard_normal((7, 2, 3)), rng.standard_normal((7, 2, 5))
    ours, theirs = Linear(z, delta), Matmul(z, delta)
    W = rng.standard_normal((5, 3))
    close(reductions.total(ours, (5, 3)), reductions.total(theirs, (3, 5)).T)
    close(reductions.inner(ours, W), reductions.inner(theirs, W.T))
    assert type(with_factors(ours, delta=np.negative)) is Linear


@pytest.mark.parametrize("keep", ["factors", "norms", "full"])
def test_a_recorder_takes_in_uses_of_every_kind(keep):
    rng = np.random.default_rng(2)
    C, z = rng.standard_normal((4, 4, 2, 3)), rng.standard_normal((4, 2, 3))
    delta = rng.standard_normal((4, 4, 2, 6))
    shapes = {"a": (2, 3), "w": (6, 3)}
    recorder = Recorder(shapes, 4, 2, np.float64, keep, map=False)
    for start in (2, 0):
        steps = slice(start, start + 2)
        recorder.add(start, {"a": Ready(C.sum(0)[steps]), "w": Linear(z[steps], delta.sum(0)[steps])})
        recorder.add_losses(start, {"a": Ready(C[:, steps]), "w": Linear(z[steps], delta[:, steps])}, {})
    gradients = {"a": C.sum((0, 1)), "w": np.einsum("ktbn,tbm->nm", delta, z)}
    places = {"a": Place(), "w": Place("", False, GATES, 0)}
    ledger = recorder.ledger(np.ones(4), gradients, {"network": "by hand"}, places, {})
    assert ledger.residual < 1e-13
    close(ledger.norms("a"), size_of(C.sum(0), 1))
    assert set(ledger.step_sequence_norms) == ({"w"} if keep == "norms" else set())
    if keep == "full":
        close(ledger.contributions("a"), C)
        close(ledger.contributions("w.f"), np.einsum("ktbn,tbm->ktnm", delta, z)[:, :, 3:])


def test_what_moved_the_weights_is_known_for_every_kind():
    ledger, tables = different_uses()
    for name, C in tables.items():
        steps, scale = C.sum(0), np.abs(C.sum((0, 1))) + 1
        delta = scale * steps.sum(0)
        found = _attribute(ParameterUpdate(delta, rate=scale, weight=1.0), ledger.uses[name])
        close(found.shares.sum(), 1.0)
        close(found.norms, size_of(scale * steps, 1))


# ---- a test that cannot fail is none -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return Matmul(use.delta, use.z)", "return Matmul(use.delta[::-1], use.z)"),
        ("return inner(Matmul(use.z, use.delta), W.T)", "return inner(Matmul(use.z, use.delta[::-1]), W.T)"),
        ("axis == (-2 if isinstance(use, Linear) else -1)", "axis == (-1 if isinstance(use, Linear) else -2)"),
        ("lambda part: terms[part].sum(0)", "lambda part: terms[part].mean(0)"),
        ("flat(use, W.shape), W.reshape(-1)", "flat(use, W.shape), W.T.reshape(-1)"),
        ("return Ready(use.gradients[steps])", "return Ready(use.gradients[steps.start :])"),
        ("return Ready(cut(use.gradients, block, axis))", "return Ready(cut(use.gradients, block, -1))"),
        ("lambda d: d[losses, steps]", "lambda d: d[losses, losses]"),
        ("*[slice(None)] * (-1 - axis)", "*[slice(None)] * 0"),
    ],
)  # fmt: skip
def test_a_mutated_reduction_is_red(old, new):
    assert worst(reductions) < 1e-12
    assert worst(mutated(reductions, old, new)) > RED


def worst(of):
    """The largest error of what `of` says of a Linear and a Ready use, W (4, 4) so that nothing fails by its shape."""
    rng = np.random.default_rng(3)
    z, delta = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 3, 2, 4))
    linear = delta[..., :, None] * z[..., None, :]
    ready, W = rng.standard_normal((3, 3, 4, 4)), rng.standard_normal((4, 4))
    errors = []
    for use, C in ((Linear(z, delta), linear.sum(2)), (Ready(ready), ready)):
        steps, plain, shape, k, t = C.sum(0), of.over_losses(use), W.shape, np.array([0, 2]), np.array([1, 0])
        rows = of.block_of(plain, slice(1, 3), -2)
        errors += [
            of.total(plain, shape) - steps.sum(0),
            of.inner(plain, W) - (steps * W).sum((1, 2)),
            of.matrices(of.steps_of(plain, slice(0, 2)), shape).sum(0) - steps[:2].sum(0),
            of.matrices(of.diagonal(use, k, t), shape) - C[k, t],
        ]
        found = of.matrices(rows, (2, 4))
        errors.append(found - steps[:, 1:3] if found.shape == (3, 2, 4) else np.inf)
    return max(np.abs(error).max() for error in errors)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (lags, "steps = at + lag if reverse else at - lag", "steps = at - lag"),
        (lags, "steps = k + lags if reverse else k - lags", "steps = k - lags"),
        (lags, "(steps < T)", "(steps < T - 1)"),
        (lags, "return loss_steps if", "return np.arange(1, K + 1) if"),
    ],
)
def test_a_mutated_lag_is_red(module, old, new):
    rng = np.random.default_rng(4)
    ledger = ledger_of({"linear": of_losses("linear", rng, 2, 4)}, loss_steps=[2, 4], reverse=True)
    C = ledger.contributions("weight_ih")
    check_lags(ledger, "weight_ih", C, [2, 4], True)
    with mock.patch.object(ledger_module, "lag_of", mutated(module, old, new)), pytest.raises(AssertionError):
        check_lags(ledger, "weight_ih", C, [2, 4], True)

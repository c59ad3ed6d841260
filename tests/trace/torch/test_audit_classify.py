"""What tables show, without a model: each pattern is planted into numbers."""

import numpy as np
import pytest

from bptt.trace.torch.audit.classify import CUT, NONE, RIGHT, WRONG, Table, lags, patterns, place, reach, states

N = 8


def values(rng=0, n=N, reverse=False):
    """Lower triangular numbers that fade, as a recurrent network's."""
    numbers = np.random.default_rng(rng).uniform(0.5, 1.5, (n, n)) * np.random.default_rng(rng + 1).choice(
        [-1, 1], (n, n)
    )
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    table = np.where(lag >= 0, numbers * 0.5 ** np.abs(lag), 0.0)
    return table[:, ::-1][::-1] if reverse else table


def table(F, A, noise=1e-10, T=None):
    changed = F != 0
    return Table(F, A, np.full(F.shape, noise), changed, *place(F, changed, T or F.shape[0]))


def lag_of(n=N):
    return np.subtract.outer(np.arange(n), np.arange(n))


def one(F, A, **more):
    (pattern,) = patterns(table(F, A, **more))
    return pattern


def test_equal_tables_show_nothing():
    F = values()
    assert patterns(table(F, F * (1 + 1e-7))) == []
    assert reach(table(F, F)) == (N - 1, N - 1)
    assert set(states(table(F, F)).ravel()) == {NONE, RIGHT}


@pytest.mark.parametrize("reverse", [False, True])
def test_cut_at_every_step(reverse):
    F = values(reverse=reverse)
    pattern = one(F, np.where(lag_of() == 0, F, 0))
    assert pattern.code == "BPA101"
    assert pattern.border == ((1, 2) if reverse else (2, 1))


@pytest.mark.parametrize("kept", [2, 3, 5])
def test_a_constant_lag_is_a_truncation(kept):
    F = values()
    A = np.where(lag_of() < kept, F, 0)
    pattern = one(F, A)
    assert (pattern.code, pattern.border, pattern.evidence["steps"]) == ("BPA103", (kept + 1, 1), kept)
    assert reach(table(F, A)) == (kept - 1, N - 1)


def test_borders_at_equal_distances_are_chunks():
    F, chunk = values(), np.arange(N) // 3
    pattern = one(F, np.where(chunk[:, None] == chunk[None], F, 0))
    assert (pattern.code, pattern.border) == ("BPA102", (4, 3))
    assert pattern.evidence["borders"] == 2
    assert pattern.evidence["every"] == 3


@pytest.mark.parametrize("at", [2, 5, 8])
def test_one_border_is_one_cut(at):
    F, k = values(), np.arange(1, N + 1)
    pattern = one(F, np.where((k[:, None] >= at) & (k[None] < at), 0, F))
    assert (pattern.code, pattern.border, pattern.evidence["step"]) == ("BPA104", (at, at - 1), at)


def test_one_loss_shows_its_last_border():
    F = values()[-1:]
    pattern = one(F, np.where(np.arange(N) < 3, 0, F), T=N)
    assert (pattern.code, pattern.border) == ("BPA104", (1, 3))


def test_a_weight_without_any_gradient_and_one_without_at_some_steps():
    F = values()
    assert one(F, np.zeros_like(F)).code == "BPA105"
    pattern = one(F, np.where(np.isin(np.arange(N), (2, 5))[None], 0, F))
    assert (pattern.code, pattern.border) == ("BPA106", (3, 3))


def test_zeros_in_no_order_are_cut_all_the_same():
    F = values()
    A = F.copy()
    A[4, 1] = A[6, 5] = 0
    assert one(F, A).code == "BPA109"


@pytest.mark.parametrize("times", [2, 3])
def test_whole_ratios_are_counted_again(times):
    F = values()
    pattern = one(F, np.where(lag_of() > 0, times * F, F))
    assert (pattern.code, pattern.border, pattern.evidence["times"]) == ("BPA201", (2, 1), times)
    assert one(F, 0.5 * F).code == "BPA402"


def test_reversed_and_shifted_columns():
    F = values()
    assert one(F, F[:, ::-1]).code == "BPA301"
    shifted = np.zeros_like(F)
    shifted[:, :-1] = F[:, 1:]
    pattern = one(F, shifted)
    assert (pattern.code, abs(pattern.evidence["shift"])) == ("BPA302", 1)


def test_a_gradient_from_the_future_is_in_the_wrong_order():
    F = values()
    pattern = one(F, F.T * 1.3)
    assert pattern.code == "BPA301"
    k, t = pattern.border
    assert k < t


def test_anything_else_is_wrong():
    F = values()
    A = F * np.random.default_rng(5).uniform(1.2, 1.9, F.shape)
    assert one(F, A).code == "BPA401"


def test_noise_is_no_finding_and_a_zero_that_moves_bits_is():
    F = values() * 1e-12
    A = F + 5e-11 * (F != 0)
    assert patterns(table(F, A)) == []
    assert (states(table(F, np.zeros_like(F)))[F != 0] == CUT).all()
    assert (states(table(values(), 3 * values()))[F != 0] == WRONG).all()


def test_uses_that_come_twice_in_a_step_have_its_place():
    F = np.repeat(values(), 2, axis=1)
    rows, columns = place(F, F != 0, N)
    assert columns.tolist() == np.repeat(np.arange(1, N + 1), 2).tolist()
    assert rows.tolist() == list(range(1, N + 1))
    whole = Table(F, F, np.zeros_like(F), F != 0, rows, columns)
    assert lags(whole)[3, :4].tolist() == [3, 3, 2, 2]
    assert one(F, np.where(lags(whole) == 0, F, 0), T=N).code == "BPA101"


def test_a_loop_that_is_gone_through_twice():
    F = np.concatenate([0 * values(), values()], axis=1)
    _rows, columns = place(F, F != 0, N)
    assert columns.tolist() == 2 * list(range(1, N + 1))
    pattern = one(F, np.where(np.concatenate([lag_of(), lag_of()], axis=1) == 0, F, 0), T=N)
    assert (pattern.code, pattern.border) == ("BPA101", (2, N + 1))


def test_losses_that_stand_at_every_second_step():
    F = values()[1::2]
    rows, columns = place(F, F != 0, N)
    assert rows.tolist() == [2, 4, 6, 8]
    chunk = (columns - 1) // 2
    pattern = one(F, np.where(chunk[None] == np.arange(4)[:, None], F, 0), T=N)
    assert (pattern.code, pattern.border) == ("BPA102", (2, 2))

"""Effective context of networks whose use of the past is known, and against an exchange of inputs by hand."""

import numpy as np
import pytest

import bptt
from bptt.diagnose.context import effective_context, non_increasing
from bptt.diagnose.foreign import Tried, exchange
from bptt.errors import InputError, NotFiniteError


def delay_line(L, T=40, B=4, steps="all", noise=0.0, dtype=np.float64):
    """y_t = x_{t−L}: relu units that hand their value on, unit by unit. Losses count from step L + 1 on."""
    network = bptt.Network.create("rnn", inputs=1, hidden=L + 1, outputs=1, nonlinearity="relu", dtype=dtype)
    shift, first, last = np.eye(L + 1, k=1, dtype=dtype), np.eye(1, L + 1, dtype=dtype), np.eye(L + 1, dtype=dtype)
    network.params |= {
        "layer0.W_hh": shift, "layer0.W_xh": first, "layer0.b": np.zeros(L + 1, dtype),
        "readout.W": last[:, -1:], "readout.b": np.zeros(1, dtype),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.random((T, B, 1)).astype(dtype)
    mask = np.ones((T, B))
    mask[:L] = 0
    targets = np.concatenate([np.zeros((L, B, 1)), x[: T - L]]) + noise * rng.standard_normal((T, B, 1))
    return network, bptt.Batch(x, targets, mask=mask), bptt.Loss("squared_error", steps=steps)


@pytest.mark.parametrize("steps", ["all", "last"])
@pytest.mark.parametrize("B", [1, 4])
@pytest.mark.parametrize("L", [0, 1, 5, 9])
def test_a_delay_line_has_the_context_of_its_delay(L, B, steps):
    found = effective_context(*delay_line(L, B=B, steps=steps))
    assert found.steps == L + 1
    assert found.low <= L + 1 <= found.high
    assert (found.increase[found.lags > L] == 0).all()
    assert (found.influence[found.lags > L] == 0).all()
    if L:
        assert (found.increase[found.lags <= L] > 0).any()


def test_every_lag_is_seen_where_every_step_has_a_loss():
    found = effective_context(*delay_line(3), samples=5)
    assert found.lags.tolist() == list(range(1, 40))
    assert found.samples == 5


def test_noise_in_the_targets_leaves_the_answer_where_it_is():
    found = effective_context(*delay_line(5, T=60, B=16, noise=0.2))
    assert found.steps == 6
    assert (found.low, found.high) == (6, 6)
    assert found.increase[3] == pytest.approx(1 / 6 / 0.04, rel=0.3)  # 2 Var(x) over Var(noise)
    assert 0 < found.errors[3] < 0.3 * found.increase[3]


def test_a_network_that_ignores_its_past_has_a_context_of_one_step():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("gru", inputs=3, hidden=4, outputs=2)
    network.params["readout.W"][:] = 0
    batch = bptt.Batch(rng.standard_normal((12, 3, 3)), rng.integers(0, 2, (12, 3)))
    found = effective_context(network, batch, bptt.Loss())
    assert (found.steps, found.low, found.high) == (1, 1, 1)
    assert not found.increase.any()
    assert not found.influence.any()


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_foreign_past_is_that_of_exchanged_inputs(kind, bidirectional):
    """Both are told apart by their first layer only: the state at t0 holds the past, so that inputs do as well."""
    rng = np.random.default_rng(2)
    network = bptt.Network.create(kind, inputs=2, hidden=3, outputs=2, bidirectional=bidirectional)
    T, B = 8, 3
    batch = bptt.Batch(rng.standard_normal((T, B, 2)), rng.standard_normal((T, B, 2)))
    loss, weights = bptt.Loss("squared_error"), np.full((T, B), 1.0)
    for place in (1, 4, 7):
        tried = Tried(weights)
        exchange(network, batch, loss, weights, None, "reference", [place], np.random.default_rng(3), tried)
        shift = int(np.random.default_rng(3).integers(1, B))
        x = batch.x.copy()
        x[:place] = np.roll(x[:place], shift, 1)
        own, foreign = (bptt.predict(network, some, engine="reference")[0][place:] for some in (batch.x, x))
        table = np.zeros((4, T - place, B))
        table[0] = 1
        for i, y in ((1, own), (2, foreign)):
            table[i] = np.square(y - batch.targets[place:]).sum(-1)
        table[3] = np.square(own - foreign).sum(-1)
        np.testing.assert_allclose(tried.tables[0][:, : T - place], table, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_sequences_that_have_ended_neither_give_nor_take_a_past(bidirectional):
    rng = np.random.default_rng(4)
    network = bptt.Network.create("gru", inputs=2, hidden=3, outputs=2, layers=2, bidirectional=bidirectional)
    batch = bptt.Batch(rng.standard_normal((10, 4, 2)), rng.integers(0, 2, (10, 4)), np.array([10, 10, 10, 2]))
    some = effective_context(network, batch, bptt.Loss())
    batch.x[2:, 3], batch.targets[2:, 3] = 1e9, 99  # padding may hold anything
    again = effective_context(network, batch, bptt.Loss())
    np.testing.assert_array_equal(some.increase, again.increase)
    weights = bptt.Loss().weights(batch, 2)
    tried = Tried(weights)
    exchange(network, batch, bptt.Loss(), weights, None, "auto", [5], rng, tried)
    assert not tried.tables[0][:, :, 3].any()


def test_engines_and_dtypes_agree():
    network, batch, loss = delay_line(4, noise=0.3)
    reference = effective_context(network, batch, loss, engine="reference")
    found = effective_context(network, batch, loss)
    np.testing.assert_allclose(found.increase, reference.increase, atol=1e-9)
    single = effective_context(*delay_line(4, dtype=np.float32))
    assert (single.steps, single.low, single.high) == (5, 5, 5)


def test_ids_and_initial_states_are_taken_as_they_are():
    rng = np.random.default_rng(5)
    network = bptt.Network.create("lstm", inputs=6, hidden=4, outputs=6)
    batch = bptt.Batch(rng.integers(0, 6, (9, 3)), rng.integers(0, 6, (9, 3)))
    state = {"layer0.": network.cell.State(*(rng.standard_normal((3, 4)) for _ in range(2)))}
    some, other = (effective_context(network, batch, bptt.Loss(), states=s) for s in (None, state))
    assert np.isfinite(some.increase).all()
    assert not np.allclose(some.increase, other.increase)


def test_sequences_that_are_alike_cannot_be_told_apart():
    network, batch, loss = delay_line(3)
    batch = batch._replace(x=np.full_like(batch.x, 0.5))
    assert effective_context(network, batch, loss).steps == 1


def test_one_step_has_no_past():
    network, batch, loss = delay_line(0, T=1)
    for size in (1, 4):
        few = bptt.Batch(batch.x[:, :size], batch.targets[:, :size])
        found = effective_context(network, few, loss)
        assert (found.lags.tolist(), found.increase.tolist(), found.steps) == ([1], [0.0], 1)


def test_bad_input_is_one_line():
    network, batch, loss = delay_line(1, T=3, B=1)
    with pytest.raises(InputError, match=r"got one sequence of 3 steps, expected two sequences"):
        effective_context(network, batch, loss)
    network, batch, loss = delay_line(1)
    with pytest.raises(InputError, match="tolerance: got 0"):
        effective_context(network, batch, loss, tolerance=0)
    with pytest.raises(InputError, match="samples: got 0"):
        effective_context(network, batch, loss, samples=0)
    with pytest.raises(InputError, match="every step masked"):
        effective_context(network, batch._replace(mask=np.zeros((40, 4))), loss)
    batch.x[7, 2] = np.nan
    with pytest.raises(NotFiniteError, match="inputs x at step 8, sequence 3"):
        effective_context(network, batch, loss)


def test_exploding_is_an_error_with_a_step():
    network, batch, loss = delay_line(0, T=400)
    network.params["layer0.W_hh"][:] = 1e3
    with pytest.raises(NotFiniteError, match="at step"):
        effective_context(network, batch, loss)


def test_the_nearest_curve_that_does_not_rise():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, weights = rng.standard_normal(8), rng.random(8) + 0.1
        fit = non_increasing(values, weights)
        assert (np.diff(fit) <= 1e-12).all()
        best = (weights * (values - fit) ** 2).sum()
        for _ in range(200):  # nothing else that does not rise is nearer
            other = np.sort(fit + 0.1 * rng.standard_normal(8))[::-1]
            assert (weights * (values - other) ** 2).sum() >= best - 1e-12

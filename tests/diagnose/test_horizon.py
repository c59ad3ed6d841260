"""The horizon against truncated passes and closed forms."""

import numpy as np
import pytest

import bptt
from bptt.errors import InputError, NotKeptError
from bptt.ledger.norms import norm


def batch_of(rng, T=9, B=3, D=3, O=2):
    return bptt.Batch(rng.standard_normal((T, B, D)), rng.integers(0, O, (T, B)))


@pytest.mark.parametrize(("kind", "layers"), [("rnn", 1), ("gru", 2), ("lstm", 1)])
def test_bias_is_what_a_windowed_pass_loses(kind, layers):
    rng = np.random.default_rng(3)
    network = bptt.Network.create(kind, inputs=3, hidden=4, outputs=2, layers=layers)
    batch, loss = batch_of(rng), bptt.Loss()
    ledger = bptt.record(network, batch, loss, keep="full")
    for name in ledger.names:
        bias = bptt.truncation_bias(ledger, name)
        for K in range(1, 10):
            cut = bptt.gradient(network, batch, loss, plan=bptt.Windowed(K)).gradients[name]
            dW = ledger.gradient(name)
            assert bias[K - 1] == pytest.approx(norm(cut - dW) / norm(dW), rel=1e-9, abs=1e-13)


def linear_network(lam, T):
    """h_t = λ h_{t−1} + x_t with relu on positive numbers: every Jacobian is λ, loss at the last step only."""
    network = bptt.Network.create("rnn", inputs=1, hidden=1, nonlinearity="relu")
    network.params.update(
        {"layer0.W_xh": np.ones((1, 1)), "layer0.W_hh": np.full((1, 1), lam), "layer0.b": np.zeros(1)}
    )
    batch = bptt.Batch(np.ones((T, 1, 1)), np.zeros((T, 1, 1)))
    return network, batch, bptt.Loss("squared_error", steps="last")


def test_horizon_of_a_linear_network_has_its_closed_form():
    lam, T = 0.5, 40
    ledger = bptt.record(*linear_network(lam, T), keep="full")
    lags = lam ** np.arange(T)
    expected = np.array([lags[K:].sum() / lags.sum() for K in range(1, T + 1)])
    np.testing.assert_allclose(bptt.truncation_bias(ledger, "b"), expected, atol=1e-12)
    assert bptt.horizon(ledger, "b", 0.01) == int(np.flatnonzero(expected <= 0.01)[0]) + 1 == 7


def test_lag_gradients_add_up_to_the_gradient_in_both_directions():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("gru", inputs=3, hidden=2, outputs=2, layers=2, bidirectional=True)
    ledger = bptt.record(network, batch_of(rng), bptt.Loss(), keep="full")
    for name in ledger.names:
        lags = ledger.lag_profile(name).lags
        total = sum(ledger.lag_gradient(name, int(lag)) for lag in lags)
        np.testing.assert_allclose(total, ledger.gradient(name), atol=1e-15)


def test_horizon_is_one_step_where_only_the_own_step_counts():
    network, batch, loss = linear_network(0.0, 5)
    assert bptt.horizon(bptt.record(network, batch, loss, keep="full"), "W_xh") == 1


def test_horizon_is_the_whole_sequence_where_nothing_vanishes():
    network, batch, loss = linear_network(1.0, 5)
    assert bptt.horizon(bptt.record(network, batch, loss, keep="full"), "W_xh") == 5


def test_no_gradient_has_no_bias_and_no_division():
    network, batch, loss = linear_network(0.5, 5)
    batch = batch._replace(x=np.zeros((5, 1, 1)))  # outputs 0, targets 0
    assert bptt.truncation_bias(bptt.record(network, batch, loss, keep="full"), "W_hh").tolist() == [0.0] * 5


def test_horizon_asks_for_what_it_needs():
    network, batch, loss = linear_network(0.5, 5)
    ledger = bptt.record(network, batch, loss)
    with pytest.raises(NotKeptError, match="Record with keep='full'"):
        bptt.horizon(ledger, "W_hh")
    full = bptt.record(network, batch, loss, keep="full")
    with pytest.raises(InputError, match="tolerance: got 0, expected a number above 0"):
        bptt.horizon(full, "W_hh", 0)


@pytest.mark.parametrize("plan", [bptt.Windowed(3), bptt.Chunked(3)])
def test_a_truncated_ledger_does_not_say_how_far_the_gradient_reaches(plan):
    network, batch, loss = linear_network(0.5, 9)
    ledger = bptt.record(network, batch, loss, plan=plan, keep="full")
    with pytest.raises(InputError, match=r"got a ledger under (Windowed|Chunked)\(K=3\).*record with plan=Full"):
        bptt.horizon(ledger, "W_hh")

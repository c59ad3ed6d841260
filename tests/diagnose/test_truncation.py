"""Truncation bias and horizon against truncated passes and closed forms."""

import numpy as np
import pytest

import bptt
from bptt.diagnose.truncation import SCHEMES, Truncation, truncation
from bptt.errors import InputError, NotKeptError, UnknownName
from bptt.ledger.norms import norm
from bptt.uses import Ready


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


PLANS = {"windowed": bptt.Windowed, "chunked": bptt.Chunked}


@pytest.mark.parametrize("scheme", PLANS)
@pytest.mark.parametrize(("kind", "layers"), [("rnn", 1), ("gru", 2), ("lstm", 2)])
def test_every_k_loses_what_a_pass_under_that_plan_loses(kind, layers, scheme):
    rng = np.random.default_rng(5)
    network = bptt.Network.create(kind, inputs=3, hidden=4, outputs=2, layers=layers)
    batch, loss = batch_of(rng)._replace(lengths=np.array([9, 4, 7]), mask=rng.random((9, 3))), bptt.Loss()
    ledger = bptt.record(network, batch, loss, keep="full")
    for K in range(1, 10):
        cut = bptt.gradient(network, batch, loss, plan=PLANS[scheme](K)).gradients
        for name in ledger.names:
            found, dW = truncation(ledger, name, scheme), ledger.gradient(name)
            assert found.bias[K - 1] == pytest.approx(norm(cut[name] - dW) / norm(dW), rel=1e-9, abs=1e-13)
            cosine = (cut[name] * dW).sum() / norm(cut[name]) / norm(dW)
            assert found.cosine[K - 1] == pytest.approx(cosine, abs=1e-12)


def test_last_step_only_is_what_one_step_of_the_last_use_gives():
    rng = np.random.default_rng(6)
    network = bptt.Network.create("lstm", inputs=3, hidden=4, outputs=2)
    batch, loss = batch_of(rng), bptt.Loss(steps="last")
    ledger = bptt.record(network, batch, loss)
    cut = bptt.gradient(network, batch, loss, plan=bptt.Windowed(1)).gradients
    for name in ("W_hh", "W_hh.f", "layer0.b"):
        found, full = truncation(ledger, name, "last step only"), ledger.name(name)
        block = slice(4, 8) if name.endswith(".f") else slice(None)
        dW, left = ledger.gradient(name), cut[full][..., block]
        assert found.K.tolist() == [1]
        assert found.bias[0] == pytest.approx(norm(left - dW) / norm(dW), rel=1e-12)
        assert found.cosine[0] == pytest.approx((left * dW).sum() / norm(left) / norm(dW), abs=1e-12)
    assert truncation(ledger, "W_hh.f", "last step only").parameter == "layer0.W_hh.f"


def test_a_gate_loses_what_its_columns_lose():
    rng = np.random.default_rng(7)
    network = bptt.Network.create("lstm", inputs=3, hidden=4, outputs=2)
    batch, loss = batch_of(rng), bptt.Loss()
    ledger = bptt.record(network, batch, loss, keep="full")
    cut = bptt.gradient(network, batch, loss, plan=bptt.Chunked(4)).gradients["layer0.W_hh"][:, 4:8]
    dW = ledger.gradient("W_hh.f")
    assert truncation(ledger, "W_hh.f", "chunked").bias[3] == pytest.approx(norm(cut - dW) / norm(dW))


def test_both_directions_count_where_a_path_begins_and_ends():
    rng = np.random.default_rng(8)
    network = bptt.Network.create("gru", inputs=3, hidden=2, outputs=2, layers=2, bidirectional=True)
    ledger = bptt.record(network, batch_of(rng), bptt.Loss(), keep="full")
    k, t = np.arange(9)[:, None], np.arange(9)
    for name in ("layer0.W_hh", "layer1.reverse.W_xh"):
        C, dW = ledger.contributions(name), ledger.gradient(name)
        for scheme, kept in (("windowed", lambda K: abs(k - t) < K), ("chunked", lambda K: k // K == t // K)):
            left = [(C * kept(K)[..., None, None]).sum((0, 1)) for K in range(1, 10)]
            bias = [norm(some - dW) / norm(dW) for some in left]
            np.testing.assert_allclose(truncation(ledger, name, scheme).bias, bias, atol=1e-13)


def test_losses_that_stand_at_other_steps_are_cut_where_they_stand():
    rng = np.random.default_rng(9)
    network, batch, _ = linear_network(0.8, 8)
    batch = batch._replace(targets=rng.random((8, 1, 1)), mask=np.array([0, 0, 1, 0, 0, 1, 0, 1.0])[:, None])
    full = bptt.record(network, batch, bptt.Loss("squared_error"), keep="full")
    at = np.array([7, 2, 5])  # in no order, as a traced model may hand them out
    uses = {
        name: type(use)(use.z, use.delta[at]) for name, use in full.loss_uses.items() if not name.startswith("readout")
    }
    some = bptt.Ledger(
        full.meta, full.losses[at], full.gradients, full.places, full.reverse, full.states, uses=full.uses,
        loss_uses=uses, loss_steps=at + 1,
    )  # fmt: skip
    for scheme in ("windowed", "chunked"):
        np.testing.assert_allclose(
            truncation(some, "W_hh", scheme).bias, truncation(full, "W_hh", scheme).bias, atol=1e-14
        )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_is_lost_of_no_gradient(scheme):
    network, batch, loss = linear_network(0.5, 5)
    batch = batch._replace(x=np.zeros((5, 1, 1)))
    found = truncation(bptt.record(network, batch, loss, keep="full"), "W_hh", scheme)
    assert not found.bias.any()
    assert (found.cosine == 1).all()
    assert found.horizon() == (1, 1, 1)


@pytest.mark.parametrize("size", [1e-160, 1e160])
def test_the_bias_does_not_depend_on_the_size_of_the_gradient(size):
    network, batch, loss = linear_network(0.5, 6)
    some = truncation(bptt.record(network, batch, loss, keep="full"), "W_hh")
    large = batch._replace(mask=np.full((6, 1), size))
    scaled = truncation(bptt.record(network, large, bptt.Loss("squared_error", "sum", "last"), keep="full"), "W_hh")
    np.testing.assert_allclose(scaled.bias, some.bias, atol=1e-14)
    np.testing.assert_allclose(scaled.cosine, some.cosine, atol=1e-14)


def test_one_step_has_nothing_to_lose():
    network, batch, loss = linear_network(0.5, 1)
    ledger = bptt.record(network, batch, loss, keep="full")
    for scheme in SCHEMES:
        assert truncation(ledger, "W_xh", scheme).horizon() == (1, 1, 1)


def made(K, bias, low, high, scheme="windowed"):
    K, bias, low, high = (np.array(a, float) for a in (K, bias, low, high))
    return Truncation("W", scheme, K.astype(int), bias, bias, low, high, False, 3, 9, 0.95)


def test_between_two_k_the_horizon_lies_on_a_line_of_log_b():
    found = made([1, 10, 20, 30], [1, 0.1, 0.001, 0], [0.5, 0.05, 0, 0], [2, 0.3, 0.02, 0])
    assert found.horizon(0.01) == (15, 11, 30)  # 0.1 → 0.01 is half the way to 0.001
    assert found.horizon(3) == (1, 1, 1)
    assert found.horizon(1e-4) == (29, 11, 30)  # to b = 0 on a line of b itself


def test_a_scheme_without_k_has_no_horizon():
    found = made([1], [0.5], [0.5], [0.5], "last step only")
    assert found.horizon(0.5) == (1, 1, 1)
    with pytest.raises(InputError, match=r"horizon of 'last step only': got a bias of 0.5 and no other K"):
        found.horizon(0.1)


def test_an_unknown_scheme_is_named():
    network, batch, loss = linear_network(0.5, 3)
    with pytest.raises(UnknownName, match=r"truncation scheme: got 'chunk'.*Did you mean 'chunked'"):
        truncation(bptt.record(network, batch, loss, keep="full"), "W_hh", "chunk")
    with pytest.raises(NotKeptError, match=r"what is asked of layer0.W_hh.*Record with keep='full'"):
        truncation(bptt.record(network, batch, loss), "W_hh", "chunked")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_uses_of_an_unknown_operation_lose_the_same(scheme):
    rng = np.random.default_rng(10)
    network = bptt.Network.create("lstm", inputs=3, hidden=4, outputs=2)
    full = bptt.record(network, batch_of(rng), bptt.Loss(), keep="full")
    ready = bptt.Ledger(
        full.meta, full.losses, full.gradients, full.places, full.reverse, full.states,
        uses={name: Ready(full.step_gradients(name)) for name in full.names},
        loss_uses={name: Ready(full.contributions(name)) for name in full.names},
    )  # fmt: skip
    for name in full.names:
        np.testing.assert_allclose(
            truncation(ready, name, scheme).bias, truncation(full, name, scheme).bias, atol=1e-14
        )


def test_a_gradient_that_is_lost_to_the_last_bit_has_no_direction_left():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("rnn", inputs=3, hidden=4, outputs=2, layers=2, bidirectional=True)
    batch = bptt.Batch(rng.standard_normal((7, 3, 3)), rng.integers(0, 2, (7, 3)))
    for dtype in (np.float64, np.float32):
        ledger = bptt.record(network.astype(dtype), batch, bptt.Loss(steps="last"), keep="full")
        found = truncation(ledger, "layer0.reverse.W_hh")  # at its own step, the first of the walk, the state is 0
        assert found.bias[0] == pytest.approx(1, rel=1e-6)
        assert found.cosine[0] == 0
        assert found.cosine[-1] == 1


@pytest.mark.parametrize(("prefix", "step"), [("layer0.", 7), ("layer0.reverse.", 1)])
def test_the_last_step_is_that_of_the_parameter_s_own_direction(prefix, step):
    rng = np.random.default_rng(1)
    network = bptt.Network.create("gru", inputs=3, hidden=4, outputs=2, bidirectional=True)
    batch = bptt.Batch(rng.standard_normal((7, 3, 3)), rng.integers(0, 2, (7, 3)))
    ledger = bptt.record(network, batch, bptt.Loss(), keep="full")
    dW = ledger.gradient(prefix + "W_hh")
    lost = dW - ledger.step_gradient(prefix + "W_hh", step)
    found = truncation(ledger, prefix + "W_hh", "last step only")
    assert found.bias[0] == pytest.approx(norm(lost) / norm(dW), rel=1e-12)

"""Lyapunov exponents: closed forms, brute force, what is known of random networks, and hard data."""

import warnings

import numpy as np
import pytest

import bptt
from bptt.cells import RNNState
from bptt.diagnose.exponents import Exponents, exponents, sample_exponent
from bptt.diagnose.linear import jacobians
from bptt.errors import InputError, ShapeError
from diagnose.diagnose_cells import blank, linear_network, rotation
from oracles.bridge import call
from oracles.problems import CELLS, make_problem


@pytest.mark.parametrize(("lam", "T"), [(0.5, 2000), (2.0, 2000), (0.9, 1), (1.0, 30)])
def test_a_scaled_rotation_has_the_exponent_log_lambda_in_every_direction(lam, T):
    found = exponents(linear_network(lam * rotation(np.random.default_rng(0), 5)), blank(T, 2))
    np.testing.assert_allclose(found.values, np.log(lam), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.errors, 0, atol=1e-13)
    assert found.by_sequence.shape == (2, 5)
    assert (found.window is None) == (lam <= 1 + 1e-9) or abs(found.largest) < 1e-13


def test_a_diagonal_network_has_its_own():
    diagonal = np.array([1.5, -0.5, 0.1])
    found = exponents(linear_network(np.diag(diagonal)), blank(400))
    np.testing.assert_allclose(found.values, np.log(np.abs(diagonal)), atol=1e-8)
    assert found.skipped == 20
    assert found.window == pytest.approx(np.log(2) / np.log(1.5), rel=1e-8)


@pytest.mark.parametrize("T", [1, 5, 300])
@pytest.mark.parametrize("diagonal", [np.linspace(1.2, 0.3, 40), [0.5, 0.9, 0.91, 0.3], [0.5, 0.0, 0.9]])
def test_a_diagonal_network_has_its_own_however_close_they_lie_and_however_short_it_is(diagonal, T):
    found = exponents(linear_network(np.diag(diagonal)), blank(T, 2))
    with np.errstate(divide="ignore"):
        expected = np.log(np.sort(diagonal)[::-1])
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_frozen_lstm_layers_have_their_forget_gates_exactly_though_half_of_the_directions_are_lost():
    rng = np.random.default_rng(1)
    network = bptt.Network.create("lstm", inputs=1, hidden=4, layers=2)
    for prefix in ("layer0.", "layer1."):
        network.params[prefix + "W_hh"][:] = 0
        network.params[prefix + "W_xh"][:] = 0
        network.params[prefix + "b"][:] = rng.standard_normal(16)
    found = exponents(network, blank(30), count=9)
    biases = np.concatenate([network.params[f"layer{at}.b"][4:8] for at in (0, 1)])
    np.testing.assert_allclose(found.values[:8], -np.sort(np.log1p(np.exp(-biases))), atol=1e-12)
    assert np.isneginf(found.values[8])


def test_an_lstm_with_frozen_gates_has_the_mean_logarithm_of_its_forget_gates():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("lstm", inputs=1, hidden=2)
    network.params["layer0.W_hh"][:] = 0
    network.params["layer0.W_xh"][:] = 0.3 * rng.standard_normal((1, 8))
    network.params["layer0.b"][2:4] = [3, -1]  # far enough apart for directions to align
    batch = blank(120)._replace(x=rng.standard_normal((120, 1, 1)))
    f = 1 / (1 + np.exp(-(batch.x[:, 0] * network.params["layer0.W_xh"][0, 2:4] + [3, -1])))
    found = exponents(network, batch)
    np.testing.assert_allclose(found.values[:2], np.log(f[:100]).mean(0), atol=1e-8)  # the last 20 are not counted
    assert np.isneginf(found.values[2:]).all()
    assert (found.errors == 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_their_sum_is_the_mean_log_determinant(cell):
    more = {"B": 3, "T": 8, "lengths": (8, 5, 6), "scale": 1.0}
    (network, batch, _), named = call(make_problem(cell, **more), np.float64)
    found = exponents(network, batch, states=named["states"])
    J = jacobians(network, batch, states=named["states"])
    for b, (length, skip) in enumerate([(8, 2), (5, 1), (6, 1)]):
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs(np.linalg.det(J[: length - skip, b])))
        ours = found.by_sequence[b].sum()
        assert ours == pytest.approx(logs.mean(), rel=1e-8) or (ours == -np.inf and logs.min() < -25)
    assert found.steps == 8


def test_errors_are_those_over_the_sequences():
    rng = np.random.default_rng(1)
    network = bptt.Network.create("gru", inputs=2, hidden=5)
    found = exponents(network, bptt.Batch(rng.standard_normal((60, 4, 2)), np.zeros((60, 4), int)), count=3)
    np.testing.assert_allclose(found.values, found.by_sequence.mean(0))
    np.testing.assert_allclose(found.errors, found.by_sequence.std(0, ddof=1) / 2)
    assert (np.diff(found.values) <= 0).all()
    assert (found.largest, found.largest_error) == (found.values[0], found.errors[0])


# ---- random networks ------------------------------------------------------------------------------------------------


def mean_field(g):
    """λ₁ of h' = tanh(W h), W ~ N(0, g² / H), for H → ∞: ½ log(g² ⟨φ'(a)²⟩), a ~ N(0, Δ), Δ = g² ⟨φ(a)²⟩.

    The pre-activations of one step are Gaussian and independent of the next ones' weights, so that a small difference
    grows by g² ⟨φ'²⟩ in square (Molgedey, Schuchhardt, Schuster 1992, without noise; Sompolinsky, Crisanti, Sommers
    1988 for continuous time; Engelken, Wolf, Abbott 2023). By Gauss–Hermite quadrature.
    """
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    weights, delta = weights / weights.sum(), 1.0
    for _ in range(3000):
        delta = g**2 * weights @ np.tanh(np.sqrt(delta) * z) ** 2
    return 0.5 * np.log(g**2 * weights @ (1 - np.tanh(np.sqrt(delta) * z) ** 2) ** 2)


def random_network(g, H, seed, T=300):
    """λ₁ over T steps after as many without counting, and W."""
    rng = np.random.default_rng([seed, H])
    W = g * rng.standard_normal((H, H)) / np.sqrt(H)
    network = bptt.Network.create("rnn", inputs=1, hidden=H)
    network.params.update({"layer0.W_xh": np.zeros((1, H)), "layer0.W_hh": W, "layer0.b": np.zeros(H)})
    states = {"layer0.": RNNState(rng.standard_normal((2, H)))}
    _, states = bptt.predict(network, np.zeros((T, 2, 1)), states=states, engine="reference")
    return exponents(network, blank(T, 2), count=1, states=states).largest, W


@pytest.mark.parametrize("g", [1.5, 3.0])
def test_strong_random_networks_are_chaotic_as_mean_field_theory_says(g):
    small, large = ([random_network(g, H, seed)[0] for seed in range(8)] for H in (100, 200))
    assert np.mean(large) > 2 * np.std(large, ddof=1) / np.sqrt(8)
    assert np.sum(np.array(large) > 0) >= 6  # so near to the onset a finite network may run into a cycle
    # a finite network falls short by O(1 / H), which twice the one less the other takes out
    limit = 2 * np.mean(large) - np.mean(small)
    error = np.hypot(2 * np.std(large, ddof=1), np.std(small, ddof=1)) / np.sqrt(8)
    assert abs(limit - mean_field(g)) < 2 * error
    assert 2 * error < 0.06  # so that the check can fail: the two values differ by 0.24


def test_weak_random_networks_fall_to_rest_at_the_rate_of_their_spectral_radius():
    for seed in range(3):
        found, W = random_network(0.8, 200, seed)
        assert found < 0
        # at rest J is Wᵀ, and its exponents are the logarithms of the moduli of its eigenvalues
        assert found == pytest.approx(np.log(np.abs(np.linalg.eigvals(W)).max()), abs=0.015)
    assert mean_field(0.8) == pytest.approx(np.log(0.8), abs=1e-6)


# ---- the sample for a training loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sample_agrees_with_the_exponents(kind, dtype, kernels):
    rng = np.random.default_rng(0)
    network = bptt.Network.create(kind, inputs=3, hidden=8, outputs=2, layers=2, dtype=dtype)
    batch = bptt.Batch(rng.standard_normal((300, 5, 3)), np.zeros((300, 5), int))
    few = bptt.Batch(batch.x[:, :2], batch.targets[:, :2])
    found, (value, error) = exponents(network, few), sample_exponent(network, batch)
    # two directions differ in length by a factor of a few, which counts once in 280 steps
    assert value == pytest.approx(found.largest, abs=3 / 280)
    assert error == pytest.approx(found.largest_error, abs=3 / 280)


@pytest.mark.parametrize("lam", [0.5, 1.1])
def test_the_sample_is_exact_where_all_directions_are_alike(lam):
    network = bptt.Network.create("rnn", inputs=1, hidden=4, nonlinearity="relu", dtype=np.float32)
    W = (lam * np.roll(np.eye(4), 1, 0)).astype(np.float32)
    network.params.update({"layer0.W_hh": W, "layer0.b": np.ones(4, np.float32)})
    value, error = sample_exponent(network, blank(80, 3), engine="reference")
    assert value == pytest.approx(np.log(lam), abs=1e-6)
    assert error == pytest.approx(0, abs=1e-6)


def test_the_sample_does_without_the_engine_where_norms_leave_its_range():
    network = linear_network(1e-3 * rotation(np.random.default_rng(0), 4))
    assert sample_exponent(network, blank(500), sequences=1) == (pytest.approx(np.log(1e-3), rel=1e-10), 0)
    network = linear_network(1e3 * rotation(np.random.default_rng(0), 4))
    assert sample_exponent(network, blank(500))[0] == pytest.approx(np.log(1e3), rel=1e-10)


def test_the_sample_of_both_directions_is_that_of_the_first_layer_forward():
    (network, batch, _), _ = call(make_problem("gru after", T=300, bidirectional=True, layers=2), np.float64)
    largest = exponents(network, batch, layer="layer0.", count=1).largest
    assert sample_exponent(network, batch)[0] == pytest.approx(largest, abs=0.01)


# ---- hard data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (12, 3)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e150])
def test_hard_data_gives_numbers_and_no_warning(kind, T, B, scale):
    network = bptt.Network.create(kind, inputs=2, hidden=3, layers=2)
    for name in network.params:
        network.params[name] = network.params[name] * scale
    batch = bptt.Batch(np.ones((T, B, 2)), np.zeros((T, B), int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, sampled = exponents(network, batch), sample_exponent(network, batch, engine="reference")
    for values in (found.values, found.errors, found.by_sequence, sampled):
        assert not np.isnan(values).any()
        assert (np.asarray(values) < np.inf).all()
    assert found.window is None or found.window > 0


def test_a_direction_that_is_lost_in_one_sequence_is_lost_in_the_mean():
    network = bptt.Network.create("rnn", inputs=1, hidden=1, nonlinearity="relu")
    network.params.update({"layer0.W_xh": np.ones((1, 1)), "layer0.W_hh": np.full((1, 1), 0.5)})
    batch = blank(30, 2)
    batch.x[:, 0] = 1
    found = exponents(network, batch)
    assert found.by_sequence[:, 0].tolist() == [pytest.approx(np.log(0.5)), -np.inf]
    assert (found.largest, found.largest_error, found.window) == (-np.inf, 0, None)


def test_a_direction_that_is_lost_in_steps_that_are_not_counted_is_lost():
    network = bptt.Network.create("rnn", inputs=1, hidden=1, nonlinearity="relu")
    network.params.update({"layer0.W_xh": np.ones((1, 1)), "layer0.W_hh": np.full((1, 1), 0.5)})
    batch = blank(30)
    batch.x[:] = 1
    batch.x[-2:] = -9
    assert exponents(network, batch).largest == -np.inf
    assert sample_exponent(network, batch, engine="reference")[0] == -np.inf


def test_the_window_is_the_time_in_which_an_error_doubles():
    one = np.array([0.1])
    assert Exponents("", 1, 9, one, one, one[None]).window == pytest.approx(np.log(2) / 0.1)
    assert Exponents("", 1, 9, 0 * one, one, one[None]).window is None


def test_states_go_with_their_sequences_and_must_fit():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("lstm", inputs=1, hidden=2, dtype=np.float32)
    batch = bptt.Batch(rng.standard_normal((5, 6, 1)), np.zeros((5, 6), int), np.array([1, 5, 5, 2, 5, 5]))
    states = {"layer0.": network.cell.State(rng.standard_normal((6, 2)), rng.standard_normal((6, 2)))}
    rows = [1, 2, 4, 5]
    few = bptt.Batch(batch.x[:, rows], batch.targets[:, rows])
    own = {"layer0.": network.cell.State(*(part[rows] for part in states["layer0."]))}
    expected = exponents(network, few, states=own).by_sequence
    np.testing.assert_array_equal(exponents(network, batch, states=states).by_sequence, expected)
    with pytest.raises(ShapeError, match="initial state of layer0"):
        exponents(network, batch, states=own)


@pytest.mark.parametrize("count", [0, 5, 2.0, True])
def test_a_count_out_of_range_is_refused(count):
    network = bptt.Network.create("rnn", inputs=1, hidden=4)
    with pytest.raises(InputError, match=r"count: got .*, expected a whole number from 1 to 4"):
        exponents(network, blank(5), count=count)


@pytest.mark.parametrize("dies", [0, 1, 3])
def test_a_unit_that_is_dead_at_one_step_is_lost_and_leaves_the_others_what_they_are(dies):
    diagonal = np.array([0.5, 0.9, 0.7, 0.8])
    network = bptt.Network.create("rnn", inputs=4, hidden=4, nonlinearity="relu")
    network.params |= {"layer0.W_xh": np.eye(4), "layer0.W_hh": np.diag(diagonal), "layer0.b": np.zeros(4)}
    x = np.ones((80, 2, 4))
    x[30, :, dies] = -100  # in the middle of what is counted
    found = exponents(network, bptt.Batch(x, np.zeros((80, 2), int)))
    expected = -np.sort(-np.log(np.delete(diagonal, dies)))
    np.testing.assert_allclose(found.by_sequence, np.tile([*expected, -np.inf], (2, 1)), atol=1e-12)
    assert (found.errors == 0).all() or found.errors.max() < 1e-12

"""Singular values of Jacobian products: closed forms, brute force, and data that is hard on them."""

import warnings

import numpy as np
import pytest

import bptt
from bptt.diagnose.linear import jacobians
from bptt.diagnose.spectrum import Spectrum, spectrum
from bptt.errors import InputError, NotFiniteError
from diagnose.diagnose_cells import blank, linear_network, rotation
from oracles.bridge import call
from oracles.problems import CELLS, make_problem


def brute(J, lags, valid):
    """log σ of explicit products that end at the last step of each sequence."""
    out = []
    for lag in lags:
        for b in range(J.shape[1]):
            steps = np.flatnonzero(valid[:, b])[-lag:]
            product = np.eye(J.shape[2])
            for t in steps:
                product = J[t, b] @ product
            out.append(np.linalg.svd(product, compute_uv=False))
    return np.array(out).reshape(len(lags), J.shape[1], -1)


@pytest.mark.parametrize(("lam", "T"), [(0.5, 2000), (2.0, 2000), (1.0, 30)])
def test_a_scaled_rotation_has_every_singular_value_lambda_to_the_lag(lam, T):
    found = spectrum(linear_network(lam * rotation(np.random.default_rng(0), 5)), blank(T))
    expected = found.lags[:, None, None] * np.log(lam) * np.ones((1, 1, 5))
    np.testing.assert_allclose(found.logs, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.effective_rank, 5, rtol=1e-9)
    assert found.lags[-1] == T


def test_a_relu_network_of_positive_states_is_linear():
    network = bptt.Network.create("rnn", inputs=1, hidden=4, nonlinearity="relu", seed=1)
    W = 0.9 * np.roll(np.eye(4), 1, 0)
    network.params.update({"layer0.W_hh": W, "layer0.b": np.ones(4)})
    found = spectrum(network, blank(300, 2))
    np.testing.assert_allclose(found.logs, (found.lags * np.log(0.9))[:, None, None] * np.ones((1, 2, 4)), rtol=1e-12)


def test_a_diagonal_network_has_its_own():
    diagonal = np.array([1.5, -1.1, 0.9, 0.2, 1e-3])
    found = spectrum(linear_network(np.diag(diagonal)), blank(2000))
    np.testing.assert_allclose(found.logs[:, 0], found.lags[:, None] * np.log(np.abs(diagonal)), rtol=1e-12)


def test_an_lstm_with_frozen_gates_has_the_product_of_its_forget_gates():
    rng = np.random.default_rng(3)
    network = bptt.Network.create("lstm", inputs=1, hidden=3)
    network.params["layer0.W_hh"][:] = 0  # no gate sees the state
    network.params["layer0.W_xh"][:] = rng.standard_normal((1, 12))
    batch = blank(40, 2)._replace(x=rng.standard_normal((40, 2, 1)))
    a = batch.x[..., 0, None] * network.params["layer0.W_xh"][0, 3:6] + network.params["layer0.b"][3:6]
    f = 1 / (1 + np.exp(-a))
    found = spectrum(network, batch, lags=[1, 7, 40])
    for at, lag in enumerate([1, 7, 40]):
        # c_k depends on c_{k−lag} by Π f, and h_k by o (1 − y²) Π f: one singular value of each unit, the others 0
        values = np.log(f[40 - lag :]).sum(0)
        tape = _last_tape(network, batch)
        values = values + 0.5 * np.log1p((tape.o * (1 - tape.y**2)) ** 2)
        np.testing.assert_allclose(found.logs[at, :, :3], -np.sort(-values), rtol=1e-11)
        assert np.isneginf(found.logs[at, :, 3:]).all()


def _last_tape(network, batch):
    cell, p = network.cell, bptt.cells.pick(network.cell, network.params, "layer0.")
    s = bptt.cells.initial_state(cell, batch.x.shape[1], np.float64)
    for x in batch.x:
        s, tape = cell.step(p, x, s)
    return tape


@pytest.mark.parametrize("more", [{}, {"layers": 2}, {"lengths": (6, 4, 5), "B": 3}], ids=["one", "two", "lengths"])
@pytest.mark.parametrize("cell", CELLS)
def test_short_products_against_explicit_ones(cell, more):
    (network, batch, _), named = call(make_problem(cell, T=6, scale=1.0, **more), np.float64)
    found = spectrum(network, batch, lags=[1, 2, 4], states=named["states"])
    valid = np.ones(batch.x.shape[:2], bool) if batch.lengths is None else np.arange(6)[:, None] < batch.lengths
    expected = brute(jacobians(network, batch, states=named["states"]), [1, 2, 4], valid)
    np.testing.assert_allclose(np.exp(found.logs), expected, rtol=1e-9, atol=1e-13)


def test_a_backward_direction_ends_at_the_first_step_of_the_sequence():
    (network, batch, _), named = call(make_problem("gru before", T=6, bidirectional=True, lengths=(6, 3)), np.float64)
    options = {"layer": "layer0.reverse.", "states": named["states"]}
    found = spectrum(network, batch, lags=[1, 3], **options)
    valid = (np.arange(6)[:, None] < batch.lengths)[::-1]
    np.testing.assert_allclose(
        np.exp(found.logs), brute(jacobians(network, batch, **options), [1, 3], valid), rtol=1e-9
    )


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_the_largest_few_of_a_large_state_are_those_of_all(kind):
    rng = np.random.default_rng(0)
    network = bptt.Network.create(kind, inputs=4, hidden=72 if kind == "rnn" else 36)
    network.params["layer0.W_hh"] *= 1.5
    batch = bptt.Batch(rng.standard_normal((40, 2, 4)), np.zeros((40, 2), int))
    few, whole = (spectrum(network, batch, lags=[1, 8, 30, 40], count=count) for count in (None, 72))
    assert few.logs.shape == (4, 2, 8)
    np.testing.assert_allclose(few.logs, whole.logs[:, :, :8], atol=2e-7)


def test_the_iteration_finds_gapped_values_to_eight_digits():
    W = np.diag(np.concatenate([[1.3, 1.2, 1.1], np.linspace(0.9, 0.1, 77)]))
    q = rotation(np.random.default_rng(0), 80)
    found = spectrum(linear_network(q @ W @ q.T), blank(200), lags=[22, 34, 200], count=3)
    expected = np.array([22, 34, 200])[:, None] * np.log([1.3, 1.2, 1.1])
    np.testing.assert_allclose(found.logs[:, 0], expected, rtol=1e-8, atol=1e-9)  # beyond SHORT


def test_short_products_that_span_many_digits_are_not_multiplied_out():
    diagonal = np.concatenate([10.0 ** (-np.arange(8) / 2), np.full(72, 1e-5)])
    q = rotation(np.random.default_rng(0), 80)
    found = spectrum(linear_network((q * diagonal) @ q.T), blank(13), lags=[1, 13])
    np.testing.assert_allclose(found.logs[:, 0], np.array([[1], [13]]) * np.log(diagonal[:8]), rtol=1e-9, atol=1e-10)


def test_a_lag_beyond_the_shortest_sequence_is_refused():
    network = bptt.Network.create("rnn", inputs=1, hidden=2)
    batch = blank(6, 2)._replace(lengths=np.array([6, 4]))
    assert spectrum(network, batch).lags.tolist() == [1, 2, 3, 4]
    with pytest.raises(InputError, match=r"lags: got \[5\], expected whole numbers from 1 to 4"):
        spectrum(network, batch, lags=[5])
    for count in (0, 3, True, 1.5):
        with pytest.raises(InputError, match="count: got"):
            spectrum(network, batch, count=count)


def test_of_many_sequences_the_four_longest_are_taken():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("gru", inputs=1, hidden=2)
    batch = bptt.Batch(rng.standard_normal((6, 7, 1)), None, np.array([2, 6, 5, 6, 1, 6, 5]))
    rows = [1, 2, 3, 5]
    few = bptt.Batch(batch.x[:, rows], None, batch.lengths[rows])
    np.testing.assert_array_equal(spectrum(network, batch).logs, spectrum(network, few).logs)


def test_effective_rank_is_the_exponential_of_the_entropy():
    logs = np.log(np.array([[[3.0, 1, 0 + 1e-300]], [[1, 1, 1]]])) + 2000
    found = Spectrum("", 3, np.array([1, 2]), logs).effective_rank
    np.testing.assert_allclose(found[:, 0], [np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))), 3])
    lost = Spectrum("", 2, np.array([1]), np.array([[[-np.inf, -np.inf], [0.0, -np.inf]]]))
    assert lost.effective_rank.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (12, 3)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e150])
def test_hard_data_gives_numbers_and_no_warning(kind, T, B, scale):
    network = bptt.Network.create(kind, inputs=2, hidden=3, layers=2)
    for name in network.params:
        network.params[name] = network.params[name] * scale
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = spectrum(network, bptt.Batch(np.ones((T, B, 2)), np.zeros((T, B), int)))
        ranks = found.effective_rank
    assert not np.isnan(found.logs).any()
    assert (found.logs < np.inf).all()
    assert ((ranks >= 0) & (ranks <= found.size)).all()
    if scale == 0:
        assert (ranks <= 3 * 2).all()


def test_dead_relu_units_are_lost_directions():
    network = bptt.Network.create("rnn", inputs=1, hidden=5, nonlinearity="relu")
    network.params["layer0.b"] += [1, -100, 1, -100, 1]
    network.params["layer0.W_hh"] = 0.5 * np.eye(5) + 0.01
    found = spectrum(network, blank(20))
    assert np.isneginf(found.logs[:, 0, 3:]).all()
    assert np.isfinite(found.logs[:, 0, :3]).all()


def test_large_states_without_recurrence_are_lost_at_once():
    network = bptt.Network.create("rnn", inputs=1, hidden=90)
    network.params["layer0.W_hh"][:] = 0
    found = spectrum(network, blank(60))
    assert np.isneginf(found.logs).all()
    assert (found.effective_rank == 0).all()


def test_a_jacobian_beyond_the_range_of_floats_is_named():
    with pytest.raises(NotFiniteError, match="state Jacobian: got overflow"):
        spectrum(linear_network(np.full((3, 3), 1.7e308)), blank(3))

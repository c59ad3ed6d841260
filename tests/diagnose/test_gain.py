"""The gain of single losses against closed forms and against what autodiff's chain rule says by hand."""

import numpy as np
import pytest

import bptt
from bptt.diagnose.gain import Gain, error_gain, gain
from bptt.diagnose.slope import Paths
from bptt.errors import InputError


def scaled_identity(lam, T, B=3, dtype=np.float64):
    """relu on positive numbers with W_hh = λI: every Jacobian is λI, whatever comes in."""
    rng = np.random.default_rng(0)
    network = bptt.Network.create("rnn", inputs=1, hidden=3, outputs=2, nonlinearity="relu", dtype=dtype)
    network.params |= {
        "layer0.W_hh": np.eye(3, dtype=dtype) * dtype(lam),
        "layer0.W_xh": np.abs(network.params["layer0.W_xh"]),
        "layer0.b": np.ones(3, dtype),
    }
    return network, bptt.Batch(rng.random((T, B, 1)).astype(dtype), rng.integers(0, 2, (T, B)))


@pytest.mark.parametrize("steps", ["all", "last"])
@pytest.mark.parametrize("lam", [0.3, 0.9, 1.0, 1.1])
def test_slope_of_a_scaled_identity_is_the_log_of_the_scale(lam, steps):
    network, batch = scaled_identity(lam, 60)
    batch = batch._replace(targets=np.zeros((60, 3, 2)))
    found = error_gain(network, batch, bptt.Loss("squared_error", steps=steps))["layer0."]
    assert found.slope == pytest.approx(np.log(lam), abs=1e-12)
    assert found.error < 1e-12
    np.testing.assert_allclose(found.logs, found.lags * np.log(lam), atol=1e-10)
    assert found.losses == (8 if steps == "all" else 1)
    assert found.factor == pytest.approx(lam)
    if lam != 1:
        assert found.half_life == (pytest.approx(np.log(0.5) / np.log(lam)) if lam < 1 else np.inf)


def test_a_thousand_steps_do_not_underflow_and_what_does_is_left_out():
    network, batch = scaled_identity(0.6, 1000, B=1)
    found = error_gain(network, batch, bptt.Loss(steps="last"))["layer0."]
    assert (found.lags[-1], found.slope) == (1000, pytest.approx(np.log(0.6)))
    network, batch = scaled_identity(0.1, 1000, B=1)
    found = error_gain(network, batch, bptt.Loss(steps="last"))["layer0."]
    assert 280 < found.lags[-1] < 295  # 1e-292 is where float64 loses its digits
    assert found.slope == pytest.approx(np.log(0.1))


def test_a_ledger_in_float32_leaves_out_what_has_no_digits():
    network, batch = scaled_identity(0.5, 200, dtype=np.float32)
    found = gain(bptt.record(network, batch, bptt.Loss(steps="last")))
    assert 90 < found.lags[-1] < 105
    assert found.slope == pytest.approx(np.log(0.5), abs=1e-5)
    assert found.losses == 0
    np.testing.assert_allclose(found.per_step[-90:], 0.5, rtol=1e-4)
    assert (found.per_step[:90] == 0).all()


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_logs_are_those_of_each_loss_walked_back_by_the_reference(kind):
    rng = np.random.default_rng(1)
    network = bptt.Network.create(kind, inputs=2, hidden=4, outputs=3, layers=2, bidirectional=True)
    T, lengths = 7, np.array([7, 5])
    batch = bptt.Batch(rng.standard_normal((T, 2, 2)), rng.integers(0, 3, (T, 2)), lengths)
    found = error_gain(network, batch, bptt.Loss(), samples=T)
    for scan in network.scans():
        rows = [[] for _ in range(T + 1)]
        for k in range(T):
            for b in range(2):
                if k >= lengths[b]:
                    continue
                mask = np.zeros((T, 2))
                mask[k, b] = 1
                one = bptt.record(network, batch._replace(mask=mask), bptt.Loss(reduction="sum"), engine="reference")
                norms = one.states[scan.prefix][:, b]
                at = T - k if scan.reverse else k + 1
                for lag in range(at + 1):
                    rows[lag].append(np.log(norms[at - lag] / norms[at]))
        known = [np.mean(row) for row in rows if row]
        np.testing.assert_allclose(found[scan.prefix].logs, known, atol=1e-10)


def test_the_error_is_that_of_slopes_over_new_data():
    """The spread of the slope over fresh sequences and losses is what the standard error says, to a factor."""
    network = bptt.Network.create("rnn", inputs=2, hidden=6, outputs=2, nonlinearity="tanh", seed=3)
    slopes, errors = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        batch = bptt.Batch(2 * rng.standard_normal((25, 6, 2)), rng.integers(0, 2, (25, 6)))
        found = error_gain(network, batch, bptt.Loss(), samples=6, seed=seed)["layer0."]
        slopes.append(found.slope)
        errors.append(found.error)
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) / np.std(slopes, ddof=1) < 2


def test_paths_of_one_loss_and_sequences_are_left_out_together():
    rng = np.random.default_rng(0)
    lags = np.arange(21)
    alone, twice = Paths(20), Paths(20)
    for sequence in range(5):
        norms = np.exp(-0.3 * lags + 0.1 * rng.standard_normal(21))
        alone.add(norms, lags >= 0, loss=0, sequence=sequence)
        for loss in range(4):  # four copies say nothing new of the sequences
            twice.add(norms, lags >= 0, loss=loss, sequence=sequence)
    assert twice.slope() == pytest.approx(alone.slope())
    assert alone.slope()[1] > 0


def test_one_path_has_an_error_all_the_same():
    rng = np.random.default_rng(0)
    paths, lags = Paths(40), np.arange(41)
    paths.add(np.exp(-0.3 * lags + 0.2 * rng.standard_normal(41)), lags >= 0, 0, 0)
    slope, error = paths.slope()
    assert abs(slope + 0.3) < 4 * error
    assert 0 < error < 0.02


def test_nothing_that_comes_back_has_no_half_life():
    network, batch = scaled_identity(0.0, 5)
    found = error_gain(network, batch, bptt.Loss())["layer0."]
    assert (found.slope, found.error, found.half_life, found.factor) == (-np.inf, 0, 0, 0)
    assert found.lags.tolist() == [0]


def test_zero_gradient_and_one_step_have_defined_values():
    network, batch = scaled_identity(0.5, 4)
    network.params["readout.W"][:] = 0
    found = error_gain(network, batch, bptt.Loss())["layer0."]
    assert (len(found.lags), found.slope, found.error, found.half_life) == (0, 0, 0, np.inf)
    assert not found.per_step.any()
    short = error_gain(*scaled_identity(0.5, 1, B=1), bptt.Loss())["layer0."]
    assert (short.lags.tolist(), short.slope) == ([0, 1], pytest.approx(np.log(0.5)))


def test_exploding_beyond_range_is_an_error_with_a_step():
    network, batch = scaled_identity(10.0, 400, B=1)
    with pytest.raises(InputError, match=r"finite numbers"):
        error_gain(network, batch, bptt.Loss("cross_entropy"))


def test_bad_input_is_one_line():
    network, batch = scaled_identity(0.5, 4)
    with pytest.raises(InputError, match="samples: got 0"):
        error_gain(network, batch, bptt.Loss(), samples=0)
    with pytest.raises(InputError, match="every step masked"):
        error_gain(network, batch._replace(mask=np.zeros((4, 3))), bptt.Loss())


def test_an_exploding_slope_has_a_factor_that_can_be_shown():
    assert np.isfinite(Gain("layer0.", np.ones(1), np.arange(2), np.ones(2), 1e4, 0.0, 1).factor)


def test_the_error_counts_what_losses_and_sequences_share_once():
    """Leave out each loss, then each sequence, then each path: the first two squares less the third."""
    rng = np.random.default_rng(0)
    paths, table = Paths(4), np.exp(rng.standard_normal((3, 2, 5)) - 0.5 * np.arange(5))
    for k in range(3):
        for b in range(2):
            table[k, b] *= np.exp(0.3 * (k + 2 * b) * np.arange(5))
            paths.add(table[k, b], np.ones(5, bool), loss=k, sequence=b)
    logs = np.log(table / table[:, :, :1])

    def slope(kept):
        return np.polyfit(np.tile(np.arange(5), len(kept)), np.concatenate([logs[k, b] for k, b in kept]), 1)[0]

    every = [(k, b) for k in range(3) for b in range(2)]

    def jackknife(groups):
        left = np.array([slope([one for one in every if one not in group]) for group in groups])
        return (len(groups) - 1) / len(groups) * np.square(left - left.mean()).sum()

    losses = jackknife([[(k, 0), (k, 1)] for k in range(3)])
    sequences = jackknife([[(k, b) for k in range(3)] for b in range(2)])
    single = jackknife([[one] for one in every])
    expected = max(losses + sequences - single, losses, sequences)
    assert expected > max(losses, sequences)
    assert paths.slope() == pytest.approx((slope(every), np.sqrt(expected)), rel=1e-9)

"""Gradient flossing: exponents that are known, a gradient against finite differences, and exponents that go to 0."""

import numpy as np
import pytest

from bptt import Batch, Network
from bptt.errors import InputError
from bptt.train import configure, fit, floss
from bptt.train.flossing import _Walk, squared_exponents
from oracles.equations import STEP as ORACLE_STEP

CELLS = [
    ("rnn", {}), ("rnn", {"nonlinearity": "relu"}), ("gru", {"reset": "after"}), ("gru", {"reset": "before"}),
    ("lstm", {}), ("lstm", {"peepholes": True, "projection": 3}),
]  # fmt: skip


def problem(cell, options, bidirectional=False, ids=False):
    rng = np.random.default_rng(3)
    network = Network.create(
        cell, inputs=3, hidden=4, outputs=2, layers=2, bidirectional=bidirectional, **options
    )  # fmt: skip
    for name, value in network.params.items():
        network.params[name] = value + 0.2 * rng.standard_normal(value.shape)
    if options.get("nonlinearity") == "relu":  # away from the kinks, and no direction wiped out
        network.params = {name: np.abs(value) + (name.endswith(".b")) for name, value in network.params.items()}
    x = rng.integers(0, 3, (5, 2)) if ids else np.abs(rng.standard_normal((5, 2, 3)))
    return network, Batch(x, np.zeros((5, 2), int))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_the_gradient_of_the_squared_exponents_is_that_of_finite_differences(cell, options, bidirectional):
    network, batch = problem(cell, options, bidirectional, ids=bidirectional)
    _, gradients = squared_exponents(network, batch, count=2)
    rng = np.random.default_rng(0)
    for name, value in network.params.items():
        if name.startswith("readout"):
            assert not gradients[name].any()
            continue
        V, h = rng.standard_normal(value.shape), 1e-4

        def at(distance, name=name, value=value, V=V):
            moved = network.astype(np.float64)
            moved.params[name] = value + distance * V
            return squared_exponents(moved, batch, count=2)[0]

        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        size = max(np.abs(gradients[name]).max(), 1e-3)
        assert (gradients[name] * V).sum() == pytest.approx(slope, rel=1e-7, abs=1e-8 * size), name


def test_the_exponents_of_a_step_that_multiplies_by_two_are_log_2():
    network = Network.create("rnn", inputs=1, hidden=4, outputs=1, nonlinearity="relu")
    network.params["layer0.W_hh"] = 2 * np.roll(np.eye(4), 1, axis=0)
    network.params["layer0.b"] += 1
    batch = Batch(np.zeros((9, 2, 1)), np.zeros((9, 2, 1)))
    value, _ = squared_exponents(network, batch, count=3)
    assert value == pytest.approx(3 * np.log(2) ** 2, rel=1e-12)


@pytest.mark.parametrize(("cell", "options"), [CELLS[0], CELLS[2], CELLS[3], CELLS[4]])
def test_all_exponents_together_are_the_volume_that_the_jacobians_keep(cell, options):
    network = Network.create(cell, inputs=2, hidden=3, outputs=None, **options)
    x = np.random.default_rng(1).standard_normal((6, 1, 2))
    p = {name.removeprefix("layer0."): value[None] for name, value in network.params.items()}
    widths = network.cell.state_widths()
    S, cuts = sum(widths), np.cumsum(widths)[:-1]

    def step(u, s):
        parts = tuple(part[None] for part in np.split(s, cuts))
        return np.concatenate(ORACLE_STEP[cell](p, u[None], parts, hidden=3, **options), -1)[0]

    s, volume = np.zeros(S), 0.0
    for u in x[:, 0]:
        J = [step(u, s + 1e-30j * unit).imag / 1e-30 for unit in np.eye(S)]
        s, volume = step(u, s), volume + np.linalg.slogdet(J)[1]
    assert _Walk(network, network.scans()[0], x, S, 0).exponents.sum() == pytest.approx(volume / 6, rel=1e-8)


def test_flossing_moves_the_exponents_towards_0_and_leaves_the_given_network_alone():
    network = Network.create("rnn", inputs=2, hidden=16, outputs=1, dtype=np.float32)
    network.params["layer0.W_hh"] *= np.float32(0.5)
    before = network.params["layer0.W_hh"].copy()
    rng = np.random.default_rng(0)
    values = []
    batch = Batch(rng.standard_normal((20, 3, 2)), np.zeros((20, 3, 1)))
    flossed = floss(network, lambda n: batch, updates=60, learning_rate=0.01, each=lambda n, v: values.append(v))
    assert values[-1] < 0.05 * values[0]
    assert (network.params["layer0.W_hh"] == before).all()
    assert flossed.dtype == np.float32
    assert (flossed.params["readout.W"] == network.params["readout.W"]).all()


def test_a_relu_network_whose_units_are_off_is_left_where_it_is():
    network = Network.create("rnn", inputs=1, hidden=4, outputs=1, nonlinearity="relu")
    network.params["layer0.b"] -= 100
    batch = Batch(np.ones((5, 2, 1)), np.zeros((5, 2, 1)))
    value, gradients = squared_exponents(network, batch)
    assert value == 0
    assert not any(dW.any() for dW in gradients.values())


def test_directions_that_relu_wipes_out_count_neither_in_the_value_nor_in_the_gradient():
    network = Network.create("rnn", inputs=1, hidden=5, outputs=1, nonlinearity="relu")
    network.params["layer0.W_hh"] = 0.3 * np.abs(network.params["layer0.W_hh"])
    network.params["layer0.b"] = np.array([1.0, 1, 1, -100, -100])  # three units are always on, two at some steps
    network.params["layer0.W_xh"] = np.array([[0.1, 0.2, 0.3, 101 / 9, 102 / 9]])
    batch = Batch(np.array([9.0, 0, 9, 9, 9]).reshape(5, 1, 1), np.zeros((5, 1, 1)))
    value, gradients = squared_exponents(network, batch, count=5)
    W, V, h = network.params["layer0.W_hh"], np.random.default_rng(0).standard_normal((5, 5)), 1e-4

    def at(distance):
        network.params["layer0.W_hh"] = W + distance * V
        return squared_exponents(network, batch, count=5)[0]

    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert (gradients["layer0.W_hh"] * V).sum() == pytest.approx(slope, rel=1e-6)
    network.params["layer0.W_hh"] = W
    found = _Walk(network, network.scans()[0], batch.x, 5, 0).exponents
    assert (found[:, :3] != 0).all()
    assert (found[:, 3:] == 0).all()  # off at step 2, and on again afterwards
    assert value == pytest.approx(np.square(found).sum())


def test_impossible_counts_are_refused():
    network, batch = problem("rnn", {})
    with pytest.raises(InputError, match="number of exponents: got 5, expected 1 to 4"):
        squared_exponents(network, batch, count=5)
    with pytest.raises(InputError, match="updates of gradient flossing: got -1, expected at least 0"):
        floss(network, lambda n: batch, updates=-1)


def test_a_run_is_flossed_once_before_its_first_iteration(tmp_path):
    config = configure("adding:8", cell="rnn", hidden=6, batch=3, iterations=2, floss=3, checkpoint_every=1)
    result = fit(config, folder=tmp_path / "run")
    assert [event["update"] for event in result.events if event["kind"] == "floss"] == [1, 2, 3]
    resumed = fit(folder=tmp_path / "run", resume=True, iterations=4)
    whole = fit(config.replace(iterations=4))
    assert all((resumed.network.params[name] == value).all() for name, value in whole.network.params.items())
    plain = fit(config.replace(floss=0, iterations=4))
    assert not (plain.network.params["layer0.W_hh"] == whole.network.params["layer0.W_hh"]).all()

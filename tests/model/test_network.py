"""Layers, directions and names of a network; what does not fit is named."""

import numpy as np
import pytest

from bptt.cells import make_cell
from bptt.errors import InputError, NotFiniteError, ShapeError, UnknownName
from bptt.model import Network, require_finite
from oracles.bridge import network_of
from oracles.problems import GRID, grid_problem


@pytest.mark.parametrize("name", GRID)
def test_names_and_shapes_are_those_of_the_oracle(name):
    problem = grid_problem(name)
    assert network_of(problem).shapes() == {n: value.shape for n, value in problem.params.items()}
    scans = [(scan.prefix, scan.reverse) for scan in network_of(problem).scans()]
    assert scans == [scan for layer in problem.scans() for scan in layer]


def test_a_network_says_what_it_is():
    network = Network.create("lstm", inputs=3, hidden=4, outputs=2, layers=2, bidirectional=True, projection=2)
    assert network.describe() == "LSTM (projection 2), D=3, H=4, O=2, 2 layers, both directions, 458 parameters"
    assert sum(value.size for value in network.params.values()) == 458
    assert (network.directions, network.width, network.dtype) == (2, 2, np.float64)
    assert Network.create("gru", inputs=3, hidden=4, bidirectional=True).width == 8


def test_the_seed_decides_the_parameters():
    one, two, other = (Network.create("gru", inputs=2, hidden=3, outputs=2, seed=seed).params for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["layer0.W_hh"], other["layer0.W_hh"])
    assert not np.array_equal(one["readout.W"], other["readout.W"])


def test_create_in_float32_draws_the_same_numbers():
    single = Network.create("gru", inputs=2, hidden=3, outputs=2, dtype=np.float32)
    double = Network.create("gru", inputs=2, hidden=3, outputs=2).astype(np.float32)
    assert single.dtype == np.float32
    assert all(np.array_equal(single.params[name], double.params[name]) for name in single.params)


@pytest.mark.parametrize("what", ["inputs", "layers", "outputs", "hidden"])
def test_a_size_below_one_is_named(what):
    with pytest.raises(InputError, match=f"{what}.*: got 0, expected (a whole number, )?at least 1"):
        Network.create("lstm", **({"inputs": 2, "hidden": 3, "outputs": 2, "layers": 1} | {what: 0}))


def test_parameters_that_do_not_fit_are_named():
    params = Network.create("rnn", inputs=2, hidden=3, outputs=2).params
    make = lambda params: Network(make_cell("rnn", 3), 2, 2, 1, False, params)  # noqa: E731
    with pytest.raises(
        ShapeError, match=r"parameter layer0.W_hh: got \(3, 2\), expected shape \(3, 3\) for RNN \(tanh\)"
    ):
        make(params | {"layer0.W_hh": np.zeros((3, 2))})
    with pytest.raises(ShapeError, match=r"parameter readout.b: got none, expected shape \(2,\)"):
        make({name: value for name, value in params.items() if name != "readout.b"})
    with pytest.raises(UnknownName, match=r"parameter: got 'layer0.W_hx', .* Did you mean 'layer0.W_[hx]h'\?"):
        make(params | {"layer0.W_hx": np.zeros((3, 3))})


def test_require_finite_names_the_first_step():
    values = np.zeros((3, 2, 2))
    require_finite(values, "x")
    values[2, 0, 1], values[1, 1, 0] = np.nan, -np.inf
    with pytest.raises(NotFiniteError, match=r"^x at step 2, sequence 2: got -inf, expected finite numbers$"):
        require_finite(values, "x")
    require_finite(values, "x", np.array([[True, True], [True, False], [False, True]]))
    require_finite(np.zeros((2, 2), int), "ids")

"""Jacobians of the state against complex steps through the cells, unit by unit."""

import numpy as np
import pytest

import bptt
from bptt.diagnose.linear import jacobians, linearise
from bptt.diagnose.tangents import complex_step, tangent
from bptt.errors import InputError, NotFiniteError, UnknownName
from diagnose.diagnose_cells import blank, brute_jacobians, linear_network
from oracles.bridge import call
from oracles.problems import CELLS, make_problem

SHAPES = {"one layer": {}, "two layers": {"layers": 2}, "lengths": {"lengths": (2, 4, 3), "B": 3}, "ids": {"ids": True}}


def given(cell, **more):
    """A network, a batch and initial states from a random problem."""
    (network, batch, _), named = call(make_problem(cell, **more), np.float64)
    return network, batch, named["states"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_jacobians_are_what_a_complex_step_of_each_unit_gives(cell, shape):
    network, batch, states = given(cell, **SHAPES[shape])
    expected = brute_jacobians(network, batch, network.scans(), states)
    np.testing.assert_allclose(jacobians(network, batch, states=states), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layer", ["layer0.", "layer0.reverse."])
@pytest.mark.parametrize("cell", ["rnn relu", "gru before", "lstm both"])
def test_each_direction_is_walked_in_its_own_order(cell, layer):
    network, batch, states = given(cell, bidirectional=True, lengths=(2, 4))
    scans = [scan for scan in network.scans() if scan.prefix == layer]
    expected = brute_jacobians(network, batch, scans, states)
    found = jacobians(network, batch, layer=layer, states=states)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    padding = found[2:, 0] if layer == "layer0." else found[:2, 0]
    assert (padding == np.eye(found.shape[-1])).all()


def test_a_layer_alone_is_its_block_of_the_whole_state():
    network, batch, states = given("lstm projection", layers=2)
    whole = jacobians(network, batch, states=states)
    for layer in (0, 1):
        at = slice(5 * layer, 5 * layer + 5)  # P = 2 and H = 3
        np.testing.assert_allclose(jacobians(network, batch, layer=layer, states=states), whole[:, :, at, at])
    assert (whole[:, :, :5, 5:] == 0).all()  # what is above is not read below
    assert (whole[:, :, 5:, :5] != 0).any()


@pytest.mark.parametrize("cell", CELLS)
def test_forward_and_backward_products_are_those_with_the_matrix(cell):
    network, batch, states = given(cell, layers=2, lengths=(3, 4))
    linear = linearise(network, batch, states=states)
    v = np.random.default_rng(0).standard_normal((2, 3, linear.B, linear.S))
    for t in range(1, linear.T + 1):
        J = linear.matrices(t)
        np.testing.assert_allclose(linear.jvp(t, v), np.einsum("bij,xybj->xybi", J, v), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(linear.vjp(t, v), np.einsum("bij,xybi->xybj", J, v), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_tangents_are_complex_steps(cell):
    network, batch, states = given(cell)
    (link,) = linearise(network, batch, states=states).links
    rng = np.random.default_rng(1)
    ds = network.cell.State(*(rng.standard_normal((4, *part.shape)) for part in states["layer0."]))
    dx = rng.standard_normal((4, *batch.x.shape[1:]))
    for change in (None, dx):
        ours = tangent(network.cell, link.p, link.tapes[1], change, ds)
        for a, b in zip(ours, complex_step(network.cell, link.p, link.tapes[1], change, ds), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_a_cell_of_ones_own_has_jacobians_too():
    W = np.arange(9.0).reshape(3, 3)
    linear = linearise(linear_network(W), blank(4, 2))
    np.testing.assert_allclose(linear.matrices(2), [W.T, W.T])
    v = np.array([[1e300, -1.0, 0.5], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(linear.jvp(3, v), v @ W, rtol=1e-14)


def test_a_float32_network_is_linearised_in_float64():
    network, batch, states = given("gru after")
    single = network.astype(np.float32)
    found = jacobians(single, batch, states=states)
    np.testing.assert_array_equal(found, jacobians(single.astype(np.float64), batch, states=states))
    assert found.dtype == np.float64


def test_the_whole_state_of_both_directions_is_refused():
    network, batch, _ = given("lstm", bidirectional=True)
    with pytest.raises(InputError, match=r"both directions.*Name a layer: layer0\., layer0\.reverse\."):
        linearise(network, batch)


def test_a_layer_that_there_is_not_is_named():
    network, batch, _ = given("lstm")
    with pytest.raises(UnknownName, match="layer7"):
        linearise(network, batch, layer=7)


def test_jacobians_that_do_not_fit_are_refused_before_any_walk():
    network = bptt.Network.create("lstm", inputs=1, hidden=512)
    with pytest.raises(InputError, match=r"jacobians: got 15\.6 GiB .*at most 1 GiB.*linearise"):
        jacobians(network, blank(100, 20))


def test_what_is_not_finite_is_named_with_its_step():
    network = bptt.Network.create("rnn", inputs=1, hidden=2, nonlinearity="relu")
    batch = blank(5)
    batch.x[3, 0, 0] = np.nan
    with pytest.raises(NotFiniteError, match="inputs x at step 4"):
        linearise(network, batch)
    network.params["layer0.W_hh"][:] = 1e200
    batch.x[:] = 1
    network.params["layer0.W_xh"][:] = 1
    with pytest.raises(NotFiniteError, match=r"layer0\.h at step 3: got inf"):
        linearise(network, batch)

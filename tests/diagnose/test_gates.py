"""Gates, time scales and the cell path, against numbers counted and walked by hand."""

import importlib
import warnings

import numpy as np
import pytest

import bptt
from bptt import plot
from bptt.cells import pick
from bptt.diagnose.gates import cell_path, gates
from bptt.errors import InputError, NotFiniteError
from bptt.report.html.gates import saturation
from diagnose.diagnose_cells import blank, linear_network
from oracles.bridge import call
from oracles.problems import CELLS, make_problem


def values_by_hand(network, batch, prefix, states):
    """Tapes of a first layer, one sequence at a time and over its own steps alone."""
    p, found = pick(network.cell, network.params, prefix), []
    for b in range(batch.x.shape[1]):
        length = len(batch.x) if batch.lengths is None else batch.lengths[b]
        s = network.cell.State(*(part[b : b + 1] for part in states[prefix]))
        for t in range(length)[:: -1 if "reverse" in prefix else 1]:
            s, tape = network.cell.step(p, batch.x[t, b : b + 1], s)
            found.append(tape)
    return {name: np.concatenate([getattr(tape, name) for tape in found]) for name in found[0]._fields}


@pytest.mark.parametrize("bytes_of_tapes", [None, 0], ids=["kept", "made again"])
@pytest.mark.parametrize("cell", CELLS)
def test_gates_are_counted_over_the_steps_that_sequences_have(cell, bytes_of_tapes, monkeypatch):
    if bytes_of_tapes is not None:
        monkeypatch.setattr(importlib.import_module("bptt.diagnose.gates"), "TAPES_BYTES", bytes_of_tapes)
    problem = make_problem(cell, T=7, B=3, bidirectional=True, lengths=(7, 2, 5), scale=2.0)
    (network, batch, _), named = call(problem, np.float64)
    found = gates(network, batch, states=named["states"])
    assert list(found) == ["layer0.", "layer0.reverse."]
    for prefix, layer in found.items():
        tapes = values_by_hand(network, batch, prefix, named["states"])
        expected = {"rnn": ["h"], "gru": ["r", "z", "n"], "lstm": ["i", "f", "g", "o"]}[cell.split()[0]]
        assert (list(layer.gates), layer.state) == (expected, prefix)
        for name, gate in layer.gates.items():
            a = tapes[name]
            low, high = (a < -0.95, a > 0.95) if name in "hgn" else (a < 0.05, a > 0.95)
            if cell == "rnn relu":
                low, high = a == 0, np.zeros_like(a)
            np.testing.assert_allclose(gate.mean, a.mean(0), rtol=1e-12)
            assert (gate.low, gate.high) == (pytest.approx(low.mean()), pytest.approx(high.mean()))
            np.testing.assert_allclose(gate.by_unit, (low + high).mean(0))
        keeps = {"lstm": "f", "gru": "z"}.get(cell.split()[0])
        if keeps is None:
            assert layer.time_scales is None
        else:
            np.testing.assert_allclose(layer.time_scales, -1 / np.log(tapes[keeps].mean(0)), rtol=1e-12)


def test_a_cell_of_ones_own_has_no_gates():
    assert gates(linear_network(np.eye(2)), blank(3)) == {}


@pytest.mark.parametrize(("bias", "expected"), [(1000.0, np.inf), (-1000.0, 0.0)])
def test_gates_that_never_move_have_time_scales_without_warning(bias, expected):
    network = bptt.Network.create("lstm", inputs=1, hidden=2, forget_bias=bias)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gates(network, blank(5, 2))["layer0."]
    assert found.time_scales.tolist() == [expected] * 2
    assert found.gates["f"].high + found.gates["f"].low == 1


def test_what_is_not_finite_is_named():
    batch = blank(3)
    batch.x[1] = np.nan
    with pytest.raises(NotFiniteError, match="inputs x at step 2"):
        gates(bptt.Network.create("lstm", inputs=1, hidden=2), batch)


# ---- the cell path --------------------------------------------------------------------------------------------------


def shares_by_hand(network, batch, loss, states, k, lag):
    """⟨cell path, whole⟩ / ‖whole‖² of each sequence, for the loss at step k (from 1) of a network of one layer.

    The whole by complex steps: L_k as a function of c_{k−lag}, from which h_{k−lag} follows; o is a function of it too.
    """
    cell, p, H = network.cell, pick(network.cell, network.params, "layer0."), network.cell.hidden
    s, tapes, before = states["layer0."], [], []
    for x in batch.x:
        before.append(s)
        s, tape = cell.step(p, x, s)
        tapes.append(tape)

    def loss_of_c(t, c):
        """Step t is taken with this c; the way is that of `step` from there on."""
        tape, old = tapes[t], before[t]
        a = tape.x @ p.W_xh + old.h @ p.W_hh + p.b
        a_o = a[:, 3 * H :] + (0 if p.p_o is None else p.p_o * c)
        m = bptt.cells.sigmoid(a_o) * np.tanh(c)
        s = cell.State(m if p.W_hr is None else m @ p.W_hr, c)
        for x in batch.x[t + 1 : k]:
            s, _ = cell.step(p, x, s)
        y = s.h @ network.params["readout.W"] + network.params["readout.b"]
        weights = loss.weights(batch, network.width)
        counted = np.zeros_like(weights)
        counted[k - 1] = weights[k - 1]
        return np.array(
            [
                loss.evaluate(
                    np.repeat(y[None, b : b + 1], 1, 0),
                    batch.targets[k - 1 : k, b : b + 1],
                    counted[k - 1 : k, b : b + 1],
                ).per_step[0]
                for b in range(y.shape[0])
            ]
        )

    def whole(t):
        rows = []
        for unit in range(H):
            bump = 1e-30j * np.eye(H)[unit]
            rows.append(loss_of_c(t, tapes[t].c + bump).imag / 1e-30)
        return np.array(rows).T

    path = whole(k - 1)
    for t in range(k - lag, k):
        path = path * tapes[t].f
    found = whole(k - lag - 1)
    return (path * found).sum(1) / (found**2).sum(1)


@pytest.mark.parametrize("cell", ["lstm", "lstm peepholes", "lstm projection", "lstm both"])
def test_the_share_is_that_of_the_product_of_forget_gates_in_the_whole_derivative(cell):
    (network, batch, loss), named = call(make_problem(cell, T=6, B=3), np.float64)
    found = cell_path(network, batch, loss, samples=6, states=named["states"])
    assert found.lags.tolist() == list(range(6))
    for lag in range(6):
        shares = [shares_by_hand(network, batch, loss, named["states"], k, lag) for k in range(lag + 1, 7)]
        assert found.share[lag] == pytest.approx(np.mean(shares), rel=1e-8, abs=1e-12)
    assert found.share[0] == pytest.approx(1, rel=1e-12)


def test_with_frozen_gates_everything_comes_along_the_cells():
    network = bptt.Network.create("lstm", inputs=1, hidden=3, outputs=2)
    network.params["layer0.W_hh"][:] = 0
    found = cell_path(network, blank(400, 2), bptt.Loss(), samples=3)
    np.testing.assert_allclose(found.share, 1, rtol=1e-10)
    assert found.lags[-1] == 399  # where the derivatives are far below the range of floats


def test_an_upper_layer_is_part_of_the_whole_and_not_of_the_path():
    (network, batch, loss), _ = call(make_problem("lstm", T=8, layers=2), np.float64)
    low, top = (cell_path(network, batch, loss, layer=layer) for layer in (0, 1))
    assert (low.state, top.state) == ("layer0.", "layer1.")
    np.testing.assert_allclose([low.share[0], top.share[0]], 1)
    network.params["layer1.W_xh"][:] = 0  # nothing comes down any more
    assert len(cell_path(network, batch, loss, layer=0).lags) == 0


@pytest.mark.parametrize("layer", ["layer0.", "layer0.reverse."])
def test_lengths_and_directions_count_their_own_steps(layer):
    (network, batch, loss), _ = call(make_problem("lstm", T=6, B=2, bidirectional=True, lengths=(6, 3)), np.float64)
    found = cell_path(network, batch, loss, layer=layer, samples=99)
    alone = [
        cell_path(
            network, bptt.Batch(batch.x[:n, b : b + 1], batch.targets[:n, b : b + 1]), loss, layer=layer, samples=99
        )
        for b, n in ((0, 6), (1, 3))
    ]
    counts = [np.arange(6, 0, -1), np.arange(3, 0, -1)]
    sums = np.zeros(6)
    sums += alone[0].share * counts[0]
    sums[:3] += alone[1].share * counts[1]
    np.testing.assert_allclose(found.share, sums / (counts[0] + [3, 2, 1, 0, 0, 0]), rtol=1e-9)


def test_a_cell_path_needs_an_lstm_and_a_layer_with_a_way_to_the_loss():
    network = bptt.Network.create("gru", inputs=1, hidden=2, outputs=2)
    with pytest.raises(InputError, match=r"cell path: got GRU \(reset after\), expected an LSTM"):
        cell_path(network, blank(3), bptt.Loss())
    network = bptt.Network.create("lstm", inputs=1, hidden=2, outputs=2, layers=2, bidirectional=True)
    with pytest.raises(InputError, match=r"cell path: got layer0\., expected the last layer of both directions"):
        cell_path(network, blank(3), bptt.Loss())
    with pytest.raises(InputError, match="samples: got 0"):
        cell_path(network, blank(3), bptt.Loss(), layer=1, samples=0)


@pytest.mark.parametrize("scale", [0.0, 1e150])
def test_hard_data_gives_numbers_and_no_warning(scale):
    network = bptt.Network.create("lstm", inputs=2, hidden=3, outputs=2)
    for name in network.params:
        network.params[name] = network.params[name] * (1 if name.startswith("readout") else scale)
    batch = bptt.Batch(np.ones((30, 2, 2)), np.zeros((30, 2), int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, looked = cell_path(network, batch, bptt.Loss()), gates(network, batch)["layer0."]
    assert np.isfinite(found.share).all()
    assert not np.isnan(looked.time_scales).any()


def test_the_units_are_called_what_they_are():
    batch = bptt.Batch(np.random.default_rng(0).standard_normal((9, 2, 3)), np.zeros((9, 2), int))
    for options, units in (({"nonlinearity": "relu"}, "relu"), ({}, "tanh")):
        network = bptt.Network.create("rnn", inputs=3, hidden=4, outputs=2, **options)
        found = gates(network, batch)["layer0."]
        assert found.units == units
        assert f"{units} h" in saturation(found)
        ax = plot.gates(found)
        assert [label.get_text().split("\n")[0] for label in ax.get_yticklabels()] == [f"{units} h"]
        assert ("between" in {text.get_text() for text in ax.get_legend().get_texts()}) == (units == "tanh")

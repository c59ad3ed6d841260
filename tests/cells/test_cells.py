"""One step of each cell: the equations against the oracle's, `step_back` against a complex step, and the names."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.cells import initial_state, initialise, make_cell, pick, sigmoid, times
from bptt.errors import InputError, UnknownName
from bptt.uses import Columns, Elementwise, Matmul
from oracles import equations
from oracles.problems import CELLS, cell_shapes

ANY = (st.sampled_from(sorted(CELLS)), st.integers(0, 99), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


def draw(name, seed, B, D, H):
    """A cell with random parameters, input and state."""
    kind, options = CELLS[name]
    rng, cell = np.random.default_rng(seed), make_cell(kind, H, **options)
    params = {n: rng.standard_normal(shape) for n, shape in cell_shapes(kind, options, D, H).items()}
    s = cell.State(*(rng.standard_normal((B, width)) for width in cell.state_widths()))
    return cell, params, rng.standard_normal((B, D)), s, rng


@given(*ANY)
def test_a_step_is_the_papers_equations(name, seed, B, D, H):
    cell, params, x, s, _ = draw(name, seed, B, D, H)
    after, _ = cell.step(cell.Params(**params), x, s)
    one = {n: value[None] for n, value in params.items()}
    kind, options = CELLS[name]
    expected = equations.STEP[kind](one, x, tuple(s), H, **options)
    for ours, theirs in zip(after, expected, strict=True):
        assert np.abs(ours - theirs).max() < 1e-14 * max(1, np.abs(theirs).max())


@given(*ANY, st.integers(0, 2))
def test_a_step_back_is_the_derivative_of_the_step(name, seed, B, D, H, lead):
    """⟨ds, s'⟩ by everything that went in, by complex step, for one adjoint and for several at once."""
    cell, params, x, s, rng = draw(name, seed, B, D, H)
    after, tape = cell.step(cell.Params(**params), x, s)
    ds = type(after)(*(rng.standard_normal((lead, *part.shape) if lead else part.shape) for part in after))
    ds_prev, dx, uses = cell.step_back(cell.Params(**params), tape, ds)
    assert set(uses) == set(params), "one use of every parameter"
    for row in range(max(lead, 1)):
        at = (row,) if lead else ()

        def slope(params, x, s, at=at):
            after, _ = cell.step(cell.Params(**params), x, s)
            return sum((d[at] * part).sum() for d, part in zip(ds, after, strict=True)).imag / 1e-30

        def by(value, put):
            out = np.zeros(value.shape)
            for i in np.ndindex(*value.shape):
                moved = value.astype(complex)
                moved[i] += 1e-30j
                out[i] = slope(*put(moved))
            return out

        for n, value in params.items():
            found = weight_gradient(uses[n], at, value.shape)
            assert close(found, by(value, lambda moved, n=n: (params | {n: moved}, x, s))), n
        assert close(dx[at], by(x, lambda moved: (params, moved, s)))
        for i, (part, found) in enumerate(zip(s, ds_prev, strict=True)):
            assert close(found[at], by(part, lambda moved, i=i: (params, x, s._replace(**{s._fields[i]: moved}))))


def weight_gradient(use, at, shape):
    """zᵀδ, Σ z ∘ δ, or blocks of columns side by side."""
    if isinstance(use, Columns):
        return np.hstack([weight_gradient(part, at, shape) for part in use.parts])
    if isinstance(use, Matmul):
        return use.z.T @ use.delta[at]
    assert isinstance(use, Elementwise)
    return (use.delta[at] if use.z is None else use.z * use.delta[at]).sum(0)


def close(ours, theirs):
    return np.abs(ours - theirs).max() <= 1e-12 * max(1, np.abs(theirs).max())


@given(*ANY)
def test_an_id_is_a_one_hot_row(name, seed, B, D, H):
    cell, params, _, s, rng = draw(name, seed, B, D, H)
    ids = rng.integers(0, D, B)
    p = cell.Params(**params)
    by_id, tape = cell.step(p, ids, s)
    by_row, _ = cell.step(p, np.eye(D)[ids], s)
    assert all(np.array_equal(one, two) for one, two in zip(by_id, by_row, strict=True))
    _, dx, _ = cell.step_back(p, tape, by_id)
    assert dx is None, "an id has no derivative"


@pytest.mark.parametrize("name", CELLS)
def test_shapes_and_widths_are_those_of_the_papers(name):
    kind, options = CELLS[name]
    cell = make_cell(kind, 3, **options)
    assert cell.shapes(2) == cell_shapes(kind, options, 2, 3)
    assert cell.width == (options.get("projection") or 3)
    assert cell.state_widths() == ((cell.width, 3) if kind == "lstm" else (3,))
    assert len(cell.gates) == {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    state = initial_state(cell, 5, np.float32)
    assert [part.shape for part in state] == [(5, width) for width in cell.state_widths()]
    assert all(part.dtype == np.float32 and not part.any() for part in state)


def test_cells_say_their_name_and_options():
    assert make_cell("rnn", 3).name == "RNN (tanh)"
    assert make_cell("rnn", 3, nonlinearity="relu").name == "RNN (relu)"
    assert make_cell("gru", 3).name == "GRU (reset after)"
    assert make_cell("lstm", 3).name == "LSTM"
    assert make_cell("lstm", 3, peepholes=True, projection=2).name == "LSTM (peepholes, projection 2)"


def test_what_is_not_a_cell_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match=r"cell: got 'ltsm', expected one of rnn, gru, lstm. Did you mean 'lstm'\?"):
        make_cell("ltsm", 3)
    with pytest.raises(UnknownName, match=r"option of gru: got 'rest', expected one of reset. Did you mean 'reset'\?"):
        make_cell("gru", 3, rest="after")
    with pytest.raises(UnknownName, match=r"nonlinearity: got 'tahn', .* Did you mean 'tanh'\?"):
        make_cell("rnn", 3, nonlinearity="tahn")
    with pytest.raises(UnknownName, match=r"reset: got 'befor', .* Did you mean 'before'\?"):
        make_cell("gru", 3, reset="befor")
    with pytest.raises(InputError, match="hidden units: got 0, expected a whole number, at least 1"):
        make_cell("lstm", 0)


def test_the_sigmoid_neither_overflows_nor_loses_the_derivative():
    assert sigmoid(np.array([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]
    a = np.linspace(-30, 30, 61)
    assert np.abs(sigmoid(a) - 1 / (1 + np.exp(-a))).max() < 1e-15
    s = sigmoid(a)
    assert np.allclose(sigmoid(a + 1e-30j).imag / 1e-30, s * (1 - s), rtol=0, atol=1e-15)


def test_times_folds_leading_axes():
    x, W = np.arange(24.0).reshape(2, 3, 4), np.arange(8.0).reshape(4, 2)
    assert np.array_equal(times(x, W), np.einsum("kbm,mn->kbn", x, W))
    assert np.array_equal(times(np.array([[1, 0]]), W), W[[[1, 0]]])


def test_pick_takes_the_parameters_of_one_layer_and_direction():
    cell = make_cell("gru", 2, reset="before")
    params = {
        f"layer0.{way}{n}": np.full(1, i) for i, way in enumerate(("", "reverse.")) for n in ("W_xh", "W_hh", "b")
    }
    assert pick(cell, params, "layer0.reverse.").W_hh[0] == 1
    assert pick(cell, params, "layer0.").b[0] == 0
    assert pick(cell, params, "layer0.").b_hn is None


def test_initialisations_are_what_their_papers_say():
    rng = np.random.default_rng(0)
    lstm, gru = make_cell("lstm", 6), make_cell("gru", 6)
    params = initialise(lstm, 3, rng)
    for block in np.hsplit(params["W_hh"], 4):
        assert np.allclose(block.T @ block, np.eye(6)), "each gate's block is orthogonal on its own"
    for block in np.hsplit(params["W_xh"], 4):
        assert np.abs(block).max() <= np.sqrt(6 / 9)
    assert params["b"].tolist() == [0] * 6 + [1] * 6 + [0] * 12, "the forget gate is open"
    assert not initialise(gru, 3, rng)["b"].any()
    irnn = initialise(make_cell("rnn", 4, nonlinearity="relu"), 3, rng, recurrent="identity")
    assert np.array_equal(irnn["W_hh"], np.eye(4))
    assert 0 < np.abs(irnn["W_xh"]).max() < 0.01
    glorot = initialise(make_cell("rnn", 4), 3, rng, recurrent="glorot")["W_hh"]
    assert np.abs(glorot).max() <= np.sqrt(6 / 8)
    assert not np.allclose(glorot.T @ glorot, np.eye(4))


def test_chrono_biases_open_the_gates_for_t_max_steps():
    rng = np.random.default_rng(0)
    b = initialise(make_cell("lstm", 200), 1, rng, chrono=50)["b"]
    i, f, rest = b[:200], b[200:400], b[400:]
    assert np.array_equal(i, -f)
    assert not rest.any()
    u = np.exp(f)
    assert u.min() >= 1
    assert u.max() <= 49
    assert u.max() > 40
    b = initialise(make_cell("gru", 200), 1, rng, chrono=50)["b"]
    assert np.exp(b[200:400]).max() > 40
    assert not b[:200].any()
    assert not b[400:].any()
    with pytest.raises(InputError, match=r"chrono initialisation: got RNN \(tanh\), expected an LSTM or a GRU"):
        initialise(make_cell("rnn", 3), 1, rng, chrono=50)
    with pytest.raises(InputError, match="chrono initialisation: got T_max = 2, expected at least 3 steps"):
        initialise(make_cell("lstm", 3), 1, rng, chrono=2)
    with pytest.raises(UnknownName, match="Did you mean 'orthogonal'"):
        initialise(make_cell("lstm", 3), 1, rng, recurrent="ortogonal")


def test_the_same_generator_gives_the_same_parameters():
    first, again = (initialise(make_cell("lstm", 3), 2, np.random.default_rng(7)) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    other = initialise(make_cell("lstm", 3), 2, np.random.default_rng(8))
    assert not np.array_equal(first["W_xh"], other["W_xh"])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 3e-16), (np.float32, 2e-7)])
def test_a_closed_gate_keeps_its_digits(dtype, bound):
    """σ(−30) is 9e-14, not 0: what passes a nearly closed gate is what a vanishing gradient is made of."""
    a = np.array([-80, -40, -30, -20, -10, -1, 0, 1, 10, 40, 80], dtype)
    exact = np.array([1 / (1 + math.exp(-float(x))) for x in a])
    with np.errstate(all="raise"):
        assert np.abs(sigmoid(a) / exact - 1).max() < bound
    slope = sigmoid(a.astype(complex) + 1e-30j).imag / 1e-30
    assert slope == pytest.approx(exact * [1 / (1 + math.exp(float(x))) for x in a], rel=1e-14)

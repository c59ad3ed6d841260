"""Numbers at the edge: what vanishes is tiny and not zero, what explodes or is no number is named, float32 stays."""

import numpy as np
import pytest
from hypothesis import given

from bptt.engine import Checkpointed, Chunked, check_gradient, evaluate, gradient, record
from bptt.errors import InputError, NotFiniteError, ShapeError, UnknownName
from bptt.model import Batch, Loss, Network
from oracles.bridge import call, error, network_of, recorded
from oracles.problems import changed, make_problem, problems
from oracles.untied import table


def one_unit(w, T, *, loss="squared_error", steps="last"):
    """h_t = relu(w h_{t−1}), h_0 = 1, J = h_T² (target 0): dW_t = 2 w^(2T−1) for every t, and C[T, t] alike."""
    params = {"layer0.W_xh": np.zeros((1, 1)), "layer0.W_hh": np.array([[w]]), "layer0.b": np.zeros(1)}
    params |= {"readout.W": np.ones((1, 1)), "readout.b": np.zeros(1)}
    problem = make_problem("rnn relu", T=T, B=1, D=1, H=1, O=1, loss=loss, reduction="sum", steps=steps)
    return changed(
        problem,
        params=params,
        x=np.zeros((T, 1, 1)),
        targets=np.zeros((T, 1, 1)),
        states={"layer0.": (np.ones((1, 1)),)},
    )


@given(problems(cuts=("full", "chunked", "windowed")))
def test_float32_is_right_to_five_digits(engine, problem):
    """Against the float64 oracle, relative to the largest entry of all tables. Worst measured over 1,200: 1.2e-5.

    That one has saturated units: 1 − tanh² and σ (1 − σ) cancel there. With weights of half the size it is 1.3e-6.
    Over another 1,200 it is 6.0e-6 of the reference and 6.7e-6 of the compiled engine.
    """
    arguments, named = call(problem, np.float32)
    done, ledger = gradient(*arguments, engine=engine, **named), recorded(problem, np.float32, engine=engine)
    largest = max(np.abs(table(problem, name)).max() for name in problem.params)
    for name in problem.params:
        C = table(problem, name)
        for ours, theirs in (
            (done.gradients[name], C.sum((0, 1))),
            (ledger.contributions(name), C),
            (ledger.step_gradients(name), C.sum(0)),
            (ledger.map(name), np.sqrt(np.square(C).sum(tuple(range(2, C.ndim))))),
            (ledger.norms(name), np.sqrt(np.square(C.sum(0)).sum(tuple(range(1, C.ndim - 1))))),
        ):
            assert ours.dtype == np.float32, name
            assert error(ours, theirs, scale=largest) <= 3e-5, name
    assert done.losses.dtype == np.float32
    assert all(part.dtype == np.float32 for state in done.dstates.values() for part in state)


@pytest.mark.parametrize("keep", ["factors", "norms", "full"])
def test_a_gradient_that_vanishes_to_1e_minus_200_is_not_zero(engine, keep):
    w, T = 0.1, 101
    ledger = recorded(one_unit(w, T), keep=keep, map=True, engine=engine)
    expected = 2 * w ** (2 * T - 1)
    assert expected == pytest.approx(2e-201)
    assert ledger.norms("W_hh") == pytest.approx(np.full(T, expected), rel=1e-12, abs=0)
    assert ledger.sequence_norms("W_hh")[:, 0] == pytest.approx(np.full(T, expected), rel=1e-12, abs=0)
    assert ledger.map("W_hh")[-1] == pytest.approx(np.full(T, expected), rel=1e-12, abs=0)
    assert not ledger.map("W_hh")[:-1].any()
    assert ledger.gradient("W_hh") == pytest.approx(T * expected, rel=1e-12, abs=0)
    assert ledger.coherence("W_hh") == pytest.approx(1, rel=1e-12)
    assert ledger.residual < 1e-14
    norms = 2 * w ** (2 * T - np.arange(T + 1.0))  # ∂J/∂h_t = 2 w^(2T−t)
    assert ledger.state_norms() == pytest.approx(norms, rel=1e-12, abs=0)
    assert ledger.gains() == pytest.approx(np.full(T, w), rel=1e-12)
    if keep != "norms":
        assert ledger.shares("W_hh") == pytest.approx(np.full(T, 1 / T), rel=1e-12)
        assert ledger.cosines("W_hh") == pytest.approx(np.ones((T, T)), rel=1e-12)


@pytest.mark.parametrize("keep", ["factors", "norms", "full"])
def test_a_gradient_that_explodes_to_1e_plus_200_is_not_infinite(engine, keep):
    w, T = 10.0, 101
    ledger = recorded(one_unit(w, T), keep=keep, map=True, engine=engine)
    expected = 2 * w ** (2.0 * T - 1)
    for numbers in (ledger.norms("W_hh"), ledger.sequence_norms("W_hh")[:, 0], ledger.map("W_hh")[-1]):
        assert numbers == pytest.approx(np.full(T, expected), rel=1e-12)
    assert ledger.residual < 1e-14
    assert ledger.gains() == pytest.approx(np.full(T, w), rel=1e-12)


def test_a_gradient_below_the_smallest_normal_number_raises_no_warning(engine):
    """Which the compiled engine takes for 0."""
    ledger = recorded(one_unit(0.1, 156), engine=engine)
    norm = ledger.norms("W_hh")[0]
    assert 0 < norm < np.finfo(float).tiny if engine == "reference" else norm == 0
    assert np.isfinite(ledger.cosines("W_hh")).all()
    assert np.isfinite(ledger.shares("W_hh")).all()
    assert np.isfinite(ledger.coherence("W_hh"))


@pytest.mark.parametrize("keep", ["factors", "norms", "full"])
def test_an_exploding_gradient_is_named_with_what_to_do(engine, keep):
    """h_1 = 1e-90 h_0 = 1e60, y = 1e152, L = 1e304: all finite. dL/dW_hh = h_0 · 2y · 1e92 = 2e394 is not."""
    params = {"layer0.W_xh": np.zeros((1, 1)), "layer0.W_hh": np.array([[1e-90]]), "layer0.b": np.zeros(1)}
    params |= {"readout.W": np.array([[1e92]]), "readout.b": np.zeros(1)}
    problem = changed(one_unit(1, 1), params=params, states={"layer0.": (np.full((1, 1), 1e150),)})
    arguments, named = call(problem)
    assert np.isfinite(evaluate(*arguments, named["states"], engine=engine)[0]).all()
    line = (
        r"^gradient of layer0.W_hh: got inf, expected finite numbers. The gradient explodes: clip it, shorten the plan"
    )
    with pytest.raises(NotFiniteError, match=line):
        recorded(problem, keep=keep, engine=engine)


def test_a_gradient_that_explodes_is_named_with_the_step_where_it_begins(engine):
    """Every step back multiplies by 600; the state itself stays small, since it starts from 1e-36."""
    network = Network.create("rnn", inputs=2, hidden=4, outputs=1, nonlinearity="relu", dtype=np.float32)
    network.params.update(
        {
            "layer0.W_xh": np.zeros((2, 4), np.float32),
            "layer0.W_hh": np.full((4, 4), 150, np.float32),
            "layer0.b": np.full(4, 1e-36, np.float32),
            "readout.W": np.ones((4, 1), np.float32),
            "readout.b": np.ones(1, np.float32),
        }
    )
    batch, loss = Batch(np.ones((16, 1, 2)), np.zeros((16, 1, 1))), Loss("squared_error", "sum", "last")
    adjoint = 2 * (1 + 4 * 1e-36 * sum(600.0**i for i in range(16)))  # of h at step 16; times 600 for every step back
    largest = float(np.finfo(np.float32).max)
    first = max(t for t in range(1, 17) if adjoint * 600.0 ** (16 - t) > largest)
    with pytest.raises(NotFiniteError, match=f"begins with ∂J/∂s of layer0 at step {first}: got inf"):
        gradient(network, batch, loss, engine=engine)


def test_a_state_that_explodes_is_named_with_its_step(engine):
    with pytest.raises(
        NotFiniteError, match=r"^layer0.h at step 4: got inf, expected finite numbers. It first appeared"
    ):
        recorded(one_unit(1e100, 6), engine=engine)
    with pytest.raises(NotFiniteError, match=r"layer0.h at step 4"):
        arguments, _ = call(one_unit(1e100, 6))
        evaluate(*arguments, call(one_unit(1e100, 6))[1]["states"], engine=engine)


def test_a_loss_that_overflows_is_named_with_its_step(engine):
    with pytest.raises(NotFiniteError, match=r"^loss at step 2: got inf"):
        recorded(one_unit(1e100, 3, steps="all"), engine=engine)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("cell", "parameter", "where"),
    [
        ("rnn tanh", "layer0.W_xh", "layer0.h at step 1"),
        ("gru after", "layer1.b", "layer1.[rz] at step 1"),
        ("lstm", "layer0.W_hh", "layer0.i at step 1"),
        ("lstm peepholes", "layer1.p_o", "layer1.o at step 1"),
        ("lstm projection", "layer1.W_hr", "layer1.h at step 1"),
        ("lstm", "readout.W", "output y at step 1"),
        ("lstm", "readout.b", "output y at step 1"),
    ],
)
def test_nan_in_a_weight_is_named_where_it_first_shows(engine, cell, parameter, where, bad):
    problem = make_problem(cell, layers=2, T=3, loss="squared_error")
    value = problem.params[parameter].copy()
    value[:] = np.nan if np.isnan(bad) else value
    value.flat[0] = np.nan
    with pytest.raises(NotFiniteError, match=f"^{where}: got nan, expected finite numbers"):
        recorded(changed(problem, params=problem.params | {parameter: value}), engine=engine)


def test_nan_in_an_initial_state_is_named(engine):
    problem = make_problem("lstm", T=3, layers=2)
    h, c = problem.states["layer1."]
    states = problem.states | {"layer1.": (h, np.full_like(c, np.nan))}
    with pytest.raises(NotFiniteError, match=r"^layer1.c_prev at step 1: got nan"):
        recorded(changed(problem, states=states), engine=engine)


def test_in_a_reverse_direction_the_last_step_comes_first(engine):
    problem = make_problem("gru after", T=3, bidirectional=True)
    (h,) = problem.states["layer0.reverse."]
    states = problem.states | {"layer0.reverse.": (np.full_like(h, np.nan),)}
    with pytest.raises(NotFiniteError, match=r"^layer0.reverse.h_prev at step 3: got nan"):
        recorded(changed(problem, states=states), engine=engine)


@pytest.mark.parametrize("plan", [None, Checkpointed(2)])
def test_nan_in_the_input_is_named_with_step_and_sequence(engine, plan):
    problem = make_problem("lstm", T=4, B=2)
    x = problem.x.copy()
    x[2, 1, 0] = np.nan
    with pytest.raises(NotFiniteError, match=r"^inputs x at step 3, sequence 2: got nan, expected finite numbers"):
        recorded(changed(problem, x=x), plan=plan, engine=engine)


@given(problems())
def test_check_gradient_looks_at_the_forward_pass_alone(engine, problem):
    (network, batch, loss), named = call(problem)
    done = gradient(network, batch, loss, engine=engine, **named)
    found = check_gradient(network, batch, loss, done.gradients, states=named["states"])
    size = np.sqrt(sum(np.square(g).sum() for g in done.gradients.values()))
    terms = max(np.abs(table(problem, name)).max() for name in problem.params)
    assert found * size <= 1e-12 * max(terms, 1e-3)


def test_check_gradient_sees_a_wrong_gradient_and_a_cut_one(engine):
    (network, batch, loss), named = call(make_problem("lstm", T=5))
    done = gradient(network, batch, loss, engine=engine, **named)
    assert check_gradient(network, batch, loss, done.gradients, states=named["states"]) < 1e-14
    for name, value in done.gradients.items():
        wrong = done.gradients | {name: value * 1.01}
        assert check_gradient(network, batch, loss, wrong, states=named["states"]) > 1e-6, name
    cut = gradient(network, batch, loss, engine=engine, **(named | {"plan": Chunked(1)}))
    assert check_gradient(network, batch, loss, cut.gradients, states=named["states"]) > 1e-3


def test_inputs_that_do_not_fit_are_named(engine):
    problem = make_problem("lstm", T=3, B=2, D=2, H=3, O=2)
    (network, batch, loss), named = call(problem)

    def give(**changes):
        gradient(network, batch._replace(**changes), loss, engine=engine, **named)

    for changes, line in [
        ({"x": np.zeros((3, 2, 5))}, r"inputs x: got shape \(3, 2, 5\) of float64, expected \(T, B, D\) = \(T, B, 2\)"),
        ({"x": np.zeros((3, 2))}, "inputs x: got shape"),
        ({"x": np.zeros((0, 2, 2))}, "inputs x: got shape"),
        ({"x": np.zeros((3, 0, 2))}, "inputs x: got shape"),
        ({"x": np.zeros((3, 2, 2), int)}, "inputs x: got shape"),
        ({"lengths": np.array([3])}, r"lengths: got \[3\], expected 2 whole numbers from 1 to T = 3"),
        ({"lengths": np.array([3, 0])}, "lengths: got"),
        ({"lengths": np.array([3, 4])}, "lengths: got"),
        ({"mask": np.ones((3, 1))}, r"mask: got shape \(3, 1\), expected \(T, B\) = \(3, 2\)"),
        (
            {"targets": np.zeros((4, 2), int)},
            r"targets of cross-entropy: got shape \(4, 2\) of int64, expected integers",
        ),
        ({"targets": np.zeros((3, 2))}, "targets of cross-entropy: got shape"),
        ({"targets": np.zeros((3, 2, 2), int)}, "targets of cross-entropy: got shape"),
    ]:
        with pytest.raises(ShapeError, match=line):
            give(**changes)
    with pytest.raises(InputError, match="inputs x: got id 2, expected 0 to 1"):
        give(x=np.array([[0, 1], [1, 2], [0, 0]]))
    with pytest.raises(InputError, match="inputs x: got id -1, expected 0 to 1"):
        give(x=np.array([[0, 1], [1, -1], [0, 0]]))
    with pytest.raises(InputError, match="targets of cross-entropy: got class 2, expected 0 to 1"):
        give(targets=np.full((3, 2), 2))
    with pytest.raises(
        ShapeError, match=r"targets of squared error: got shape \(3, 2\), expected \(T, B, O\) = \(3, 2, 2\)"
    ):
        gradient(network, batch, Loss("squared_error"), engine=engine, **named)


def test_initial_states_that_do_not_fit_are_named(engine):
    (network, batch, loss), named = call(make_problem("lstm", T=3, B=2, D=2, H=3, O=2))
    state = named["states"]["layer0."]
    with pytest.raises(
        ShapeError, match=r"initial state of layer0: got shape \(1, 2, 3\), .* drop its layer axis: h\[0\]"
    ):
        gradient(network, batch, loss, states={"layer0.": state._replace(h=state.h[None])}, engine=engine)
    with pytest.raises(ShapeError, match=r"expected c of LSTM: \(B, C\) = \(2, 3\)"):
        gradient(network, batch, loss, states={"layer0.": state._replace(c=state.c[:, :2])}, engine=engine)
    with pytest.raises(UnknownName, match=r"initial state: got 'layer1.', expected one of layer0."):
        gradient(network, batch, loss, states={"layer1.": state}, engine=engine)


def test_a_network_without_states_starts_from_zero(engine):
    network = Network.create("gru", inputs=2, hidden=3, outputs=2)
    batch = Batch(np.ones((3, 2, 2)), np.zeros((3, 2), int))
    ours = gradient(network, batch, Loss(), engine=engine)
    zero = gradient(network, batch, Loss(), states=network.initial_states(2), engine=engine)
    assert ours.loss == zero.loss
    assert record(network, batch, Loss(), engine=engine).loss == ours.loss


def test_a_network_of_one_dtype_answers_in_it():
    problem = make_problem("lstm", T=3)
    single = network_of(problem, np.float32)
    assert single.dtype == np.float32
    assert error(single.astype(np.float64).params["layer0.W_hh"], problem.params["layer0.W_hh"]) < 1e-7


def test_the_network_computes_in_its_own_dtype_whatever_the_states_are(engine):
    network = Network.create("lstm", inputs=2, hidden=3, outputs=2, dtype=np.float32)
    rng = np.random.default_rng(0)
    batch = Batch(rng.standard_normal((4, 2, 2)), rng.integers(0, 2, (4, 2)))
    states = {"layer0.": network.cell.State(np.ones((2, 3)), np.ones((2, 3), int))}
    done = gradient(network, batch, Loss(), states=states, engine=engine)
    assert {g.dtype for g in done.gradients.values()} == {np.dtype(np.float32)}


def test_lists_do_as_well_as_arrays(engine):
    network = Network.create("rnn", inputs=3, hidden=2, outputs=2)
    lists = gradient(
        network, Batch([[0, 1], [2, 0]], [[0, 1], [1, 1]], [2, 1], [[1, 1], [0.5, 1]]), Loss(), engine=engine
    )
    arrays = Batch(
        np.array([[0, 1], [2, 0]]), np.array([[0, 1], [1, 1]]), np.array([2, 1]), np.array([[1, 1], [0.5, 1]])
    )
    assert lists.loss == gradient(network, arrays, Loss(), engine=engine).loss


def test_a_gradient_at_the_kink_of_relu_passes_the_check(engine):
    """Zero input, zero state, zero bias: relu stands at 0, where its derivative is 0 forward and backward."""
    network = Network.create("rnn", inputs=2, hidden=3, outputs=1, nonlinearity="relu", init="identity")
    x = np.zeros((5, 1, 2))
    x[3:] = 1
    batch, loss = Batch(x, np.ones((5, 1, 1))), Loss("squared_error")
    assert check_gradient(network, batch, loss, gradient(network, batch, loss, engine=engine).gradients) < 1e-14


def test_the_check_sees_a_wrong_gradient_of_a_small_parameter(engine):
    arguments, named = call(make_problem("lstm peepholes", T=4))
    right = gradient(*arguments, engine=engine, **named).gradients
    small = min(right, key=lambda name: np.linalg.norm(right[name]))
    wrong = right | {small: -right[small]}
    assert check_gradient(*arguments, right, states=named["states"]) < 1e-13
    assert check_gradient(*arguments, wrong, states=named["states"]) > 1e-2


def test_parameters_that_were_spoilt_are_named(engine):
    network = Network.create("rnn", inputs=3, hidden=2, outputs=2)
    batch = Batch(np.zeros((2, 1), int), np.zeros((2, 1), int))
    network.params["layer0.W_hh"] = np.ones((2, 3))
    with pytest.raises(ShapeError, match=r"parameter layer0.W_hh: got \(2, 3\), expected shape \(2, 2\)"):
        gradient(network, batch, Loss(), engine=engine)
    del network.params["layer0.W_hh"]
    with pytest.raises(ShapeError, match=r"parameter layer0.W_hh: got none"):
        gradient(network, batch, Loss(), engine=engine)

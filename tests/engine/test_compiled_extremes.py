"""The compiled engine where numbers leave their range: what vanishes, what is huge, and what is no number at all."""

import numpy as np
import pytest

from bptt.engine import evaluate, gradient, record
from bptt.errors import NotFiniteError
from bptt.model import Batch, Loss, Network
from oracles.bridge import call, recorded
from oracles.problems import CELLS, changed, make_problem

LOST = {np.float32: 3e-37, np.float64: 5e-307}  # 25 times the smallest normal number, below which the kernels have 0
RIGHT = {np.float32: 5e-5, np.float64: 1e-12}  # worst measured: 1.6e-5, 2e-14


def fading(cell, T, B, **more):
    """One loss, at the last step, and weights so small that its gradient has left the range long before the first."""
    size = {"T": T, "B": B, "D": 2, "H": 6, "O": 2, "scale": 0.25}
    return make_problem(cell, loss="squared_error", reduction="sum", **(size | {"steps": "last"} | more))


def assert_close_or_too_small(ours, theirs, dtype, right=None):
    """As exact as ever, but for what the smallest normal number adds up to."""
    right = right or RIGHT[dtype]
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    assert (np.abs(ours - theirs) <= right * theirs + LOST[dtype]).all()
    assert not ours[theirs == 0].any()


@pytest.mark.parametrize(("cell", "B", "dtype"), [
    *((cell, 3, np.float32) for cell in CELLS), ("lstm", 1, np.float32), ("lstm both", 14, np.float32),
    ("gru before", 14, np.float32), ("gru after", 3, np.float64),
])  # fmt: skip
def test_a_gradient_that_vanishes_over_3000_steps(cell, B, dtype):
    arguments, named = call(fading(cell, 3000, B), dtype)
    right, ours = (record(*arguments, engine=engine, keep="norms", **named) for engine in ("reference", "compiled"))
    for name in right.names:
        theirs = right.norms(name)
        if not name.startswith("readout"):
            assert ((theirs > LOST[dtype]) & (theirs < theirs.max() * 1e-20)).sum() > 5, "it fades, and is not cut"
            assert not ours.norms(name)[:500].any()
        assert_close_or_too_small(ours.norms(name), theirs, dtype)
        assert_close_or_too_small(ours.sequence_norms(name), right.sequence_norms(name), dtype)
        assert ours.residuals[name] < RIGHT[dtype]
    assert_close_or_too_small(ours.state_norms(), right.state_norms(), dtype)
    assert_close_or_too_small(ours.states["layer0."], right.states["layer0."], dtype)


@pytest.mark.parametrize("cell", CELLS)
def test_a_map_that_vanishes(cell):
    """Single losses are small, and less exact: 1.5e-4 apart at worst; the reference is 1.1e-4 from float64."""
    arguments, named = call(fading(cell, 200, 2, steps="all"), np.float32)
    right, ours = (
        record(*arguments, engine=engine, keep="norms", map=True, **named) for engine in ("reference", "compiled")
    )
    for name in right.names:
        theirs = right.map(name)
        assert name.startswith("readout") or ((theirs > LOST[np.float32]) & (theirs < 1e-25)).any()
        assert_close_or_too_small(ours.map(name), theirs, np.float32, right=4e-4)


@pytest.mark.parametrize("B", [1, 3, 14])
@pytest.mark.parametrize(("of_input", "of_loss"), [
    (1e-10, 1e-20), (1, 1e-30), (1e18, 1e-30), (1, 1), (1e18, 1), (1e-15, 1e18), (1, 1e18), (1e16, 1e16),
])  # fmt: skip
@pytest.mark.parametrize("cell", ["rnn relu", "gru before", "lstm both"])
def test_norms_of_factors_whose_squares_leave_the_range_of_float32(cell, of_input, of_loss, B):
    """The inputs are so large and W_xh so small that the states are as ever; the loss is as large as its weights."""
    problem = make_problem(cell, seed=3, T=3, B=B, D=3, H=5, loss="squared_error", reduction="sum", scale=0.4)
    params = {name: p / of_input if name == "layer0.W_xh" else p for name, p in problem.params.items()}
    problem = changed(problem, params=params, x=problem.x * of_input, mask=np.full((3, B), of_loss))
    right = recorded(problem, keep="norms", map=True, shares=True)
    ours = recorded(problem, np.float32, engine="compiled", keep="norms", map=True, shares=True)
    for name in right.names:
        for numbers in ("norms", "sequence_norms", "map", "shares"):
            theirs = getattr(right, numbers)(name)
            found = getattr(ours, numbers)(name).astype(np.float64)
            assert np.abs(found - theirs).max() <= 1e-4 * np.abs(theirs).max(), (numbers, name)
        assert ours.residuals[name] < 1e-4, name
    assert np.abs(ours.state_norms() - right.state_norms()).max() <= 1e-4 * right.state_norms().max()


def outcome(run, engine, *arguments, **named):
    """What is said of numbers that are not finite, None if nothing."""
    try:
        run(*arguments, engine=engine, **named)
    except NotFiniteError as error:
        return str(error)
    return None


def exploding(dtype):
    """Every step back multiplies by 600, while the states stay small."""
    network = Network.create("rnn", inputs=2, hidden=4, outputs=1, nonlinearity="relu", dtype=dtype)
    small = dtype(1e-36 if dtype is np.float32 else 1e-300)
    network.params["layer0.W_xh"][:], network.params["layer0.b"][:] = 0, small
    network.params["layer0.W_hh"][:], network.params["readout.W"][:] = 150, 1
    T = 16 if dtype is np.float32 else 113
    return network, Batch(np.ones((T, 1, 2)), np.zeros((T, 1, 1))), Loss("squared_error", "sum", "last")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_exploding_gradient_has_the_words_of_the_reference(dtype):
    given = exploding(dtype)
    assert np.isfinite(evaluate(*given, engine="compiled")[0]).all(), "the way forward is fine"
    for run, named in (
        (gradient, {}), (gradient, {"plan": "checkpointed:3"}), (gradient, {"plan": "windowed:1000"}),
        (record, {"keep": "norms", "map": True}), (record, {"keep": "factors", "shares": True}),
    ):  # fmt: skip
        theirs = outcome(run, "reference", *given, **named)
        assert "begins with ∂J/∂s of layer0 at step" in theirs
        assert outcome(run, "compiled", *given, **named) == theirs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_whatever_is_not_finite_has_the_words_of_the_reference(cell, dtype):
    """NaN in every parameter, in every initial state; and weights so large that something overflows."""
    problem = make_problem(cell, T=4, B=3, layers=2, bidirectional=True, lengths=(4, 2, 3), loss="squared_error")

    def spoilt():
        for name in problem.params:
            (network, batch, loss), named = call(problem, dtype)
            network.params[name].flat[-1] = np.nan
            yield (network, batch, loss), named
        for prefix in problem.states:
            arguments, named = call(problem, dtype)
            named["states"][prefix][-1][0, -1] = np.nan
            yield arguments, named
        for factor in (1e10, 1e20, 1e30):
            (network, batch, loss), named = call(problem, dtype)
            network.params["readout.W"] *= dtype(factor) ** (1 if dtype is np.float32 else 8)
            yield (network, batch, loss), named

    told = 0
    for arguments, named in spoilt():
        for run in (gradient, record):
            theirs, ours = (outcome(run, engine, *arguments, **named) for engine in ("reference", "compiled"))
            assert ours == theirs
            told += theirs is not None
    assert told >= 2 * (len(problem.params) + len(problem.states) + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_overflows_only_in_uncounted_steps_is_no_error(dtype):
    """The loss of step 1 alone counts; from step 3 on the states are infinite."""
    problem = make_problem("rnn relu", T=6, B=1, D=1, H=1, O=1, loss="squared_error", reduction="sum")
    large = float(np.finfo(dtype).max) ** 0.5
    params = {name: np.zeros_like(value) for name, value in problem.params.items()}
    params |= {"layer0.W_hh": np.array([[large]]), "readout.W": np.ones((1, 1))}
    mask = np.zeros((6, 1))
    mask[0] = 1
    start = {"layer0.": (np.full((1, 1), 1 / large),)}
    problem = changed(problem, params=params, mask=mask, x=np.zeros((6, 1, 1)), states=start)
    arguments, named = call(problem, dtype)
    theirs, ours = (outcome(gradient, engine, *arguments, **named) for engine in ("reference", "compiled"))
    assert ours == theirs

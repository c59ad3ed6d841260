"""The compiled engine against the reference: every number of both, for sizes that meet every tile, edge and thread.

The reference is held against the oracles elsewhere; so is the compiled engine, for small sizes. Here the sizes are such
that rows and columns come in whole tiles, in parts of them, and in several.
"""

import contextlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt.engine import Checkpointed, gradient, predict, record
from bptt.errors import InputError
from bptt.ledger import Ledger
from oracles.bridge import call, differences, everything, network_of, recorded
from oracles.problems import CELLS, changed, make_problem, problems

PLANS = ("full", "full", "chunked", "windowed")
SAME = 2e-13  # float64; worst of 1,000 such problems: 2.1e-14, of shares
CLOSE = (
    5e-5  # float32 against float64; worst: 1.3e-5, of an initial state's gradient, where the reference is off by 1.2e-5
)


def assert_the_same_numbers(problem, keep="factors", plan=None):
    right = everything(problem, engine="reference", keep=keep, plan=plan)
    ours = differences(everything(problem, engine="compiled", keep=keep, plan=plan), right)
    assert max(ours.values()) < SAME, ours
    single = everything(problem, np.float32, engine="compiled", keep=keep, plan=plan)
    assert all(value.dtype == np.float32 for value in single.values())
    ours = differences({key: value.astype(np.float64) for key, value in single.items()}, right)
    assert max(ours.values()) < CLOSE, ours


@pytest.mark.parametrize("B", range(1, 41))
def test_every_number_of_sequences(B):
    """Norms of up to 12 rows are from Gram matrices, beyond from the product of each step."""
    cell = list(CELLS)[B % 8]
    assert_the_same_numbers(
        make_problem(cell, seed=B, T=3, B=B, D=1 + B % 9, H=1 + 11 * B % 37, scale=0.25, ids=B % 3 == 0)
    )


@pytest.mark.parametrize("H", [*range(1, 36), 47, 48, 49, 63, 64, 65, 70])
def test_every_number_of_units(H):
    cell, B = list(CELLS)[H % 8], (1, 2, 3, 4, 5, 7, 13, 18)[(H + H // 8) % 8]
    size = {"T": 3, "B": B, "D": 1 + 3 * H % 34, "H": H, "O": 1 + H % 19, "loss": "squared_error"}
    assert_the_same_numbers(make_problem(cell, seed=H, scale=min(0.7, 1.5 / H**0.5), bidirectional=H % 2 == 0, **size))


@settings(parent=settings(), max_examples=2 * settings().max_examples)
@given(
    problems(cuts=PLANS, max_B=20, max_D=40, max_H=40, scales=(0.25, 0.1)),
    st.sampled_from(["norms", "factors", "full"]),
    st.none() | st.integers(1, 6),
)
def test_everything_there_is(problem, keep, n):
    """Every cell, layers, both directions, lengths, ids, masks, losses, plans, what is kept, initial states."""
    plan = Checkpointed(n) if n is not None and problem.cut == ("full",) else None
    assert_the_same_numbers(problem, keep, plan)


@pytest.mark.parametrize("cell", ["rnn tanh", "gru after", "gru before", "lstm both"])
@pytest.mark.parametrize("B", [1, 5, 13])
def test_long_sequences(cell, B):
    """More steps than are added up at once, multiplied at once and walked at once. In float32 worst 1.3e-6."""
    problem = make_problem(cell, T=700, B=B, D=3, H=9, scale=0.3, loss="squared_error")
    for plan in ("full", "checkpointed", "chunked:100"):
        right = gradient_of(problem, "reference", plan)
        largest = max(np.abs(value).max() for value in right.values())
        for dtype, allowed in ((np.float64, SAME), (np.float32, 1e-5)):
            ours = gradient_of(problem, "compiled", plan, dtype)
            for name, value in right.items():
                assert np.abs(ours[name] - value).max() < allowed * largest, (name, plan)


def gradient_of(problem, engine, plan, dtype=np.float64):
    arguments, named = call(problem, dtype)
    return gradient(*arguments, engine=engine, **(named | {"plan": plan})).gradients


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dx_is_left_out_where_nobody_asks_and_nothing_else_changes(dtype):
    arguments, named = call(make_problem("gru after", layers=2, T=5), dtype)
    for engine in ("reference", "compiled"):
        asked = gradient(*arguments, engine=engine, **named)
        unasked = gradient(*arguments, engine=engine, dx=False, **named)
        assert asked.dx is not None
        assert unasked.dx is None, engine
        assert all(np.array_equal(unasked.gradients[name], value) for name, value in asked.gradients.items())
        assert all(
            np.array_equal(a, b) for a, b in zip(unasked.dstates["layer0."], asked.dstates["layer0."], strict=True)
        )


def spread(a):
    """Every second element of a larger array."""
    whole = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    whole[..., ::2] = a
    return whole[..., ::2]


def fixed(a):
    """Not to be written."""
    a = a.copy()
    a.flags.writeable = False
    return a


def backwards(a):
    """With a negative stride."""
    return a[::-1].copy()[::-1]


def swapped(a):
    """Bytes in the order of other machines."""
    return a.astype(a.dtype.newbyteorder())


def assert_moved_arrays_change_nothing(problem, dtype, lie, *moved):
    (network, batch, loss), named = call(problem, dtype)
    expected = gradient(network, batch, loss, engine="compiled", **named)
    if "weights" in moved:
        network = network_of(problem, dtype)
        network.params.update({name: lie(value) for name, value in network.params.items()})
    if "states" in moved:
        named["states"] = {prefix: type(s)(*map(lie, s)) for prefix, s in named["states"].items()}
    if "batch" in moved:
        batch = batch._replace(**{name: lie(value) for name, value in batch._asdict().items() if value is not None})
    ours = gradient(network, batch, loss, engine="compiled", **named)
    assert np.array_equal(ours.losses, expected.losses)
    assert (ours.dx is None and expected.dx is None) or np.array_equal(ours.dx, expected.dx)
    assert all(np.array_equal(ours.gradients[name], value) for name, value in expected.gradients.items())
    for prefix, parts in expected.dstates.items():
        assert all(np.array_equal(one, two) for one, two in zip(ours.dstates[prefix], parts, strict=True))


@pytest.mark.parametrize("lie", [spread, np.asfortranarray, fixed, backwards, swapped])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_how_a_batch_lies_in_memory_changes_no_number(lie, ids, loss):
    problem = make_problem("lstm", T=4, B=3, D=4, H=5, loss=loss, lengths=(4, 2, 3), mask="binary", ids=ids)
    assert_moved_arrays_change_nothing(problem, np.float64, lie, "batch", "states")


@pytest.mark.parametrize("lie", [spread, np.asfortranarray, fixed, backwards])
@pytest.mark.parametrize(("cell", "dtype", "ids"), [
    ("rnn tanh", np.float32, True), ("gru before", np.float64, False), ("lstm both", np.float32, False),
])  # fmt: skip
def test_how_weights_lie_in_memory_changes_no_number(lie, cell, dtype, ids):
    assert_moved_arrays_change_nothing(make_problem(cell, T=4, B=3, D=4, H=5, ids=ids), dtype, lie, "weights")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64])
def test_ids_and_classes_may_be_whole_numbers_of_any_kind(kind):
    arguments, named = call(make_problem("lstm", ids=True, D=5, O=4))
    network, batch, loss = arguments
    expected = gradient(*arguments, engine="compiled", **named)
    ours = gradient(
        network,
        batch._replace(x=batch.x.astype(kind), targets=batch.targets.astype(kind)),
        loss,
        engine="compiled",
        **named,
    )
    assert ours.loss == expected.loss
    assert all(np.array_equal(ours.gradients[name], value) for name, value in expected.gradients.items())


@pytest.mark.parametrize(("dtype", "other"), [(np.float32, np.float64), (np.float64, np.float32)])
@pytest.mark.parametrize("cell", ["gru before", "lstm both"])
def test_one_parameter_of_another_dtype_is_taken_for_what_it_is_or_refused(cell, dtype, other):
    """As after `network.params["layer0.W_hh"] = np.eye(5)` in a network of float32."""
    problem = make_problem(cell, T=4, B=3, D=3, H=5, layers=2, scale=0.4)
    right = recorded(problem).gradients
    largest = max(np.abs(value).max() for value in right.values())
    for name in problem.params:
        (network, batch, loss), named = call(problem, dtype)
        network.params[name] = network.params[name].astype(other)
        with contextlib.suppress(InputError):
            ours = gradient(network, batch, loss, engine="compiled", **named).gradients
            assert all(np.abs(ours[n] - value).max() < CLOSE * largest for n, value in right.items()), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("B", [2, 12, 13, 14])
@pytest.mark.parametrize("ids", [False, True])
def test_norms_where_sequences_cancel(dtype, B, ids):
    """Pairs of sequences that pull against each other: ‖dW_t‖ is a thousandth of the sum of ‖dW_tb‖."""
    problem = make_problem("gru after", T=4, B=B, D=3, H=5, O=2, loss="squared_error", reduction="sum", ids=ids)
    pairs = np.arange(B) // 2 * 2
    start = {prefix: tuple(part[pairs] for part in parts) for prefix, parts in problem.states.items()}
    problem = changed(problem, x=problem.x[:, pairs], states=start)
    (network, batch, _loss), named = call(problem)
    y = predict(network, batch.x, None, named["states"], engine="reference")[0]
    error = np.where(np.arange(B) % 2, -1, 1 + 1e-3)[:, None] * 0.1
    error[-1] *= 1 if B % 2 == 0 else 1e-3
    problem = changed(problem, targets=y - error)
    right, ours = recorded(problem), recorded(problem, dtype, engine="compiled")
    for name in right.names:
        whole, terms = right.norms(name), right.sequence_norms(name).sum(1)
        assert (whole < 2e-3 * terms).all()
        allowed = (2e-5 if dtype is np.float32 else 1e-13) * terms.max()
        assert np.abs(ours.norms(name) - whole).max() < allowed, name
        assert np.abs(ours.map(name).astype(np.float64) - right.map(name)).max() < allowed, name


@pytest.mark.parametrize("keep", ["norms", "factors", "full"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_ledger_is_saved_whole_and_lives_on_when_the_batch_is_gone(cell, keep, tmp_path):
    problem = make_problem(cell, T=4, B=2, layers=2, bidirectional=True, lengths=(4, 2), ids=True)
    (network, batch, loss), named = call(problem, np.float32)
    ledger = record(network, batch, loss, engine="compiled", keep=keep, map=True, shares=True, **named)
    untouched = everything_of(recorded(problem, np.float32, engine="compiled", keep=keep, map=True, shares=True))
    for array in (batch.x, batch.targets, batch.lengths, *network.params.values(), *named["states"]["layer0."]):
        array[...] = 0
    ledger.save(tmp_path / "ledger.safetensors")
    loaded = Ledger.load(tmp_path / "ledger.safetensors")
    assert loaded.meta == ledger.meta
    for found in (everything_of(ledger), everything_of(loaded), everything_of(pickle.loads(pickle.dumps(ledger)))):
        assert found.keys() == untouched.keys()
        assert all(np.array_equal(found[key], value) for key, value in untouched.items())


def everything_of(ledger):
    """All that a ledger can be asked for."""
    asked = ["gradient", "norms", "sequence_norms", "shares", "map"]
    asked += ["step_gradients", "cosines"] * (ledger.meta["keep"] != "norms")
    asked += ["contributions"] * (ledger.meta["keep"] == "full")
    out = {(what, name): getattr(ledger, what)(name) for what in asked for name in ledger.names}
    out |= {("states", prefix): value for prefix, value in ledger.states.items()}
    out |= {("residual", name): np.float32(value) for name, value in ledger.residuals.items()}
    return out | {("losses", ""): ledger.losses}

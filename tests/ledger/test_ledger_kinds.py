"""Ledgers of other models: uses of every kind, each question against brute force over the whole table C[k, t]."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bptt
from bptt.errors import DamagedFile, InputError, NotKeptError, ShapeError, UnknownName
from bptt.ledger import Ledger, Place, reductions
from bptt.ledger.export import rows
from bptt.ledger.recorder import Recorder
from bptt.storage import read_arrays, write_arrays
from bptt.train.attribution import _attribute
from bptt.train.optimisers import ParameterUpdate
from bptt.uses import Columns, Elementwise, Linear, Matmul, Ready, with_factors
from oracles.bridge import recorded
from oracles.problems import make_problem

GATES = ("i", "f")
NAMES = {"linear": "cell.weight_ih", "ready": "cell.weight_hh", "ready bias": "cell.bias", "ready number": "cell.scale"}


def of_losses(kind, rng, K, T):
    """A use as K losses see it, and its table C (K, T, *shape of W): sums over the sequences, written out."""
    B, M, N = rng.integers(1, 4), rng.integers(1, 5), 2 * rng.integers(1, 4)
    if kind == "linear":
        z, delta = rng.standard_normal((T, B, M)), rng.standard_normal((K, T, B, N))
        return Linear(z, delta), (delta[..., :, None] * z[..., None, :]).sum(2)
    C = rng.standard_normal((K, T, *{"ready": (N, M), "ready bias": (N,), "ready number": ()}[kind]))
    return Ready(C), C


def ledger_of(tables, *, full=True, loss_steps=None, reverse=False, states=None):
    """The ledger of {kind: (use, C)}."""
    names = {NAMES[kind]: pair for kind, pair in tables.items()}
    K = len(next(iter(tables.values()))[1])
    key = next(iter(states), "") if states else ""
    return Ledger(
        {"network": "by hand", "keep": "full" if full else "factors", "B": 2},
        np.arange(1.0, K + 1),
        {name: C.sum((0, 1)) for name, (_, C) in names.items()},
        {name: Place(key, reverse, GATES if C.ndim > 2 else (), 0) for name, (_, C) in names.items()},
        {key: reverse} if key else {},
        states or {},
        uses={name: reductions.over_losses(use) for name, (use, _) in names.items()},
        loss_uses={name: use for name, (use, _) in names.items()} if full else {},
        maps={name: size_of(C, 2) for name, (_, C) in names.items()} if full else {},
        loss_steps=None if loss_steps is None else np.array(loss_steps),
    )


def size_of(a, lead):
    return np.sqrt(np.square(a).reshape(*a.shape[:lead], -1).sum(-1))


def close(ours, theirs):
    assert np.shape(ours) == np.shape(theirs)
    assert np.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@st.composite
def cases(draw):
    """Tables of several parameters, each with its own number of uses where the losses are not in step with them."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    T = draw(st.integers(1, 5))
    aligned = draw(st.booleans())
    K = T if aligned else draw(st.integers(1, T))
    at = None if aligned else sorted(int(step) for step in rng.integers(1, T + 1, K))
    kinds = draw(st.lists(st.sampled_from(list(NAMES)), min_size=1, max_size=4, unique=True))
    return {kind: of_losses(kind, rng, K, T) for kind in kinds}, at, draw(st.booleans())


def asked(name, C):
    """What may be asked for, and its own table: the parameter, and each of its gates, which are rows."""
    yield name, C
    if C.ndim > 2:
        half = C.shape[2] // 2
        yield f"{name}.i", C[:, :, :half]
        yield f"{name}.f", C[:, :, half:]


@given(cases())
def test_every_question_has_the_answer_of_the_whole_table(case):
    tables, at, reverse = case
    ledger = ledger_of(tables, loss_steps=at, reverse=reverse)
    for kind, (use, C) in tables.items():
        for name, table in asked(NAMES[kind], C):
            check_steps(ledger, name, table)
            check_losses(ledger, name, table)
            check_lags(ledger, name, table, at, reverse)
        if kind == "linear":
            alone = use.delta.sum(0)[..., :, None] * use.z[..., None, :]
            for (name, _), (_, each) in zip(asked(NAMES[kind], C), asked("", alone), strict=True):
                close(ledger.sequence_norms(name), size_of(each, 2))
        else:
            with pytest.raises(NotKeptError, match="norms by sequence: got dW_t with all sequences added up"):
                ledger.sequence_norms(NAMES[kind])
    assert ledger.residual < 1e-10 or min(np.abs(g).max() for g in ledger.gradients.values()) < 1e-3


def check_steps(ledger, name, C):
    steps, dW = C.sum(0), C.sum((0, 1))
    flat = steps.reshape(len(steps), -1)
    norms = np.linalg.norm(flat, axis=1)
    assert ledger.steps(name) == len(steps)
    close(ledger.gradient(name), dW)
    close(ledger.step_gradients(name), steps)
    close(ledger.step_gradient(name, len(steps)), steps[-1])
    close(ledger.norms(name), norms)
    close(ledger.coherence(name), np.linalg.norm(dW) / norms.sum())
    close(ledger.cosines(name), flat @ flat.T / np.outer(norms, norms))
    ours, theirs = ledger.shares(name) * np.square(dW).sum(), flat @ dW.ravel()
    close(ours, theirs)


def check_losses(ledger, name, C):
    K, T = C.shape[:2]
    assert ledger.K == K
    close(ledger.contributions(name), C)
    close(ledger.map(name), size_of(C, 2))
    for k in range(1, K + 1):
        close(ledger.loss_gradient(name, k), C[k - 1].sum(0))
        close(ledger.contribution(name, k, T), C[k - 1, T - 1])


def check_lags(ledger, name, C, at, reverse):
    K, T = C.shape[:2]
    at = at or range(1, K + 1)
    lag_of = lambda k, t: t + 1 - at[k] if reverse else at[k] - t - 1  # noqa: E731
    lags = ledger.lags(name)
    assert lags.tolist() == list(range(1 - T if reverse else 0, T))
    assert ledger.has_lags(name)
    assert ledger.loss_positions(name).tolist() == list(at)
    profile = np.zeros(len(lags))
    for i, lag in enumerate(lags):
        pairs = [(k, t) for k in range(K) for t in range(T) if lag_of(k, t) == lag]
        expected = sum((C[pair] for pair in pairs), np.zeros(C.shape[2:]))
        close(ledger.lag_gradient(name, int(lag)), expected)
        column = np.zeros(K)
        for k, t in pairs:
            column[k] = np.linalg.norm(C[k, t])
        close(ledger.map_by_lag(name)[:, i], column)
        profile[i] = column.sum()
    close(ledger.lag_profile(name).values, profile)
    with pytest.raises(InputError, match=rf"^lag: got {T}, expected {lags[0]} to {T - 1}$"):
        ledger.lag_gradient(name, T)


@given(cases())
def test_the_bias_of_a_cut_is_what_the_further_contributions_make(case):
    tables, at, _ = case
    ledger = ledger_of(tables, loss_steps=at)
    for kind, (_, C) in tables.items():
        K, T = C.shape[:2]
        lag = np.array(at or range(1, K + 1))[:, None] - np.arange(1, T + 1)
        far = [C[lag >= cut].reshape(-1, *C.shape[2:]).sum(0) for cut in range(1, T + 1)]
        dW = C.sum((0, 1))
        bias = bptt.truncation_bias(ledger, NAMES[kind])
        assert bias.shape == (T,)
        close(bias * np.linalg.norm(dW), [np.linalg.norm(rest) for rest in far])


@given(cases(), st.booleans())
def test_a_ledger_of_any_kind_survives_a_file(tmp_path_factory, case, full):
    tables, at, reverse = case
    path = tmp_path_factory.mktemp("kinds") / "x.safetensors"
    states = {"cell.": np.ones((4, 2))}
    ledger = ledger_of(tables, full=full, loss_steps=at, reverse=reverse, states=states)
    ledger.save(path)
    loaded = Ledger.load(path)
    assert (loaded.places, loaded.reverse, loaded.meta) == (ledger.places, ledger.reverse, ledger.meta)
    assert loaded.loss_steps is None if at is None else loaded.loss_steps.tolist() == at
    assert loaded.residuals == ledger.residuals
    for field in ("uses", "loss_uses"):
        ours, theirs = getattr(loaded, field), getattr(ledger, field)
        assert list(ours) == list(theirs)
        for name, use in theirs.items():
            assert type(ours[name]) is type(use)
            assert all(np.array_equal(a, b) for a, b in zip(ours[name], use, strict=True))


def different_uses(seed=0, **options):
    """A layer used at 5 steps under one loss, a readout that is used once, and a number used three times."""
    rng = np.random.default_rng(seed)
    tables = {kind: of_losses(kind, rng, 1, T) for kind, T in (("linear", 5), ("ready", 1), ("ready number", 3))}
    return ledger_of(tables, **options), {NAMES[kind]: C for kind, (_, C) in tables.items()}


def test_each_parameter_has_its_own_number_of_uses():
    ledger, tables = different_uses()
    assert (ledger.T, ledger.K) == (5, 1)
    for name, C in tables.items():
        assert ledger.steps(name) == C.shape[1]
        assert ledger.map(name).shape == C.shape[:2]
        check_steps(ledger, name, C)
        check_losses(ledger, name, C)
    for ask in (ledger.step_gradient, ledger.factors):
        with pytest.raises(InputError, match=r"^step: got 4, expected 1 to 3$"):
            ask("scale", 4)
    with pytest.raises(InputError, match=r"^loss step: got 2, expected 1 to 1$"):
        ledger.loss_gradient("scale", 2)


@pytest.mark.parametrize("field", ["uses", "loss_uses", "maps", "step_norms"])
def test_the_number_of_uses_is_known_from_whatever_was_kept(field):
    ledger, tables = different_uses()
    norms = {name: ledger.norms(name) for name in ledger.names}
    kept = {"uses": {}, "loss_uses": {}, "maps": {}, "step_norms": {}}
    kept[field] = norms if field == "step_norms" else getattr(ledger, field)
    some = dataclasses.replace(ledger, **kept)
    assert [some.steps(name) for name in some.names] == [C.shape[1] for C in tables.values()]


def test_lags_without_positions_say_what_to_do():
    ledger, _ = different_uses()
    line = r"^lags of cell.weight_ih: got 1 loss and 5 uses, which are not aligned. Say at which step .* stands: at=…$"
    for ask in (ledger.map_by_lag, ledger.lag_profile, ledger.loss_positions):
        with pytest.raises(InputError, match=line):
            ask("weight_ih")
    with pytest.raises(InputError, match=line):
        ledger.lag_gradient("weight_ih", 1)
    with pytest.raises(InputError, match=line):
        bptt.truncation_bias(ledger, "weight_ih")
    assert not ledger.has_lags("weight_ih")
    assert ledger.has_lags("weight_hh"), "one loss and one use stand beside each other"


def test_lags_of_a_parameter_that_is_not_used_at_every_step_are_not_made_up():
    ledger, _ = different_uses(loss_steps=[5])
    assert ledger.lag_profile("weight_ih").values.shape == (5,)
    with pytest.raises(InputError, match=r"lags of cell.scale: got a loss at step 5 and 3 uses, which are not aligned"):
        ledger.lag_profile("scale")


def test_positions_of_losses_are_checked():
    with pytest.raises(ShapeError, match=r"^loss_steps: got shape \(2,\), expected \(K,\) = \(1,\)$"):
        different_uses(loss_steps=[1, 2])
    for wrong in ([0], [1.5]):
        with pytest.raises(InputError, match=r"^loss_steps: got \[.*\], expected whole numbers from 1 on$"):
            different_uses(loss_steps=wrong)


def test_a_ledger_without_a_state_says_so():
    ledger, _ = different_uses()
    for ask in (ledger.layer, ledger.state_norms, ledger.gains, lambda: ledger.state_gradient(1)):
        with pytest.raises(InputError, match=r"^this ledger has no state. Only what walks through time carries one"):
            ask()
    assert repr(ledger).startswith("Ledger(by hand; T=5, loss 1, residual ")


def test_states_of_another_model_are_known_by_key_or_number():
    states = {"lstm.l0.": np.arange(1.0, 9).reshape(4, 2), "lstm.l0_reverse.": np.ones((3, 2))}
    ledger, _ = different_uses(states=states)
    ledger.reverse["lstm.l0_reverse."] = True
    assert ledger.layer("lstm.l0") == ledger.layer("lstm.l0.") == ledger.layer(0) == "lstm.l0."
    assert ledger.layer(1) == "lstm.l0_reverse."
    for wrong in (2, -1, "lstm.l1"):
        with pytest.raises(UnknownName, match=f"layer: got '{wrong}', expected one of lstm.l0, lstm.l0_reverse"):
            ledger.layer(wrong)
    assert ledger.state_norms(0).shape == (4,)
    assert ledger.gains(1).tolist() == [1, 1]
    parts = {"lstm.l0.": (np.arange(24.0).reshape(4, 2, 3),)}
    ledger.state_parts.update(parts)
    assert np.array_equal(ledger.state_gradient(3)[0], parts["lstm.l0."][0][3])
    with pytest.raises(InputError, match=r"^step: got 4, expected 0 to 3$"):
        ledger.state_gradient(4)
    with pytest.raises(NotKeptError, match="∂J/∂s_t: got norms only"):
        ledger.state_gradient(1, 1)


def test_a_gate_that_a_parameter_does_not_have_is_unknown():
    ledger, _ = different_uses()
    for name in ("scale.f", "weight_ih.g", "weight_ih.f.f", "f", ".f"):
        with pytest.raises(UnknownName, match="parameter: got"):
            ledger.gradient(name)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("kind", ["matmul", "ids", "linear", "ready", "columns"])
def test_a_block_of_a_use_is_that_block_of_its_matrices(kind, axis):
    rng = np.random.default_rng(0)
    z, delta = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 6))
    use, shape = {
        "matmul": (Matmul(z, delta), (4, 6)),
        "ids": (Matmul(rng.integers(0, 4, (3, 2)), delta), (4, 6)),
        "linear": (Linear(z, delta), (6, 4)),
        "ready": (Ready(rng.standard_normal((3, 6, 4))), (6, 4)),
        "columns": (Columns((Matmul(z, delta), Matmul(2 * z, delta[..., :2]))), (4, 8)),
    }[kind]
    block, whole = slice(1, 3), reductions.matrices(use, shape)
    expected = whole[..., block] if axis == -1 else whole[..., block, :]
    part = reductions.block_of(use, block, axis)
    close(reductions.matrices(part, expected.shape[1:]), expected)
    close(reductions.total(part, expected.shape[1:]), expected.sum(0))


def test_blocks_of_an_elementwise_use_take_its_input_along():
    z, delta = np.arange(12.0).reshape(2, 1, 6), np.ones((2, 1, 6))
    part = reductions.block_of(Elementwise(z, delta), slice(2, 4), -1)
    assert reductions.matrices(part, (2,)).tolist() == [[2, 3], [8, 9]]


def test_a_linear_use_is_the_transpose_of_a_product():
    rng = np.random.default_rng(1)
    z, delta = rng.standard_normal((7, 2, 3)), rng.standard_normal((7, 2, 5))
    ours, theirs = Linear(z, delta), Matmul(z, delta)
    W = rng.standard_normal((5, 3))
    close(reductions.total(ours, (5, 3)), reductions.total(theirs, (3, 5)).T)
    close(reductions.inner(ours, W), reductions.inner(theirs, W.T))
    assert type(with_factors(ours, delta=np.negative)) is Linear


@pytest.mark.parametrize("keep", ["factors", "norms", "full"])
def test_a_recorder_takes_in_uses_of_every_kind(keep):
    rng = np.random.default_rng(2)
    C, z = rng.standard_normal((4, 4, 2, 3)), rng.standard_normal((4, 2, 3))
    delta = rng.standard_normal((4, 4, 2, 6))
    shapes = {"a": (2, 3), "w": (6, 3)}
    recorder = Recorder(shapes, 4, 2, np.float64, keep, map=False)
    for start in (2, 0):
        steps = slice(start, start + 2)
        recorder.add(start, {"a": Ready(C.sum(0)[steps]), "w": Linear(z[steps], delta.sum(0)[steps])})
        recorder.add_losses(start, {"a": Ready(C[:, steps]), "w": Linear(z[steps], delta[:, steps])}, {})
    gradients = {"a": C.sum((0, 1)), "w": np.einsum("ktbn,tbm->nm", delta, z)}
    places = {"a": Place(), "w": Place("", False, GATES, 0)}
    ledger = recorder.ledger(np.ones(4), gradients, {"network": "by hand"}, places, {})
    assert ledger.residual < 1e-13
    close(ledger.norms("a"), size_of(C.sum(0), 1))
    assert set(ledger.step_sequence_norms) == ({"w"} if keep == "norms" else set())
    if keep == "full":
        close(ledger.contributions("a"), C)
        close(ledger.contributions("w.f"), np.einsum("ktbn,tbm->ktnm", delta, z)[:, :, 3:])


def test_what_moved_the_weights_is_known_for_every_kind():
    ledger, tables = different_uses()
    for name, C in tables.items():
        steps, scale = C.sum(0), np.abs(C.sum((0, 1))) + 1
        delta = scale * steps.sum(0)
        found = _attribute(ParameterUpdate(delta, rate=scale, weight=1.0), ledger.uses[name])
        close(found.shares.sum(), 1.0)
        close(found.norms, size_of(scale * steps, 1))


# ---- other programs ----------------------------------------------------------------------------------------------


@given(cases())
def test_rows_and_xarray_have_the_same_numbers(case):
    tables, at, reverse = case
    ledger = ledger_of(tables, loss_steps=at, reverse=reverse)
    found, data = rows(ledger), ledger.to_xarray()
    assert not {"layer", "gain"} & set(data.coords) | {"gain"} & set(data)
    for kind, (_, C) in tables.items():
        name, (K, T) = NAMES[kind], C.shape[:2]
        own = [row for row in found if row["parameter"] == name]
        uses = [row for row in own if row["kind"] == "use"]
        close([row["norm"] for row in uses], size_of(C.sum(0), 1))
        assert [row["step"] for row in uses] == list(range(1, T + 1))
        assert not any("gain" in row for row in uses)
        for row in own[T:]:
            k, t = row["loss_step"], row["step"]
            lag = (at[k - 1] if at else k) - t
            assert row["lag"] == (-lag if reverse else lag)
            close(row["norm"], np.linalg.norm(C[k - 1, t - 1]))
        assert len(own) == T + K * T
        close(data["norm"].sel(parameter=name), size_of(C.sum(0), 1))
        close(data["map"].sel(parameter=name), size_of(C, 2))
    assert ("loss_at" in data.coords) == (at is not None)


def test_uses_of_different_number_are_filled_up_in_xarray_and_nowhere_else(tmp_path):
    ledger, tables = different_uses(states={"cell.": np.ones((7, 2))})
    data = ledger.to_xarray()
    assert data.sizes == {"parameter": 3, "step": 6, "loss_step": 1, "layer": 1}
    for name, C in tables.items():
        for what in (data["norm"], data["share"], data["map"].isel(loss_step=0)):
            one = what.sel(parameter=name).values
            assert np.isnan(one).tolist() == [t >= C.shape[1] for t in range(6)]
    assert data["gain"].sel(layer="cell").values.tolist() == [1] * 6
    ledger.to_npz(tmp_path / "x.npz")
    ledger.to_csv(tmp_path / "x.csv")
    with np.load(tmp_path / "x.npz") as found:
        for name, C in tables.items():
            assert found[f"norms/{name}"].shape == (C.shape[1],)
            assert found[f"map/{name}"].shape == C.shape[:2]
        assert "loss_steps" not in found.files
    with open(tmp_path / "x.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * (5 + 1 + 3)
    assert {row["gain"] for row in table} == {""}, "the state has other steps than the uses"
    lags = {row["parameter"]: row["lag"] for row in table if row["kind"] == "contribution"}
    assert lags == {"cell.weight_ih": "", "cell.weight_hh": "0", "cell.scale": ""}


def test_positions_of_losses_stand_in_an_npz(tmp_path):
    different_uses(loss_steps=[4])[0].to_npz(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        assert found["loss_steps"].tolist() == [4]


# ---- files of the schema before ----------------------------------------------------------------------------------


def test_a_file_of_schema_1_is_read_with_the_places_its_names_meant():
    """Written by the version before schema 2, from the same problem that is recorded again here."""
    old = Ledger.load(Path(__file__).with_name("schema-1.safetensors"))
    new = recorded(make_problem("lstm", T=2, B=1, D=1, H=1, O=4, bidirectional=True, seed=3))
    assert old.places == new.places
    assert old.places["layer0.reverse.b"] == Place("layer0.reverse.", True, ("i", "f", "g", "o"))
    assert old.places["readout.b"] == Place(), "its four columns are no gates"
    assert (old.meta["schema"], old.loss_steps, old.reverse) == (2, None, new.reverse)
    for name in new.names:
        close(old.map(name), new.map(name))
        close(old.map_by_lag(name), new.map_by_lag(name))
    close(old.gradient("layer0.W_hh.f"), new.gradient("layer0.W_hh.f"))
    assert old.residual < 1e-14


def test_a_file_whose_positions_are_no_steps_is_damaged(tmp_path):
    different_uses(loss_steps=[4])[0].save(tmp_path / "x")
    arrays, info = read_arrays(tmp_path / "x", format="bptt.ledger", schema=2)
    write_arrays(tmp_path / "x", arrays | {"loss_steps": np.zeros(1)}, format="bptt.ledger", schema=2, info=info)
    with pytest.raises(DamagedFile, match="expected a complete ledger"):
        Ledger.load(tmp_path / "x")
    broken = info | {"places": {"cell.scale": {"state": "", "gates": [], "side": 0}}}
    write_arrays(tmp_path / "x", arrays, format="bptt.ledger", schema=2, info=broken)
    with pytest.raises(DamagedFile, match="expected a complete ledger"):
        Ledger.load(tmp_path / "x")

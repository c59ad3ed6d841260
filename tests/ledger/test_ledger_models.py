"""Parameters with uses of their own number, losses at their own steps, no state: in every question and every format."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

import bptt
from bptt.cli.main import run
from bptt.errors import DamagedFile, InputError, NotKeptError, ShapeError, UnknownName
from bptt.ledger import Ledger, Place
from bptt.ledger.export import rows
from bptt.storage import read_arrays, write_arrays
from oracles.bridge import recorded
from oracles.by_hand import (
    NAMES,
    cases,
    check_losses,
    check_steps,
    close,
    different_uses,
    ledger_of,
    size_of,
)
from oracles.problems import make_problem


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
    found = {row["parameter"]: row["lag"] for row in table if row["kind"] == "contribution"}
    assert found == {"cell.weight_ih": "", "cell.weight_hh": "0", "cell.scale": ""}


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


def test_what_was_not_kept_of_some_parameters_is_nan_in_xarray():
    ledger, _ = different_uses()
    maps = {"cell.weight_ih": ledger.maps["cell.weight_ih"]}
    norms = {name: ledger.norms(name) for name in ledger.names}
    some = dataclasses.replace(ledger, maps=maps, uses={"cell.scale": ledger.uses["cell.scale"]}, step_norms=norms)
    data = some.to_xarray()
    assert data["share"].notnull().sum("step").values.tolist() == [0, 0, 3]
    assert data["map"].notnull().sum(["loss_step", "step"]).values.tolist() == [5, 0, 0]
    assert data["norm"].notnull().sum("step").values.tolist() == [5, 1, 3]


def test_commands_show_and_export_a_ledger_without_a_state(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    different_uses()[0].save(path)
    assert run(["show", str(path), "--plot", str(tmp_path / "x.svg")]) == 0
    assert "uses of cell.weight_hh" in capsys.readouterr().out, "the recurrent weight"
    assert run(["show", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["ledger"]
    assert (shown["layers"], shown["horizon"]) == ({}, {})
    assert [len(one["norms"]) for one in shown["parameters"].values()] == [5, 1, 3]
    for kind in ("csv", "npz"):
        assert run(["export", str(path), "--to", kind]) == 0
        assert path.with_suffix(f".{kind}").stat().st_size > 100

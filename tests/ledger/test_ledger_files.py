"""A ledger as a file, and as CSV, npz and xarray: what is read is what was written."""

import csv
import errno
import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from safetensors import safe_open

from bptt.errors import DamagedFile, FileError, MissingExtra, NewerFile
from bptt.ledger import Ledger
from bptt.ledger import files as ledger_files
from bptt.ledger.export import arrays
from bptt.storage import write_arrays
from bptt.uses import Columns
from oracles.bridge import recorded
from oracles.problems import make_problem, problems

KEEPS = [{"keep": "factors"}, {"keep": "factors", "map": True}, {"keep": "norms"}, {"keep": "norms", "map": True}, {}]
PLAIN = ("gradients", "states", "maps", "step_norms", "step_sequence_norms")


def flat(uses):
    """name/part → z and δ."""
    out = {}
    for name, use in uses.items():
        for i, part in enumerate(use.parts if isinstance(use, Columns) else (use,)):
            out[f"{name} {i} {type(part).__name__}"] = (part.z, part.delta)
    return out


def assert_same(ours, theirs):
    assert ours.names == theirs.names
    assert (ours.meta, ours.places, ours.reverse) == (theirs.meta, theirs.places, theirs.reverse)
    assert ours.residuals == theirs.residuals
    same = lambda a, b: a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()  # noqa: E731
    assert same(ours.losses, theirs.losses)
    for field in PLAIN:
        a, b = getattr(ours, field), getattr(theirs, field)
        assert a.keys() == b.keys(), field
        assert all(same(a[name], b[name]) for name in a), field
    assert ours.state_parts.keys() == theirs.state_parts.keys()
    for prefix, parts in theirs.state_parts.items():
        assert all(same(a, b) for a, b in zip(ours.state_parts[prefix], parts, strict=True))
    for field in ("uses", "loss_uses"):
        a, b = flat(getattr(ours, field)), flat(getattr(theirs, field))
        assert list(a) == list(b), field
        for name, (z, delta) in b.items():
            assert (a[name][0] is None) == (z is None)
            assert z is None or same(a[name][0], z)
            assert same(a[name][1], delta)


@pytest.mark.parametrize("options", KEEPS)
@pytest.mark.parametrize("cell", ["rnn tanh", "gru after", "gru before", "lstm both"])
def test_a_saved_ledger_is_loaded_bit_for_bit(tmp_path, cell, options):
    ledger = recorded(make_problem(cell, layers=2, bidirectional=True, ids=True, lengths=(4, 2)), **options)
    ledger.save(tmp_path / "x.safetensors")
    loaded = Ledger.load(tmp_path / "x.safetensors")
    assert_same(loaded, ledger)
    for field in ("maps", "states"):
        assert list(getattr(loaded, field)) == list(getattr(ledger, field)), "in the same order"
    loaded.save(tmp_path / "again.safetensors")
    assert_same(Ledger.load(tmp_path / "again.safetensors"), ledger)
    assert (tmp_path / "x.safetensors").stat().st_size == (tmp_path / "again.safetensors").stat().st_size


@given(problems(cuts=("full", "chunked", "windowed")))
def test_any_ledger_survives_a_round_trip(tmp_path_factory, problem):
    path = tmp_path_factory.mktemp("ledgers") / "x.safetensors"
    ledger = recorded(problem)
    ledger.save(path)
    assert_same(Ledger.load(path), ledger)


def test_a_ledger_of_float32_stays_float32(tmp_path):
    ledger = recorded(make_problem("lstm"), np.float32)
    ledger.save(tmp_path / "x")
    assert_same(Ledger.load(tmp_path / "x"), ledger)
    assert Ledger.load(tmp_path / "x").gradient("W_hh").dtype == np.float32


def test_what_parameters_share_is_written_once(tmp_path):
    problem = make_problem("lstm", T=6, B=3, H=3)
    ledger = recorded(problem, keep="factors")
    ledger.save(tmp_path / "x")
    with safe_open(tmp_path / "x", "np") as file:
        factors = [name for name in file.keys() if name.startswith("uses/")]  # noqa: SIM118
    assert sorted(factors) == [
        "uses/layer0.W_hh/0/z", "uses/layer0.W_xh/0/delta", "uses/layer0.W_xh/0/z",
        "uses/readout.W/0/delta", "uses/readout.W/0/z",
    ]  # fmt: skip
    loaded = Ledger.load(tmp_path / "x")
    assert loaded.uses["layer0.W_hh"].delta is loaded.uses["layer0.W_xh"].delta is loaded.uses["layer0.b"].delta
    unshared = sum(part.nbytes for use in flat(ledger.uses).values() for part in use if part is not None)
    shared = sum(
        {id(part): part.nbytes for use in flat(ledger.uses).values() for part in use if part is not None}.values()
    )
    assert shared < 0.6 * unshared


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run.safetensors"
    recorded(make_problem("gru before", T=3)).save(path)
    return path


def test_a_truncated_ledger_is_damaged(saved):
    whole = saved.read_bytes()
    for size in (0, 4, 8, 50, len(whole) // 3, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(DamagedFile, match=r"run.safetensors: got a damaged or foreign file") as caught:
            Ledger.load(saved)
        assert len(str(caught.value).splitlines()) == 1


def test_a_flipped_bit_is_noticed(saved):
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(header, len(whole), 101), len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[at] ^= 4
        saved.write_bytes(flipped)
        with pytest.raises(DamagedFile, match="content that does not match its checksum, expected an intact ledger"):
            Ledger.load(saved)


def test_a_ledger_from_the_future_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_files, "SCHEMA", 3)
    recorded(make_problem("lstm")).save(tmp_path / "x")
    monkeypatch.undo()
    with pytest.raises(NewerFile, match="got ledger schema 3, expected at most 2"):
        Ledger.load(tmp_path / "x")


def test_a_file_with_parts_missing_is_damaged(tmp_path):
    write_arrays(tmp_path / "x", {"losses": np.zeros(3)}, format="bptt.ledger", schema=1, info={"names": ["W"]})
    with pytest.raises(DamagedFile, match=r"got a ledger without 'W', expected a complete ledger"):
        Ledger.load(tmp_path / "x")
    for info in (None, [], {"names": []}, "text"):
        write_arrays(tmp_path / "x", {"losses": np.zeros(3)}, format="bptt.ledger", schema=1, info=info)
        with pytest.raises(DamagedFile, match="expected a complete ledger"):
            Ledger.load(tmp_path / "x")


def test_what_is_not_a_ledger_is_named(tmp_path):
    with pytest.raises(FileError, match=r"none: got no such file, expected a ledger"):
        Ledger.load(tmp_path / "none")
    with pytest.raises(FileError, match="got a folder"):
        Ledger.load(tmp_path)
    (tmp_path / "x.txt").write_text("some words\n")
    with pytest.raises(DamagedFile):
        Ledger.load(tmp_path / "x.txt")
    write_arrays(tmp_path / "c", {}, format="bptt.checkpoint", schema=1, info={})
    with pytest.raises(DamagedFile, match="got a checkpoint, expected a ledger"):
        Ledger.load(tmp_path / "c")


@pytest.mark.parametrize("how", ["save", "to_csv", "to_npz"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, how, call):
    ledger, path = recorded(make_problem("lstm")), tmp_path / "x"
    getattr(ledger, how)(path)
    before = path.read_bytes()

    def full(*args, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(FileError, match=r"No space left on device. Nothing was changed."):
        getattr(ledger, how)(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("options", KEEPS)
def test_csv_holds_every_number_with_all_its_digits(tmp_path, options):
    ledger = recorded(make_problem("lstm", layers=2, bidirectional=True, lengths=(4, 2)), **options)
    ledger.to_csv(tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    uses = {(row["parameter"], int(row["step"])): row for row in rows if row["kind"] == "use"}
    assert len(uses) == ledger.T * len(ledger.names)
    shares = ledger.uses != {}
    for name in ledger.names:
        prefix = name.rpartition(".")[0] + "."
        for t in range(ledger.T):
            row = uses[name, t + 1]
            assert float(row["norm"]) == ledger.norms(name)[t]
            assert row["share"] == "" if not shares else float(row["share"]) == ledger.shares(name)[t]
            if name.startswith("readout"):
                assert row["state_gradient_norm"] == row["gain"] == ""
                continue
            walked = ledger.T - t if ledger.reverse[prefix] else t + 1
            assert float(row["state_gradient_norm"]) == ledger.state_norms(prefix)[walked]
            assert float(row["gain"]) == ledger.gains(prefix)[walked - 1]
    cells = [row for row in rows if row["kind"] == "contribution"]
    assert len(rows) == len(uses) + len(cells)
    seen = {name: np.zeros((ledger.T, ledger.T)) for name in ledger.maps}
    for row in cells:
        k, t = int(row["loss_step"]), int(row["step"])
        seen[row["parameter"]][k - 1, t - 1] = float(row["norm"])
        assert int(row["lag"]) == (t - k if ".reverse." in row["parameter"] else k - t)
        assert float(row["norm"]) > 0
    assert all(np.array_equal(table, seen[name]) for name, table in ledger.maps.items())


@pytest.mark.parametrize("options", KEEPS)
def test_npz_holds_the_same_arrays(tmp_path, options):
    ledger = recorded(make_problem("gru after", layers=2), **options)
    ledger.to_npz(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        expected = arrays(ledger)
        assert set(found.files) == set(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        for name in ledger.names:
            assert np.array_equal(found[f"gradient/{name}"], ledger.gradient(name))
            assert np.array_equal(found[f"norms/{name}"], ledger.norms(name))
            assert (f"map/{name}" in found.files) == bool(ledger.maps)
        assert np.array_equal(found["state_gradient_norm/layer1"], ledger.state_norms(1)[1:])
        assert found["initial_state_gradient_norm/layer1"] == ledger.state_norms(1)[0]
        assert np.array_equal(found["gain/layer0"], ledger.gains(0))
        assert found["residual"] == ledger.residual
        assert json.loads(str(found["meta"]))["plan"] == "Full()"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("options", KEEPS)
def test_xarray_has_the_same_numbers_by_label(options):
    ledger = recorded(make_problem("gru after", layers=2, bidirectional=True), **options)
    data = ledger.to_xarray()
    assert data.attrs["residual"] == ledger.residual
    assert data.attrs["plan"] == "Full()"
    assert ("share" in data) == bool(ledger.uses)
    assert ("map" in data) == bool(ledger.maps)
    for name in ledger.names:
        assert np.array_equal(data["norm"].sel(parameter=name), ledger.norms(name))
        for t in range(1, ledger.T + 1):
            if ledger.uses:
                assert data["share"].sel(parameter=name, step=t) == ledger.shares(name)[t - 1]
            if ledger.maps:
                assert np.array_equal(data["map"].sel(parameter=name, step=t), ledger.map(name)[:, t - 1])
    for prefix in ledger.states:
        layer = prefix.rstrip(".")
        order = slice(None, None, -1 if "reverse" in layer else 1)  # steps are positions, whichever way a layer walks
        assert np.array_equal(data["state_gradient_norm"].sel(layer=layer), ledger.state_norms(prefix)[1:][order])
        assert data["initial_state_gradient_norm"].sel(layer=layer) == ledger.state_norms(prefix)[0]
        assert np.array_equal(data["gain"].sel(layer=layer), ledger.gains(prefix)[order])


def test_without_xarray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingExtra, match=r"^xarray: got not installed. pip install 'bptt\[xarray\]'$"):
        recorded(make_problem("lstm")).to_xarray()


def test_equal_ledgers_are_equal_bytes(tmp_path):
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        recorded(make_problem("lstm")).save(path)
    assert len({path.read_bytes() for path in paths}) == 1

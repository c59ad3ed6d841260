"""Files: whole or not at all, and nothing damaged or foreign gets in."""

import errno
import json
import os
import stat

import numpy as np
import pytest
from safetensors.numpy import save_file

from bptt.errors import BpttError, DamagedFile, FileError, NewerFile
from bptt.storage import read_arrays, replacing, write_arrays, write_text

ARRAYS = {
    "a": np.arange(6.0).reshape(2, 3),
    "empty": np.zeros((0, 3)),
    "number": np.array(2.5, np.float32),
    "ids": np.arange(4, dtype=np.int64),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "flags": np.array([True, False]),
}
INFO = {"name": "a test", "list": [1, 2.5, None], "nan": float("nan"), "ünïcode": "∂J/∂s"}


def write(path, **changes):
    write_arrays(path, ARRAYS, **({"format": "bptt.ledger", "schema": 1, "info": INFO} | changes))
    return path


def read(path):
    return read_arrays(path, format="bptt.ledger", schema=1)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_what_is_written_is_read_bit_for_bit(tmp_path):
    arrays, info = read(write(tmp_path / "x.safetensors"))
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == np.ascontiguousarray(array).tobytes()
    assert repr(info) == repr(INFO)
    assert names(tmp_path) == ["x.safetensors"]


def test_special_numbers_survive(tmp_path):
    special = np.array([np.nan, np.inf, -0.0, 5e-324, 1e-200])
    write_arrays(tmp_path / "x", {"a": special}, format="bptt.ledger", schema=1, info=None)
    assert read(tmp_path / "x")[0]["a"].tobytes() == special.tobytes()


def test_every_truncation_is_noticed(tmp_path):
    whole = write(tmp_path / "x.safetensors").read_bytes()
    damaged = tmp_path / "cut.safetensors"
    for size in sorted({0, 1, 7, 8, 9, 100, *range(200, len(whole), 97), len(whole) - 1}):
        damaged.write_bytes(whole[:size])
        with pytest.raises(DamagedFile, match=r"cut.safetensors: got a damaged or foreign file .*, expected a ledger"):
            read(damaged)


def test_every_flipped_byte_is_noticed(tmp_path):
    """Anywhere: length, header, names, checksum, padding, data. What is read after all must be what was written."""
    whole = bytearray(write(tmp_path / "x.safetensors").read_bytes())
    damaged = tmp_path / "flipped.safetensors"
    unnoticed, lines = [], []
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 7
        damaged.write_bytes(flipped)
        try:
            arrays, info = read(damaged)
        except FileError as error:
            lines.append(str(error))
        else:
            assert all(arrays[name].tobytes() == np.ascontiguousarray(ARRAYS[name]).tobytes() for name in ARRAYS)
            assert repr(info) == repr(INFO)
            unnoticed.append(at)
    assert not any("\n" in line for line in lines)
    assert len(unnoticed) <= 1, "only the last digit of a schema can change and mean no harm"


def test_bytes_behind_the_end_are_noticed(tmp_path):
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    with pytest.raises(DamagedFile):
        read(path)


def test_a_file_of_another_program_is_foreign(tmp_path):
    save_file({"weight": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(
        DamagedFile, match=r"a safetensors file of foreign origin, expected a ledger. Was it written by"
    ):
        read(tmp_path / "model.safetensors")


def test_a_checkpoint_is_not_a_ledger(tmp_path):
    with pytest.raises(DamagedFile, match="got a checkpoint, expected a ledger"):
        read(write(tmp_path / "x", format="bptt.checkpoint"))


def test_a_newer_schema_asks_for_a_newer_version(tmp_path):
    with pytest.raises(NewerFile, match=r"got ledger schema 2, expected at most 1. Install a newer bptt to read it."):
        read(write(tmp_path / "x", schema=2))


def test_metadata_that_is_not_ours_is_damage(tmp_path):
    good = {"format": "bptt.ledger", "schema": "1", "sha256": "0" * 64, "json": json.dumps(INFO)}
    for change in ({"schema": "one"}, {"sha256": None}, {"json": None}, {"json": "{"}, {}):
        metadata = {key: value for key, value in (good | change).items() if value is not None}
        save_file(ARRAYS, tmp_path / "x", metadata)
        with pytest.raises(DamagedFile, match="expected a"):
            read(tmp_path / "x")


def test_what_is_not_a_file_of_ours_at_all_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("these are words, and enough of them to hold a header's length and more\n" * 9)
    with pytest.raises(DamagedFile, match=r"notes.txt: got a damaged or foreign file"):
        read(tmp_path / "notes.txt")
    with pytest.raises(FileError, match=r"got a folder, expected a ledger file"):
        read(tmp_path)
    with pytest.raises(FileError, match=r"none.safetensors: got no such file, expected a ledger"):
        read(tmp_path / "none.safetensors")
    with pytest.raises(FileError) as caught:
        read(tmp_path / "notes.txt" / "below")
    assert isinstance(caught.value, BpttError)


def test_an_unreadable_file_is_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "x")

    def refuse(*args, **named):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("safetensors.safe_open", refuse)
    with pytest.raises(FileError, match=r"cannot read .*x: got Permission denied"):
        read(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    path = write(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def full(*args, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        FileError, match=r"cannot write .*x.safetensors: got No space left on device. Nothing was changed."
    ):
        write(path, info="something else")
    assert path.read_bytes() == before
    assert names(tmp_path) == ["x.safetensors"]
    with pytest.raises(FileError):
        write(tmp_path / "new.safetensors")
    assert names(tmp_path) == ["x.safetensors"]


def test_any_error_on_the_way_leaves_the_old_file_and_no_other(tmp_path):
    write_text(tmp_path / "x.txt", "old")

    def fail():
        with replacing(tmp_path / "x.txt") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "x.txt").read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match=r"cannot write .*x: got No such file or directory"):
        write(tmp_path / "nowhere" / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*folder"):
        write(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]


def test_the_file_and_then_its_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def rename(*paths):
        done.append("rename")
        real_replace(*paths)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write(tmp_path / "x")
    assert done == ["file", "rename", "folder"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    write_text(tmp_path / "ours", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_text_is_written_as_utf8(tmp_path):
    write_text(tmp_path / "x", "δ\n")
    assert (tmp_path / "x").read_bytes() == "δ\n".encode()

"""Where machine code is kept between runs: nothing about that folder can do more harm than cost time.

Each case is a process of its own that calls one small function.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import json, os, sys
import numba
import numpy as np
from bptt.engine.compiled import functions, kernel

kernel.cache_folder()
if sys.argv[1:]:
    numba.njit(lambda a: np.tanh(a[0]))(np.zeros(1))  # while there still is the right to read what numba loads late
    os.setuid(int(sys.argv[1]))
a = np.array([0.0, 0.5, -1.0, 2.0])
functions.tanh(a, 0, 4)
print(json.dumps([a.tolist(), sum(functions.tanh.stats.cache_hits.values())]))
"""
EXPECTED = np.tanh([0.0, 0.5, -1.0, 2.0])


def run(folder, *arguments, **env):
    """Whether the function came out of the folder; its numbers are right, and nothing is said, in any case."""
    env = {"BPTT_CACHE_DIR": str(folder)} | env
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], env=os.environ | env, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    numbers, found = json.loads(done.stdout)
    assert np.allclose(numbers, EXPECTED, rtol=1e-15, atol=0)
    return bool(found)


def files(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with the code of one function, as it was found by the second process."""
    folder = tmp_path_factory.mktemp("code")
    assert not run(folder), "the first one compiles"
    assert run(folder), "the second one does not"
    return folder


@pytest.fixture
def folder(filled, tmp_path):
    """A copy of it."""
    for path, content in files(filled).items():
        copy = tmp_path / path.relative_to(filled)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content)
    return tmp_path


def test_the_folder_holds_one_file_per_function_and_nothing_else(filled):
    (inside,) = filled.iterdir()
    assert inside.name.startswith("kernels-")
    assert {path.suffix for path in files(filled)} == {".code"}
    assert len(files(filled)) == 1


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "something else": lambda content: b"no code at all" * 100,
    "another pickle": lambda content: pickle.dumps({"a": 1}),
    "one bit flipped": flip,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_compiled_again_and_replaced(folder, damage):
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    assert not run(folder)
    assert len(path.read_bytes()) == len(whole), "what is there now is whole again"


def test_what_a_killed_process_left_behind_is_in_nobodys_way(folder):
    (path,) = files(folder)
    path.with_suffix(".999.part").write_bytes(path.read_bytes()[:100])
    assert run(folder)


@pytest.mark.parametrize("kind", ["a file", "below a file", "no folder that can be made", "a path too long"])
def test_where_nothing_can_be_kept_everything_is_compiled_and_nothing_written(tmp_path, kind):
    file = tmp_path / "file"
    file.write_text("mine")
    place = {
        "a file": file,
        "below a file": file / "x" / "y",
        "no folder that can be made": "/proc/bptt" if Path("/proc").exists() else "/dev/null/bptt",
        "a path too long": tmp_path / ("x" * 300),
    }[kind]
    assert not run(place)
    assert files(tmp_path) == {file: b"mine"}


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="this system has no users to change to")
def test_a_folder_that_may_not_be_written_is_read_all_the_same(filled):
    """Root may write anywhere; so the process becomes nobody on its way."""
    nobody = [65534] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as name:
        place, mode = Path(name), 0o555
        for inside, content in files(filled).items():
            copy = place / inside.relative_to(filled)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(content)
            copy.chmod(0o444)
            copy.parent.chmod(mode)
        place.chmod(mode)
        before = files(place)
        assert run(place, *nobody), "found"
        (path,) = before
        path.chmod(0o644)
        path.write_bytes(b"")
        path.chmod(0o444)
        assert not run(place, *nobody), "compiled"
        assert files(place) == {path: b""}, "and not written"
        for inside in [place, *place.iterdir()]:
            inside.chmod(0o755)


def test_a_machine_without_a_home_still_computes(tmp_path):
    for base in ("", str(tmp_path / "made for it")):
        run("", HOME="", XDG_CACHE_HOME=base)
    assert len(files(tmp_path)) == 1


def test_processes_that_compile_at_once_leave_whole_files(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, [tmp_path] * 2))
    assert run(tmp_path)
    assert {path.suffix for path in files(tmp_path)} == {".code"}

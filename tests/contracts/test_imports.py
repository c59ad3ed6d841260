"""What `import bptt` brings with it, in a process of its own."""

import json
import subprocess
import sys

import pytest

import bptt

STRANGERS = (
    "torch", "tensorflow", "keras", "jax", "onnx", "numba", "llvmlite", "matplotlib", "xarray", "dask", "ray", "pandas",
)  # fmt: skip
ONE_PASS = """
import numpy, bptt
network = bptt.Network.create("rnn", inputs=2, hidden=3, outputs=2)
batch = bptt.Batch(numpy.zeros((3, 1), int), numpy.zeros((3, 1), int))
bptt.record(network, batch, bptt.Loss(), engine=%r)
"""


def modules_after(code):
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_alone_brings_nothing_of_its_own():
    loaded = {name for name in modules_after("import bptt") if name.startswith("bptt")}
    assert loaded <= {"bptt", "bptt.version"}, "everything else loads on first touch"


def test_no_framework_comes_with_any_public_name():
    loaded = modules_after("import bptt\nfor name in bptt.__all__: getattr(bptt, name)\nbptt.explain('the cat sat')")
    assert "bptt.engine.passes" in loaded
    assert not {name for name in loaded if name.split(".")[0] in STRANGERS}


def test_the_textbook_and_the_engine_need_numpy_alone():
    loaded = modules_after("import bptt.cells, bptt.model, bptt.engine, bptt.ledger")
    for package in ("rich", "cyclopts", "msgspec", "safetensors", *STRANGERS):
        assert package not in loaded


@pytest.mark.parametrize(("engine", "brings"), [("reference", set()), ("compiled", {"numba", "llvmlite"})])
def test_numba_comes_with_the_first_pass_of_the_compiled_engine_and_not_before(engine, brings):
    loaded = {name.split(".")[0] for name in modules_after(ONE_PASS % engine)}
    assert loaded & set(STRANGERS) == brings


def test_public_names_are_sorted_and_all_there():
    assert bptt.__all__ == sorted(bptt.__all__)
    assert set(bptt.__all__) <= set(dir(bptt))
    for name in bptt.__all__:
        assert getattr(bptt, name).__module__.startswith("bptt."), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bptt.nothing  # noqa: B018

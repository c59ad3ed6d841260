"""Which engine runs, what it is called, and what is said where it cannot."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from bptt.cells import RNN
from bptt.engine import Windowed, choose_engine, evaluate, gradient, passes, predict, record
from bptt.engine.cores import cores, thread_count
from bptt.errors import InputError, MissingExtra, UnknownName
from bptt.model import Network
from oracles.bridge import call
from oracles.problems import make_problem


def asked(engine, threads=None, dtype=np.float64):
    """Everything that takes an engine, asked for it."""
    (network, batch, loss), named = call(make_problem("gru after", T=3), dtype)
    states, chosen = named["states"], {"engine": engine, "threads": threads}
    return [
        lambda: gradient(network, batch, loss, **named, **chosen),
        lambda: record(network, batch, loss, **named, **chosen),
        lambda: evaluate(network, batch, loss, states, **chosen),
        lambda: predict(network, batch.x, None, states, **chosen),
    ]


def recorded_by(engine, **options):
    arguments, named = call(make_problem("gru after", T=3))
    return record(*arguments, engine=engine, **named, **options)


@pytest.fixture
def looked_at_again():
    """What is installed is looked at once in a process; here, once before the test and once after it."""
    passes._missing.cache_clear()
    yield
    passes._missing.cache_clear()


@pytest.fixture
def no_numba(monkeypatch, looked_at_again):
    """As where the extra is not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "numba" else found(name, *more)
    )


def test_auto_is_the_compiled_engine_where_it_is_installed_and_the_ledger_says_so():
    assert choose_engine("auto") == "compiled"
    auto, compiled, reference = (recorded_by(engine) for engine in ("auto", "compiled", "reference"))
    assert [ledger.meta["engine"] for ledger in (auto, compiled, reference)] == ["compiled", "compiled", "reference"]
    assert all(np.array_equal(auto.gradient(name), compiled.gradient(name)) for name in auto.names)
    arguments, named = call(make_problem("gru after", T=3))
    assert record(*arguments, **named).meta["engine"] == "compiled", "auto is the default"


def test_auto_is_the_reference_where_the_extra_is_missing_and_the_ledger_says_so(no_numba):
    assert choose_engine("auto") == "reference"
    ledger = recorded_by("auto")
    assert ledger.meta["engine"] == "reference"
    assert all(np.array_equal(ledger.gradient(n), recorded_by("reference").gradient(n)) for n in ledger.names)
    for run in asked("auto"):
        run()


def test_the_compiled_engine_without_the_extra_is_one_line_that_says_what_to_install(no_numba):
    line = r"^engine 'compiled': got no numba. pip install (--upgrade )?'bptt\[fast\]'$"
    for run in asked("compiled"):
        with pytest.raises(MissingExtra, match=line):
            run()


def test_a_numba_that_is_switched_off_is_as_good_as_none(monkeypatch, looked_at_again):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert choose_engine("auto") == "reference"
    with pytest.raises(MissingExtra, match="a numba that NUMBA_DISABLE_JIT switches off"):
        choose_engine("compiled")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    passes._missing.cache_clear()
    assert choose_engine("auto") == "compiled"


BLOCKED = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "numba" else found(name, package)
sys.meta_path.insert(0, Blocker())

import numpy as np
import bptt, bptt.errors

network = bptt.Network.create("lstm", inputs=2, hidden=3, outputs=2)
batch, loss = bptt.Batch(np.ones((4, 2, 2)), np.zeros((4, 2), int)), bptt.Loss()
ledger = bptt.record(network, batch, loss, map=True, shares=True)
bptt.gradient(network, batch, loss, plan="windowed:2")
bptt.predict(network, batch.x)
said = ""
try:
    bptt.gradient(network, batch, loss, engine="compiled")
except bptt.errors.MissingExtra as error:
    said = str(error)
print(json.dumps({"engine": ledger.meta["engine"], "said": said, "imported": "numba" in sys.modules}))
"""


def told_by(code, **env):
    """What the script prints, and what it says besides."""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_machine_without_numba_lacks_nothing_but_speed():
    told, besides = told_by(BLOCKED)
    assert told["engine"] == "reference"
    assert "'bptt[fast]'" in told["said"]
    assert not told["imported"]
    assert besides == ""


def test_a_numba_that_does_not_load_is_told_of_once_and_lacks_nothing_but_speed(tmp_path):
    """As after an upgrade of NumPy beyond what numba knows."""
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('Numba needs NumPy 1.0 or less')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    told, besides = told_by("import json, sys\n" + BLOCKED[BLOCKED.index("import numpy") :], PYTHONPATH=path)
    assert told["engine"] == "reference"
    assert "Numba needs NumPy 1.0 or less" in told["said"]
    assert besides.count("bptt runs on its reference engine") == 1


@pytest.mark.parametrize("engine", ["fast", "Compiled", "", "numba"])
def test_an_engine_that_there_is_not_is_named(engine):
    line = rf"^engine: got '{engine}', expected one of auto, reference, compiled"
    for run in asked(engine):
        with pytest.raises(UnknownName, match=line):
            run()


def test_a_misspelt_engine_is_told_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'reference'"):
        recorded_by("referense")


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, np.complex128])
def test_a_network_of_another_dtype_is_the_references(dtype):
    (network, batch, loss), _ = call(make_problem("gru after", T=3, loss="squared_error"))
    network = network.astype(dtype)
    if network.dtype in (np.float32, np.float64):
        pytest.skip("on this machine the same as float64")
    assert choose_engine("auto", network.dtype) == "reference"
    predict(network, batch.x)
    with pytest.raises(InputError, match=rf"^engine 'compiled': got {np.dtype(dtype)}, expected float32 or float64"):
        predict(network, batch.x, engine="compiled")
    with pytest.raises(InputError, match="expected float32 or float64"):
        gradient(network, batch, loss, engine="compiled")


class Own(RNN):
    """A cell of somebody else, for which there is no kernel."""


def test_a_cell_of_ones_own_is_the_references():
    (network, batch, loss), named = call(make_problem("rnn tanh", T=3))
    ours = Network(Own(network.cell.hidden), network.inputs, network.outputs, 1, False, network.params)
    ledger = record(ours, batch, loss, **named)
    assert ledger.meta["engine"] == "reference"
    expected = gradient(network, batch, loss, engine="reference", **named).gradients
    assert all(np.array_equal(ledger.gradient(name), value) for name, value in expected.items())
    predict(ours, batch.x)
    with pytest.raises(InputError, match="engine 'compiled'"):
        gradient(ours, batch, loss, engine="compiled", **named)


@pytest.mark.parametrize("threads", [0, -1, "2", True, 1.0, 2.5])
def test_a_number_of_threads_that_cannot_be_is_named(engine, threads):
    for run in asked(engine, threads):
        with pytest.raises(InputError, match=rf"^threads: got {threads!r}, expected a whole number, at least 1"):
            run()


@pytest.mark.parametrize("given", ["x", "0", "-1", "1.5", "two", "2 3", "²"])
def test_a_variable_that_says_no_number_of_threads_is_named(monkeypatch, given):
    monkeypatch.setenv("BPTT_THREADS", given)
    for run in asked("compiled"):
        with pytest.raises(
            InputError, match=rf"^environment variable BPTT_THREADS: got '{given}', expected a whole number"
        ):
            run()
    for run in asked("compiled", 1) + asked("reference", 1):
        run()


def test_the_variable_and_the_argument_say_how_many_threads(monkeypatch):
    monkeypatch.delenv("BPTT_THREADS", raising=False)
    assert thread_count(None) == cores() >= 1
    assert thread_count(5) == thread_count(np.int64(5)) == 5
    monkeypatch.setenv("BPTT_THREADS", "")
    assert thread_count(None) == cores(), "as if it were not there"
    monkeypatch.setenv("BPTT_THREADS", "3")
    assert thread_count(None) == 3
    assert thread_count(5) == 5, "the argument comes first"


def test_a_windowed_pass_has_no_dx_whatever_the_engine(engine):
    arguments, named = call(make_problem("gru after", T=3))
    assert gradient(*arguments, engine=engine, **(named | {"plan": Windowed(2)})).dx is None
    assert gradient(*arguments, engine=engine, **named).dx is not None

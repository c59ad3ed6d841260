"""Hypothesis profiles, and the compiled engine made ready once.

The default profile repeats itself exactly; HYPOTHESIS_PROFILE=thorough looks much further.
"""

import contextlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from bptt.engine import record
from oracles.bridge import call
from oracles.problems import make_problem

try:
    import fcntl
except ImportError:
    fcntl = None

collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # which the doctests would import under one name

COMMON = {"deadline": None, "database": None, "print_blob": False, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", derandomize=True, max_examples=40, **COMMON)
settings.register_profile("thorough", max_examples=600, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """Every function of the compiled engine, in its folder on disk; of several workers no two compile the same one."""
    worker, folder = os.environ.get("PYTEST_XDIST_WORKER"), tmp_path_factory.getbasetemp()
    folder, order = (folder.parent, int(worker.removeprefix("gw")) % 2) if worker else (folder, 0)
    for dtype in (np.float32, np.float64)[:: -1 if order else 1]:
        done = folder / f"compiled for {dtype.__name__}"
        with _alone(folder / f"compiling for {dtype.__name__}"):
            if not done.exists():
                _compile(dtype)
                done.touch()


def _compile(dtype):
    """One pass for every way through the kernels."""
    for cell in ("rnn tanh", "gru after", "lstm"):
        for more in ({"B": 2}, {"B": 14, "loss": "squared_error"}, {"ids": True}):
            arguments, named = call(make_problem(cell, T=2, **more), dtype)
            record(*arguments, engine="compiled", keep="norms", map=True, shares=True, **named)


@contextlib.contextmanager
def _alone(path):
    """While other processes wait; where files have no locks, two may compile the same function."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Work done by the OpenMP threads that another library brought, in processes of their own."""

import subprocess
import sys

import pytest

HEAD = """
import os, threading
import numpy as np
import torch  # brings OpenMP
torch.ones(1 << 20).sum()
import bptt
from bptt.engine.compiled import openmp, threads
"""
STEP = """
network = bptt.Network.create("lstm", inputs=8, hidden=64, dtype=np.float32)
rng = np.random.default_rng(0)
batch = bptt.Batch(rng.standard_normal((40, 32, 8)), rng.standard_normal((40, 32, 64)))
def step():
    return bptt.gradient(network, batch, bptt.Loss("squared_error"), engine="compiled", threads=2).gradients
"""


def output(code):
    done = subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def borrowed():
    return output("openmp.borrow(); print(len(openmp._lent))") == ["1"]


@pytest.fixture(scope="module", autouse=True)
def _gnu():
    if not borrowed():
        pytest.skip("the OpenMP of this torch is not GNU's")


def test_the_numbers_are_those_of_our_own_threads():
    code = "own = step(); openmp.borrow(); lent = step(); print(all(np.array_equal(own[n], lent[n]) for n in own))"
    assert output(STEP + code) == ["True"]


def test_every_item_is_worked_on_once_and_beside_the_others():
    code = """
openmp.borrow()
seen, meet = [], threading.Barrier(2, timeout=20)
def work(item):
    meet.wait()
    seen.append(item)
for _ in range(50):
    assert openmp.run(work, ["a", "b"], None)
print(seen.count("a"), seen.count("b"))
"""
    assert output(code) == ["50", "50"]


def test_what_an_item_raises_is_raised_and_the_others_are_told():
    code = """
openmp.borrow()
told = []
def work(item):
    if item: raise ValueError("no")
try:
    threads.run(work, [0, 1], fail=lambda: told.append(1))
except ValueError as error:
    print(error, len(told))
"""
    assert output(code) == ["no", "1"]


def test_where_there_are_too_few_threads_nothing_is_begun():
    code = """
openmp.borrow()
seen = []
def inner(item): seen.append(item)
def outer(item):
    print(openmp.run(inner, [0, 1], None)) if item == 0 else None  # a loop in a loop gets one thread
print(openmp.run(outer, [0, 1], None), seen)
"""
    assert output(code) == ["False", "True", "[]"]


def test_a_forked_child_has_none_of_them():
    code = """
openmp.borrow()
child = os.fork()
if child == 0:
    openmp.borrow()
    os._exit(len(openmp._lent))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(openmp._lent))
"""
    assert output(code) == ["0", "1"]

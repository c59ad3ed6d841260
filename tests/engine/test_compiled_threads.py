"""However many threads there are, and whatever else they do: the same numbers to the last bit."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from bptt.engine import gradient
from bptt.engine.compiled import losses, measure, threads, totals, walk
from oracles.bridge import call, everything
from oracles.problems import CELLS, make_problem

ROWS = {"B": 37, "H": 9, "T": 5, "D": 4, "layers": 2}  # five blocks of eight rows
UNITS = {"B": 3, "H": 64, "T": 5, "D": 4, "layers": 2}  # two or four panels of columns, or more on small registers
RAGGED = {"bidirectional": True, "lengths": True, "mask": "weights"}


@pytest.fixture
def divided(monkeypatch):
    """Small problems are divided as large ones are; returns a list that is told into which parts the walks were."""
    seen = []
    for module in (threads, walk, totals, measure, losses):
        if hasattr(module, "WORTH"):
            monkeypatch.setattr(module, "WORTH", 0)
    monkeypatch.setattr(threads, "WEIGHTS", 0)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.setattr(threads.CROWD, "is_there", lambda: False)
    whole = threads.parts

    def parts(*given):
        seen.append(whole(*given))
        return seen[-1]

    monkeypatch.setattr(walk, "parts", parts)
    return seen


def problem_of(cell, size, ragged=False, **more):
    rng = np.random.default_rng(1)
    extra = dict(RAGGED, lengths=tuple(rng.integers(1, 6, size["B"]).tolist())) if ragged else {}
    return make_problem(cell, scale=0.2, loss="squared_error", **(size | extra | more))


def assert_no_bit_differs(ours, expected):
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert np.array_equal(ours[key], value), key


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("size", [ROWS, UNITS], ids=["rows", "units"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_changes_no_bit(divided, cell, size, ragged, dtype):
    problem, keep = problem_of(cell, size, ragged), "norms" if ragged else "factors"
    alone = everything(problem, dtype, engine="compiled", threads=1, keep=keep)
    assert all(len(parts) == 1 for parts in divided)
    for count in (2, 3, 8):
        divided.clear()
        assert_no_bit_differs(everything(problem, dtype, engine="compiled", threads=count, keep=keep), alone)
        by_units = size is UNITS and cell not in ("gru before", "lstm projection", "lstm both")
        if size is ROWS or by_units:
            assert any(len(parts) > 1 for parts in divided)
            assert by_units == any(len({part.units for part in parts}) > 1 for parts in divided)


@pytest.mark.parametrize("plan", ["chunked:2", "windowed:3", "checkpointed:2"])
@pytest.mark.parametrize("size", [ROWS, UNITS], ids=["rows", "units"])
@pytest.mark.parametrize("cell", ["gru after", "lstm"])
def test_nor_does_it_under_any_plan(divided, cell, size, plan):
    problem = problem_of(cell, size, ragged=True, ids=True)
    alone, three = (
        everything(problem, np.float32, engine="compiled", threads=count, plan=plan, keep="full") for count in (1, 3)
    )
    assert_no_bit_differs(three, alone)


@pytest.mark.parametrize("B", [12, 13, 16, 17, 24, 33])
def test_nor_where_rows_end_inside_a_block(divided, B):
    problem = problem_of("lstm", ROWS | {"B": B, "H": 33})
    alone = everything(problem, np.float32, engine="compiled", threads=1, keep="norms")
    for count in (2, 3, 4, 5, 8):
        ours = everything(problem, np.float32, engine="compiled", threads=count, keep="norms")
        assert_no_bit_differs(ours, alone)


@pytest.mark.parametrize("size", [ROWS, UNITS], ids=["rows", "units"])
def test_where_the_pool_is_taken_the_caller_works_alone(divided, size):
    problem = problem_of("lstm", size)
    expected = everything(problem, engine="compiled", threads=3)
    with threads._POOL.lock:
        assert_no_bit_differs(everything(problem, engine="compiled", threads=3), expected)


@pytest.mark.parametrize("size", [ROWS, UNITS], ids=["rows", "units"])
def test_callers_at_once_do_not_disturb_each_other(divided, size):
    problems = [problem_of("lstm", size, seed=seed) for seed in range(3)]
    expected = [everything(problem, np.float32, engine="compiled", threads=1, keep="norms") for problem in problems]
    found = [[] for _ in problems]

    def work(i):
        for _ in range(8):
            found[i].append(everything(problems[i], np.float32, engine="compiled", threads=2, keep="norms"))

    callers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive()
    for i, results in enumerate(found):
        assert len(results) == 8
        for ours in results:
            assert_no_bit_differs(ours, expected[i])


def test_an_error_in_one_thread_reaches_the_caller_and_the_pool_lives_on():
    def work(item):
        if item == 1:
            raise ValueError("from the other thread")

    for _ in range(2):
        with pytest.raises(ValueError, match="from the other thread"):
            threads.run(work, [0, 1])
    done = []
    threads.run(done.append, [0, 1, 2])
    assert sorted(done) == [0, 1, 2]


def test_more_threads_than_there_is_work_for():
    arguments, named = call(make_problem("lstm", T=2, B=1, D=1, H=1))
    one, many = (gradient(*arguments, engine="compiled", threads=count, **named) for count in (1, 64))
    assert all(np.array_equal(many.gradients[name], value) for name, value in one.gradients.items())


def test_spread_leaves_nothing_out():
    for size in range(1, 70):
        for count in range(1, 10):
            for apart in (1, 8, 32):
                ranges = threads.spread(size, count, apart)
                assert [i for low, high in ranges for i in range(low, high)] == list(range(size))
                assert len(ranges) <= count
                assert all(low % apart == 0 and low < high for low, high in ranges)


def test_small_numbers_are_still_small_numbers_for_the_caller():
    """The kernels take what is below the normal range for 0, and leave the processor as they found it."""
    arguments, named = call(make_problem("lstm", T=3), np.float32)
    for count in (1, 4):
        gradient(*arguments, engine="compiled", threads=count, **named)
        assert np.float32(1e-38) * np.float32(0.01) > 0


FORK = """
import os, sys, time
import numpy as np
from bptt.engine import gradient
from bptt.engine.compiled import threads, totals, walk
from oracles.bridge import call
from oracles.problems import make_problem

for module in (threads, totals, walk):
    module.WORTH = 0
arguments, named = call(make_problem("rnn tanh", B=40, H=8, T=4, scale=0.2))
before = gradient(*arguments, engine="compiled", threads=3, **named)
assert threads._POOL.workers, "nothing was divided"
if "taken" in sys.argv:
    threads._POOL.lock.acquire()
child = os.fork()
if child == 0:
    after = gradient(*arguments, engine="compiled", threads=3, **named)
    same = all(np.array_equal(after.gradients[name], value) for name, value in before.gradients.items())
    os._exit(0 if same and threads._POOL.workers else 1)
until = time.monotonic() + 60
while time.monotonic() < until:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.01)
os.kill(child, 9)
sys.exit("the child hangs")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("pool", ["free", "taken"])
def test_a_child_of_a_process_that_had_threads_has_threads_of_its_own(pool):
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-W", "ignore", "-c", FORK, pool]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


FAILING = """
import sys, threading
import numpy as np
from bptt.engine import gradient
from bptt.engine.compiled import rnn, threads, walk
from oracles.bridge import call
from oracles.problems import make_problem

for module in (threads, walk):
    module.WORTH = 0
threads.WEIGHTS, threads.cores, threads.CROWD.is_there = 0, lambda: 2, lambda: False
arguments, named = call(make_problem("rnn tanh", B=1, H=64, T=20, scale=0.1), np.float32)
expected = gradient(*arguments, engine="compiled", threads=2, **named)
right, caller, met = rnn.RNNKernel.forward, threading.current_thread(), []


def wrong(self, w, tape, x, ids, valid, reverse, how):
    met.append(how[-1])
    if (threading.current_thread() is caller) == (sys.argv[1] == "caller"):
        raise KeyboardInterrupt
    right(self, w, tape, x, ids, valid, reverse, how)


rnn.RNNKernel.forward = wrong
try:
    gradient(*arguments, engine="compiled", threads=2, **named)
except KeyboardInterrupt:
    print("told")
assert 2 in met, "nobody met"
rnn.RNNKernel.forward = right
ours = gradient(*arguments, engine="compiled", threads=2, **named)
assert all(np.array_equal(ours.gradients[name], value) for name, value in expected.gradients.items())
assert not threads._POOL.lock.locked()
"""


@pytest.mark.parametrize("who", ["caller", "other"])
def test_whoever_fails_does_not_leave_the_others_waiting(who):
    """As where Ctrl-C comes while a kernel is compiled: units meet at every step, and one of them never comes."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    }
    done = subprocess.run(
        [sys.executable, "-c", FAILING, who], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "told\n"

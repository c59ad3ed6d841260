"""Every line of the compiled engine matters: with one thing wrong, some number is wrong.

A mutated kernel is compiled anew and never kept: neither read from the folder with machine code nor written to it.
"""

import contextlib
import inspect
from unittest import mock

import numpy as np
import pytest
from numba import njit
from numba.core.extending import _Intrinsic

from bptt.engine import compiled
from bptt.engine.compiled import gru, kernel, losses, lstm, measure, product, rnn, steps, sweep, totals, walk
from bptt.engine.compiled import run as running
from oracles.bridge import everything, recorded
from oracles.mutate import RED, mutated
from oracles.problems import make_problem

RAGGED = {"T": 4, "B": 3, "lengths": (4, 2, 3), "bidirectional": True}
PROBLEMS = {
    "rnn": {"cell": "rnn tanh", "T": 3},
    "lstm": {"cell": "lstm both", "T": 3, "H": 3},
    "gru": {"cell": "gru after", "T": 3},
    "gru before": {"cell": "gru before", "T": 3},
    "ragged": dict(cell="rnn tanh", **RAGGED),
    "chunked": dict(cell="rnn tanh", cut=("chunked", 2), **RAGGED),
    "windowed": dict(cell="rnn tanh", cut=("windowed", 2), **RAGGED),
    "causal": {"cell": "rnn tanh", "cut": ("windowed", 2), "T": 4, "layers": 2},
    "classes": {"cell": "rnn tanh", "T": 3, "O": 3, "mask": "weights", "ids": True},
    "many rows": {"cell": "rnn tanh", "T": 3, "B": 14, "H": 9},
}


def wrongness(name, **options):
    """The largest relative difference of any number from the reference's, of either sort of walk back."""
    problem = make_problem(seed=2, **({"loss": "squared_error", "layers": 1} | more(name)))
    right = everything(problem, engine="reference", keep="full", **options)
    ours = everything(problem, engine="compiled", keep="full", **options)
    worst = [np.abs(ours[key] - value).max(initial=0) / max(np.abs(value).max(initial=0), 1e-300)
             for key, value in right.items()]  # fmt: skip
    return float(np.nan_to_num(np.max(worst), nan=np.inf))


def more(name):
    return PROBLEMS[name] | ({"loss": "cross_entropy"} if name == "classes" else {})


def uncached(function):
    """As `kernel.kernel`, without the folder."""
    return njit(**kernel.OPTIONS)(function)


def functions(module):
    """The compiled functions under their names, its own and those that it imports."""
    return {name: value for name, value in vars(module).items() if hasattr(value, "py_func")}


def callers(module, names):
    """Those names, and every function of the module that calls one of them, or one that does."""
    found = set(names)
    for _ in range(5):
        found |= {name for name, f in functions(module).items() if found & set(f.py_func.__code__.co_names)}
    return found


def mutated_kernels(module, old, new, given=()):
    """A mutated module. Only what has changed, or calls what has, is compiled anew; all else is as it was.

    given: name → function of another module that is wrong already.
    """
    count = inspect.getsource(module).count(old) if old == new else 1
    with mock.patch.object(kernel, "kernel", uncached):
        wrong = mutated(module, old, new, count)
    own = {name: f for name, f in functions(module).items() if f.py_func.__module__ == module.__name__}
    changed = {name for name, f in own.items() if old in inspect.getsource(f.py_func)}
    changed = changed or {name for name, value in vars(module).items() if isinstance(value, _Intrinsic)}
    anew = callers(module, changed | set(given))
    for name, value in functions(module).items():
        setattr(wrong, name, given[name] if name in given else getattr(wrong, name) if name in anew else value)
    wrong.anew = {name: getattr(wrong, name) for name in anew & set(own) | set(given)}
    return wrong


def with_cell(module, wrong):
    """The engine with another cell's kernels."""
    kind = {rnn: "RNN", gru: "GRU", lstm: "LSTM"}[module]
    return mock.patch.dict(walk.KERNELS, {getattr(walk, kind): getattr(wrong, f"{kind}Kernel")})


def replaced(module, wrong):
    """`module` with what it imports or has of the mutated functions."""
    return mock.patch.multiple(module, **{name: f for name, f in wrong.anew.items() if name in vars(module)})


CELLS = {
    "rnn: another derivative": (rnn, "rnn", "code.rest(code.mul(h, h))", "code.rest(h)"),
    "rnn: forgotten carry": (rnn, "rnn", "H, high - low, H, Pt", "H, 0, H, Pt"),
    "lstm: swapped gates": (lstm, "lstm", "code.fma(f, before, code.mul(i, g))", "code.fma(i, before, code.mul(f, g))"),
    "lstm: forgotten memory": (lstm, "lstm", "before = code.mul(dc, f)", "before = code.mul(dc, i)"),
    "lstm: forgotten peephole": (lstm, "lstm", "dc = code.fma(da_o, peep[2], dc) if peep else dc", "dc = dc"),
    "gru: swapped z": (gru, "gru", "zip((code.mul(dh, z), da_r", "zip((code.mul(dh, code.rest(z)), da_r"),
    "gru: forgotten reset": (gru, "gru before", "zip((code.fma(dq, r, dh), da_r", "zip((dh, da_r"),
}  # fmt: skip


@pytest.mark.parametrize("mutation", CELLS)
def test_a_mutated_cell_is_red(mutation):
    module, name, *change = CELLS[mutation]
    with with_cell(module, mutated_kernels(module, *change)):
        assert wrongness(name) > RED


STEPS = {
    "window one step too long": ("causal", "(start + to)) >= reach", "(start + to)) > reach"),
    "padding cuts": ("chunked", "if valid.size and not valid[to * B + r % B]:", "if False:"),
    "ended sequences go on": ("ragged", "if valid.size and not valid[at]:", "if False:"),
}


@pytest.mark.parametrize("mutation", STEPS)
def test_a_mutated_step_is_red(mutation):
    name, *change = STEPS[mutation]
    with with_cell(rnn, mutated_kernels(rnn, "class Tape", "class Tape", mutated_kernels(steps, *change).anew)):
        assert wrongness(name) > RED


PRODUCT = {
    "a lost step": ("rnn", "part = max(1, PART // B)", "part, steps = max(1, PART // B), steps - 1"),
    "one block of rows for all": ("many rows", "here, into = at + i * rows * 8, c + i * 8 * own\n        if",
                                  "here, into = at, c + i * 8 * own\n        if"),
}  # fmt: skip


@pytest.mark.parametrize("mutation", PRODUCT)
def test_a_mutated_product_is_red(mutation):
    name, *change = PRODUCT[mutation]
    with replaced(totals, mutated_kernels(product, *change)):
        assert wrongness(name) > RED


def test_a_step_that_the_product_lost_has_a_residual():
    problem = make_problem("rnn tanh", T=5, B=3)
    with replaced(totals, mutated_kernels(product, *PRODUCT["a lost step"][1:])):
        assert recorded(problem, engine="compiled", keep="norms").residual > RED


MEASURE = {
    "sequences do not meet": ("rnn", "found += 2 * np.float64", "found += np.float64"),
    "half a share": ("rnn", "out[t + s] = found", "out[t + s] = found / 2"),
    "ids alone": ("classes", "alone, known[c] = False, True", "known[c] = True"),
}


@pytest.mark.parametrize("mutation", MEASURE)
def test_a_mutated_measure_is_red(mutation):
    name, *change = MEASURE[mutation]
    with mock.patch.multiple(measure, **mutated_kernels(measure, *change).anew):
        assert wrongness(name) > RED


LOSSES = {
    "forgotten one-hot": ("classes", "out[targets[t, b]] -= w", "pass"),
    "missing factor 2": ("rnn", "out[j] *= double", "out[j] *= w"),
}


@pytest.mark.parametrize("mutation", LOSSES)
def test_a_mutated_loss_is_red(mutation):
    name, *change = LOSSES[mutation]
    with replaced(losses, mutated_kernels(losses, *change)):
        assert wrongness(name) > RED


RUN = {
    "chunk one step off": ("chunked", "at // plan.K != to // plan.K", "(at + 1) // plan.K != (to + 1) // plan.K"),
    "states one step early": ("rnn", "else (low + 1, slice(None))", "else (low, slice(None))"),
    "states of the other direction": (
        "ragged", "(self.T - high + 1, slice(None, None, -1))", "(self.T - high + 1, slice(None))",
    ),
    "swapped halves": ("ragged", "[..., width:] if scan.reverse else dtop[..., :width]",
                       "[..., :width] if scan.reverse else dtop[..., width:]"),
    "initial states of one loss": (
        "windowed", "rows if known is None else type(ds)(*(a + b", "rows if known is None else type(ds)(*(b",
    ),
    "readout's use shifted": ("rnn", "Matmul(stretch.top, dy)", "Matmul(np.roll(stretch.top, 1, 0), dy)"),
}  # fmt: skip


@pytest.mark.parametrize("mutation", RUN)
def test_a_mutated_run_is_red(mutation):
    name, *change = RUN[mutation]
    with compiled_run(mutated(running, *change)):
        assert wrongness_in_groups(name) > RED


def test_a_stretch_whose_carry_is_forgotten_is_red():
    wrong = mutated(running, "if carry else _zeros", "if False else _zeros")
    with compiled_run(wrong):
        assert wrongness("rnn", plan="checkpointed:1") > RED


@contextlib.contextmanager
def compiled_run(wrong):
    """The engine with another `Run`."""
    with mock.patch.object(compiled, "Run", wrong.Run), mock.patch.object(compiled, "Unfinished", wrong.Unfinished):
        yield


def wrongness_in_groups(name):
    """With the losses in groups of two."""
    with mock.patch.object(sweep, "group_size", return_value=2):
        return wrongness(name)


SWEEP = {
    "a reverse walk in groups": ("windowed", "ahead = 0 if causal else", "ahead = 0 if True else"),
    "a group reaches too short": ("causal", "losses.start - (reach - 1) - start", "losses.start - (reach - 2) - start"),
    "one row for all losses": ("rnn", "own = (at - self.losses.start) * run.B", "own = 0"),
}  # fmt: skip


@pytest.mark.parametrize("mutation", SWEEP)
def test_a_mutated_sweep_is_red(mutation):
    name, *change = SWEEP[mutation]
    wrong = mutated(sweep, *change)
    wrong.group_size = lambda run: 2
    with mock.patch.object(running, "sweep", wrong.sweep):
        assert wrongness(name) > RED


ORDERED = "[p.out for p in products], axis=1"
TOTALS = {
    "stretches not added": ("total_of if known is None else known +", "total_of if True else known +"),
    "columns in another order": (ORDERED, ORDERED.replace("products", "products[::-1]")),
}


@pytest.mark.parametrize("mutation", TOTALS)
def test_a_mutated_sum_is_red(mutation):
    wrong = mutated(totals, *TOTALS[mutation])
    with mock.patch.object(running, "Totals", wrong.Totals):
        assert wrongness("gru before", plan="checkpointed:1") > RED


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_engine_as_it_stands_is_green(name):
    assert wrongness(name) < 1e-12
    assert wrongness_in_groups(name) < 1e-12
    if more(name).get("cut") is None:
        assert wrongness(name, plan="checkpointed:1") < 1e-12


def test_a_module_run_from_its_text_is_green():
    """The mutations above are red for what they change, and not for how they are made."""
    with (
        with_cell(rnn, mutated_kernels(rnn, '"""', '"""')),
        compiled_run(mutated(running, "low + 1, slice", "1 + low, slice")),
    ):
        assert wrongness("rnn") < 1e-12

"""Random problems: a network, a batch and a loss drawn from a seed; a fixed grid of them, and Hypothesis strategies."""

import dataclasses
import functools

import numpy as np
from hypothesis import strategies as st

from oracles.untied import Problem

CELLS = {
    "rnn tanh": ("rnn", {}),
    "rnn relu": ("rnn", {"nonlinearity": "relu"}),
    "gru after": ("gru", {"reset": "after"}),
    "gru before": ("gru", {"reset": "before"}),
    "lstm": ("lstm", {}),
    "lstm peepholes": ("lstm", {"peepholes": True}),
    "lstm projection": ("lstm", {"projection": 2}),
    "lstm both": ("lstm", {"peepholes": True, "projection": 2}),
}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def cell_shapes(kind, options, inputs, hidden):
    """Name → shape of one cell's parameters."""
    gates, width = GATES[kind], options.get("projection") or hidden
    shapes = {"W_xh": (inputs, gates * hidden), "W_hh": (width, gates * hidden), "b": (gates * hidden,)}
    if options.get("reset") == "after":
        shapes["b_hn"] = (hidden,)
    if options.get("peepholes"):
        shapes |= {"p_i": (hidden,), "p_f": (hidden,), "p_o": (hidden,)}
    if options.get("projection"):
        shapes["W_hr"] = (hidden, width)
    return shapes


def make_problem(
    cell="lstm", *, seed=0, T=4, B=2, D=2, H=3, O=2, layers=1, bidirectional=False, ids=False, lengths=None, mask=None,
    loss="cross_entropy", reduction="mean", steps="all", states="random", cut=("full",), scale=0.7,
):  # fmt: skip
    """A problem from its description.

    O: width of the readout, None for none. ids: whether x holds ids. lengths: (B,) or None.
    mask: None, "binary" or "weights". states: "random" or "zero". scale: standard deviation of the weights.
    """
    rng = np.random.default_rng([seed, T, B, D, H])
    kind, options = CELLS[cell]
    width, ways = options.get("projection") or H, 2 if bidirectional else 1
    params = {}
    for layer in range(layers):
        for way in ("", "reverse.")[:ways]:
            shapes = cell_shapes(kind, options, width * ways if layer else D, H)
            params |= {f"layer{layer}.{way}{name}": scale * rng.standard_normal(s) for name, s in shapes.items()}
    if O is not None:
        params["readout.W"] = scale * rng.standard_normal((width * ways, O))
        params["readout.b"] = scale * rng.standard_normal(O)
    out = O or width * ways
    x = rng.integers(0, D, (T, B)) if ids else rng.standard_normal((T, B, D))
    targets = rng.integers(0, out, (T, B)) if loss == "cross_entropy" else rng.standard_normal((T, B, out))
    lengths = None if lengths is None else np.array(lengths)
    weights = None
    if mask is not None:
        weights = (rng.random((T, B)) < 0.6).astype(float)
        weights[0 if lengths is None or steps == "all" else lengths[0] - 1, 0] = 1
        if steps == "last":
            weights[(np.full(B, T) if lengths is None else lengths) - 1, np.arange(B)] = 1
        if mask == "weights":
            weights *= rng.uniform(0.2, 3, (T, B))
    widths = (width, H) if kind == "lstm" else (H,)
    prefixes = dict.fromkeys(name.rpartition(".")[0] + "." for name in params if not name.startswith("readout"))
    draw = rng.standard_normal if states == "random" else np.zeros
    start = {prefix: tuple(0.5 * draw((B, n)) for n in widths) for prefix in prefixes}
    return Problem(
        kind, options, H, D, O, layers, bidirectional, params, x, targets, lengths, weights, start, loss, reduction,
        steps, cut,
    )  # fmt: skip


def changed(problem, **changes):
    """The same problem with some fields replaced, and nothing remembered of it."""
    return dataclasses.replace(problem, memo={}, **changes)


def _grid():
    """Every cell alone, in two layers, in both directions, and in both; with what else there is spread over them."""
    out = {}
    for i, cell in enumerate(CELLS):
        out[cell] = {"cell": cell, "loss": ("squared_error", "cross_entropy")[i % 2]}
        out[f"{cell}, 2 layers"] = {
            "cell": cell,
            "layers": 2,
            "T": 3,
            "mask": ("weights", "binary")[i % 2],
            "reduction": "sum",
        }
        out[f"{cell}, both directions"] = {"cell": cell, "bidirectional": True, "lengths": (4, 2), "ids": i % 2 == 0}
        out[f"{cell}, 2 layers, both directions"] = {
            "cell": cell, "layers": 2, "bidirectional": True, "lengths": (2, 4), "H": 2,
            "mask": (None, "weights")[i % 2],
            "loss": ("cross_entropy", "squared_error")[i % 2],
        }  # fmt: skip
    out["last step only"] = {"cell": "lstm", "steps": "last", "lengths": (3, 4), "mask": "weights"}
    out["no readout"] = {"cell": "gru after", "O": None, "loss": "squared_error", "lengths": (4, 3)}
    out["one step"] = {"cell": "lstm both", "T": 1}
    out["one sequence"] = {"cell": "gru before", "B": 1, "T": 6, "ids": True}
    return out


GRID = _grid()


@functools.cache
def grid_problem(name):
    """A problem of the fixed grid; what is computed of it is remembered for the whole run."""
    return make_problem(seed=sorted(GRID).index(name), **GRID[name])


@st.composite
def problems(
    draw, *, cells=tuple(CELLS), cuts=("full",), max_T=5, max_B=3, max_D=3, max_H=3, ways=(1, 2), scales=(0.7,)
):
    """Any problem, small unless told otherwise."""
    T, B = draw(st.integers(1, max_T)), draw(st.integers(1, max_B))
    cut = draw(st.sampled_from(cuts))
    outputs, loss = draw(st.sampled_from([2, 3, None])), draw(st.sampled_from(["cross_entropy", "squared_error"]))
    if outputs is None and loss == "cross_entropy":
        outputs = 2  # without a readout there may be one class only, whose loss is 0 for every weight
    return make_problem(
        draw(st.sampled_from(cells)),
        seed=draw(st.integers(0, 999)),
        T=T,
        B=B,
        D=draw(st.integers(1, max_D)),
        H=draw(st.integers(1, max_H)),
        O=outputs,
        layers=draw(st.integers(1, 2)),
        bidirectional=draw(st.sampled_from(ways)) == 2,
        ids=draw(st.booleans()),
        lengths=draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B)),
        mask=draw(st.sampled_from([None, "binary", "weights"])),
        loss=loss,
        reduction=draw(st.sampled_from(["mean", "sum"])),
        steps=draw(st.sampled_from(["all", "all", "last"])),
        states=draw(st.sampled_from(["random", "zero"])),
        cut=(cut,) if cut == "full" else (cut, draw(st.integers(1, T + 1))),
        scale=draw(st.sampled_from(scales)),
    )

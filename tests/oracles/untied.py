"""The untied network: every use of a parameter gets a copy of its own, and the derivative by one copy is C[k, t].

The derivative is taken by a complex step (Squire & Trapp 1998): with one element moved by ih, Im L_k / h is the
derivative with no cancellation, so it is exact to rounding. All elements of all copies of one parameter are moved side
by side, each in its own copy of the network. Sequences are walked one by one, each for its own length, so there is no
padding here. A cut of the gradient is the real part: what has no imaginary part carries no derivative.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracles.equations import LOSS, STEP, dot, loss_weights

H = 1e-40


@dataclass(frozen=True, eq=False)
class Problem:
    """A network, its parameters under their names in `bptt`, and a batch; plain data.

    x (T, B, D) or ids (T, B); targets (T, B) classes or (T, B, O); lengths (B,) or None; mask (T, B) or None;
    states: prefix of the scan → parts (B, S). cut: ("full",), ("chunked", K) or ("windowed", K).
    """

    kind: str
    options: dict[str, Any]
    hidden: int
    inputs: int
    outputs: int | None
    layers: int
    bidirectional: bool
    params: dict[str, np.ndarray]
    x: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray | None
    mask: np.ndarray | None
    states: dict[str, tuple[np.ndarray, ...]]
    loss: str
    reduction: str
    steps: str
    cut: tuple[Any, ...] = ("full",)
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def T(self):
        return self.x.shape[0]

    @property
    def B(self):
        return self.x.shape[1]

    @property
    def cell_width(self):
        return self.options.get("projection") or self.hidden

    @property
    def width(self):
        return self.outputs or self.cell_width * (2 if self.bidirectional else 1)

    def length(self, b):
        return self.T if self.lengths is None else int(self.lengths[b])

    def scans(self):
        """(prefix, reverse) of every layer and direction, lowest first."""
        ways = [("", False), ("reverse.", True)] if self.bidirectional else [("", False)]
        return [[(f"layer{layer}.{way}", reverse) for way, reverse in ways] for layer in range(self.layers)]


@dataclass
class Moved:
    """What is moved by ih in each of the P copies; everything absent stays as it is.

    weights: name → T arrays (P, *shape).  x: (T, P, B, D).  states: prefix → parts (P, B, S) of the initial state.
    bumps: (prefix, b, steps walked) → parts (P, S), added to the state after so many steps.
    """

    weights: dict[str, list[np.ndarray]] = field(default_factory=dict)
    x: np.ndarray | None = None
    states: dict[str, list[np.ndarray]] = field(default_factory=dict)
    bumps: dict[tuple[str, int, int], list[np.ndarray]] = field(default_factory=dict)


def losses(problem, moved=None, window=None):
    """L_k of every copy, (P, T). `window`: steps outside of which no state carries a derivative."""
    moved = moved or Moved()
    weights = loss_weights(problem)
    terms = [[] for _ in range(problem.T)]
    for b in range(problem.B):
        y = outputs(problem, moved, b, window)
        for k, y_k in enumerate(y):
            if weights[k][b]:
                terms[k].append(weights[k][b] * LOSS[problem.loss](y_k, problem.targets[k, b]))
    copies = max((len(term) for row in terms for term in row), default=1)
    return np.stack([sum(row, np.zeros(copies, complex)) for row in terms], 1)


def weight(problem, moved, name, t):
    return moved.weights[name][t] if name in moved.weights else problem.params[name][None]


def outputs(problem, moved, b, window):
    """y of one sequence: a list over its own steps of (P, O)."""
    L = problem.length(b)
    if problem.x.ndim == 2:
        below = [int(problem.x[t, b]) for t in range(L)]
    else:
        below = [problem.x[t, b][None] if moved.x is None else moved.x[t, :, b] for t in range(L)]
    for layer in problem.scans():
        ways = [walk(problem, moved, b, window, prefix, reverse, below) for prefix, reverse in layer]
        below = [side_by_side([way[t] for way in ways]) for t in range(L)]
    if problem.outputs is None:
        return below
    return [
        dot(below[t], weight(problem, moved, "readout.W", t)) + weight(problem, moved, "readout.b", t) for t in range(L)
    ]


def side_by_side(parts):
    copies = max(len(part) for part in parts)
    return np.concatenate([np.broadcast_to(part, (copies, part.shape[1])) for part in parts], 1)


def walk(problem, moved, b, window, prefix, reverse, below):
    """h of one layer in one direction at every step of one sequence."""
    names = [name.removeprefix(prefix) for name in problem.params if name.rpartition(".")[0] + "." == prefix]
    if prefix in moved.states:
        s = tuple(part[:, b] for part in moved.states[prefix])
    else:
        s = tuple(part[b][None] for part in problem.states[prefix])
    h = [None] * len(below)
    order = list(range(len(below)))[:: -1 if reverse else 1]
    for walked, t in enumerate(order):
        if walked and problem.cut[0] == "chunked" and t // problem.cut[1] != order[walked - 1] // problem.cut[1]:
            s = tuple(part.real for part in s)
        p = {name: weight(problem, moved, prefix + name, t) for name in names}
        s = STEP[problem.kind](p, below[t], s, problem.hidden, **problem.options)
        if (prefix, b, walked + 1) in moved.bumps:
            s = tuple(part + bump for part, bump in zip(s, moved.bumps[prefix, b, walked + 1], strict=True))
        if window is not None and not window[0] <= t <= window[1]:
            s = tuple(part.real for part in s)
        h[t] = s[0]
    return h


def slopes(problem, moved):
    """∂L_k by whatever is moved in each copy, (P, T)."""
    if problem.cut[0] != "windowed":
        return losses(problem, moved).imag / H
    rows = []
    for k in range(problem.T):
        reach = problem.cut[1] - 1
        rows.append(losses(problem, moved, (k - reach, k + reach))[:, k].imag / H)
    return np.stack(rows, 1)


def table(problem, name):
    """C, (K, T, *shape of W): the derivative of L_k by the copy of W that is used at step t."""
    if ("table", name) not in problem.memo:
        value, T = problem.params[name], problem.T
        size = value.size
        copies = []
        for t in range(T):
            step = np.zeros((T * size, size), complex)
            step[t * size : (t + 1) * size] = 1j * H * np.eye(size)
            copies.append(value[None] + step.reshape(T * size, *value.shape))
        found = slopes(problem, Moved(weights={name: copies}))
        found = np.broadcast_to(found, (T * size, T))
        problem.memo["table", name] = np.moveaxis(found.reshape(T, *value.shape, T), -1, 0)
    return problem.memo["table", name]


def input_gradient(problem):
    """∂J/∂x, (T, B, D)."""
    size = problem.x.size
    step = 1j * H * np.eye(size).reshape(size, *problem.x.shape)
    found = slopes(problem, Moved(x=np.moveaxis(problem.x[None] + step, 1, 0))).sum(1)
    return np.broadcast_to(found, size).reshape(problem.x.shape)


def initial_state_gradient(problem, prefix):
    """∂J/∂s_0 of one layer and direction, its parts (B, S)."""
    parts = problem.states[prefix]
    sizes = [part.size for part in parts]
    steps, at = 1j * H * np.eye(sum(sizes)), np.cumsum([0, *sizes])
    moved = [
        part[None] + steps[:, lo:hi].reshape(-1, *part.shape) for part, lo, hi in zip(parts, at, at[1:], strict=False)
    ]
    found = np.broadcast_to(slopes(problem, Moved(states={prefix: moved})).sum(1), sum(sizes))
    return tuple(found[lo:hi].reshape(part.shape) for part, lo, hi in zip(parts, at, at[1:], strict=False))


def state_gradient(problem, prefix, b, walked):
    """∂J/∂s of one sequence after it walked so many of its own steps, its parts (S,), h first."""
    widths = [part.shape[1] for part in problem.states[prefix]]
    if walked == 0:
        return tuple(part[b] for part in initial_state_gradient(problem, prefix))
    steps, at = 1j * H * np.eye(sum(widths)), np.cumsum([0, *widths])
    bump = [steps[:, lo:hi] for lo, hi in itertools.pairwise(at)]
    found = np.broadcast_to(slopes(problem, Moved(bumps={(prefix, b, walked): bump})).sum(1), sum(widths))
    return tuple(found[lo:hi] for lo, hi in itertools.pairwise(at))


def by_central_difference(problem, name, k, t, element, h=1e-5):
    """One entry of `table` on real numbers alone: (L_k(+h) − L_k(−h)) / 2h of the copy used at step t."""
    ends = []
    for sign in (1, -1):
        copies = [problem.params[name][None].copy() for _ in range(problem.T)]
        copies[t][(0, *element)] += sign * h
        ends.append(losses(problem, Moved(weights={name: copies}))[0, k].real)
    return (ends[0] - ends[1]) / (2 * h)

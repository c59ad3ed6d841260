"""Networks whose Jacobians are known, and Jacobians made another way."""

from typing import NamedTuple

import numpy as np

import bptt
from bptt.cells import RNNState
from bptt.uses import Matmul


class LinearParams(NamedTuple):
    W_hh: np.ndarray


class LinearTape(NamedTuple):
    x: np.ndarray
    h_prev: np.ndarray


class LinearCell:
    """h = h_prev W: a cell of one's own, which ignores its input."""

    Params, State, gates, name = LinearParams, RNNState, ("h",), "linear"

    def __init__(self, hidden):
        self.hidden = self.width = hidden

    def shapes(self, inputs):
        return {"W_hh": (self.hidden, self.hidden)}

    def state_widths(self):
        return (self.hidden,)

    def step(self, p, x, s):
        return RNNState(s.h @ p.W_hh), LinearTape(x, s.h)

    def step_back(self, p, tape, ds):
        return RNNState(ds.h @ p.W_hh.T), None, {"W_hh": Matmul(tape.h_prev, ds.h)}


def linear_network(W):
    """A network of `LinearCell`; its Jacobian is the transpose of W."""
    return bptt.Network(LinearCell(len(W)), 1, None, 1, False, {"layer0.W_hh": np.asarray(W, float)})


def blank(T, B=1, D=1):
    """A batch of zeros."""
    return bptt.Batch(np.zeros((T, B, D)), np.zeros((T, B), int))


def rotation(rng, n):
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def brute_jacobians(network, batch, scans, states):
    """J (T, B, S, S) of the joint state of these scans, one column per unit, by complex steps through `cell.step`.

    The first of the scans reads batch.x. Steps are in the order of the walk.
    """
    cell, (T, B) = network.cell, batch.x.shape[:2]
    lengths = np.full(B, T) if batch.lengths is None else batch.lengths
    widths = [width for _ in scans for width in cell.state_widths()]
    s, found = np.concatenate([part for scan in scans for part in states[scan.prefix]], 1), []
    for t in range(T)[:: -1 if scans[0].reverse else 1]:
        live = (t < lengths)[:, None]
        columns = []
        for unit in range(s.shape[1]):
            bumped = s + 1e-30j * np.eye(s.shape[1])[unit]
            columns.append(_joint_step(network, scans, batch.x[t], np.split(bumped, np.cumsum(widths)[:-1], 1)))
        J = np.array(columns).imag.transpose(1, 2, 0) / 1e-30
        found.append(np.where(live[:, None], J, np.eye(s.shape[1])))
        s = np.where(live, columns[0].real, s)
    return np.array(found)


def _joint_step(network, scans, x, parts):
    per, new = len(network.cell.state_widths()), []
    for at, scan in enumerate(scans):
        p = bptt.cells.pick(network.cell, network.params, scan.prefix)
        state, _ = network.cell.step(p, x, network.cell.State(*parts[at * per : (at + 1) * per]))
        new, x = [*new, *state], state.h
    return np.concatenate(new, 1)

"""The course exercise: column vectors, forward and backward written here from the equations, against the package.

Nothing is shared with the package: x is (n_x, m, T), one example per column, and gradients are taken gate by gate.
"""

import numpy as np
import pytest

import bptt.model.layouts.gates as gates
from bptt.engine import gradient, predict
from bptt.model import Batch, Loss
from bptt.model.layouts import course, from_course, gradients_to_course, to_course, x_from_course, x_to_course

N_X, N_A, N_Y, M, T = 4, 5, 3, 2, 6


def random_parameters(kind, readout=True):
    rng = np.random.default_rng(8)
    if kind == "rnn":
        shapes = {"Wax": (N_A, N_X), "Waa": (N_A, N_A), "ba": (N_A, 1)}
        shapes |= {"Wya": (N_Y, N_A), "by": (N_Y, 1)} if readout else {}
    else:
        shapes = {f"W{gate}": (N_A, N_A + N_X) for gate in "fico"} | {f"b{gate}": (N_A, 1) for gate in "fico"}
        shapes |= {"Wy": (N_Y, N_A), "by": (N_Y, 1)} if readout else {}
    return {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}


def softmax(z):
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)


def sigma(z):
    return 1 / (1 + np.exp(-z))


class Simple:
    """a⟨t⟩ = tanh(Wax x⟨t⟩ + Waa a⟨t−1⟩ + ba)."""

    readout = "Wya"

    def forward(self, p, x, memory):
        (a_prev,) = memory
        a = np.tanh(p["Wax"] @ x + p["Waa"] @ a_prev + p["ba"])
        return (a,), (x, a_prev, a)

    def backward(self, p, cache, da, carry, grads):
        x, a_prev, a = cache
        dz = (da + carry[0]) * (1 - a**2)
        grads["dWax"] += dz @ x.T
        grads["dWaa"] += dz @ a_prev.T
        grads["dba"] += dz.sum(axis=1, keepdims=True)
        return (p["Waa"].T @ dz,), p["Wax"].T @ dz


class Long:
    """Γ = σ(W [a; x] + b) for f, i, o; c⟨t⟩ = Γf c⟨t−1⟩ + Γi c̃; a = Γo tanh(c)."""

    readout = "Wy"

    def forward(self, p, x, memory):
        a_prev, c_prev = memory
        stacked = np.vstack([a_prev, x])
        z = {gate: p[f"W{gate}"] @ stacked + p[f"b{gate}"] for gate in "fico"}
        on = {gate: np.tanh(value) if gate == "c" else sigma(value) for gate, value in z.items()}
        c = on["f"] * c_prev + on["i"] * on["c"]
        return (on["o"] * np.tanh(c), c), (stacked, c_prev, on, c)

    def backward(self, p, cache, da, carry, grads):
        stacked, c_prev, on, c = cache
        da = da + carry[0]
        dc = carry[1] + da * on["o"] * (1 - np.tanh(c) ** 2)
        dz = {
            "o": da * np.tanh(c) * on["o"] * (1 - on["o"]),
            "f": dc * c_prev * on["f"] * (1 - on["f"]),
            "i": dc * on["c"] * on["i"] * (1 - on["i"]),
            "c": dc * on["i"] * (1 - on["c"] ** 2),
        }
        dstacked = 0
        for gate, value in dz.items():
            grads[f"dW{gate}"] += value @ stacked.T
            grads[f"db{gate}"] += value.sum(axis=1, keepdims=True)
            dstacked = dstacked + p[f"W{gate}"].T @ value
        return (dstacked[:N_A], dc * on["f"]), dstacked[N_A:]


CELLS = {"rnn": (Simple(), 1), "lstm": (Long(), 2)}


def exercise(kind, p, x, labels):
    """Logits (n_y, m, T), the sum of −log ŷ, its gradients, and dx."""
    cell, parts = CELLS[kind]
    memory, caches, logits = (np.zeros((N_A, M)),) * parts, [], []
    for t in range(T):
        memory, cache = cell.forward(p, x[:, :, t], memory)
        caches.append((cache, memory[0]))
        logits.append(p[cell.readout] @ memory[0] + p["by"])
    loss = -sum(np.log(softmax(logits[t])[labels[:, t], np.arange(M)]).sum() for t in range(T))
    grads, carry, dx = {f"d{name}": np.zeros_like(value) for name, value in p.items()}, (0,) * parts, np.zeros_like(x)
    for t in reversed(range(T)):
        cache, a = caches[t]
        dy = softmax(logits[t]) - np.eye(N_Y)[labels[:, t]].T
        grads[f"d{cell.readout}"] += dy @ a.T
        grads["dby"] += dy.sum(axis=1, keepdims=True)
        carry, dx[:, :, t] = cell.backward(p, cache, p[cell.readout].T @ dy, carry, grads)
    return np.stack(logits, axis=2), loss, grads, dx


def check(kind):
    rng, p = np.random.default_rng(9), random_parameters(kind)
    x, labels = rng.normal(size=(N_X, M, T)), rng.integers(N_Y, size=(M, T))
    logits, loss, grads, dx = exercise(kind, p, x, labels)
    network = from_course(p, kind)
    np.testing.assert_allclose(x_to_course(predict(network, x_from_course(x))[0]), logits, rtol=0, atol=1e-12)
    ours = gradient(network, Batch(x_from_course(x), labels.T), Loss("cross_entropy", "sum"))
    assert ours.loss == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(x_to_course(ours.dx), dx, rtol=0, atol=1e-12)
    theirs = gradients_to_course(network, ours.gradients)
    assert set(theirs) == set(grads)
    for name, grad in grads.items():
        np.testing.assert_allclose(theirs[name], grad, rtol=0, atol=1e-12 * abs(grad).max(), err_msg=name)


@pytest.mark.parametrize("kind", CELLS)
def test_outputs_loss_and_gradients_are_those_of_the_exercise(kind):
    check(kind)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("readout", [True, False])
def test_there_and_back(kind, readout):
    p = random_parameters(kind, readout)
    again = to_course(from_course(p, kind))
    assert set(again) == set(p)
    for name, value in p.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_swapped_gate_is_noticed(monkeypatch):
    monkeypatch.setitem(course.LETTERS, "f", "i")
    monkeypatch.setitem(course.LETTERS, "i", "f")
    with pytest.raises(AssertionError, match="Not equal"):
        check("lstm")


def test_any_order_of_the_table_is_the_same_dict(monkeypatch):
    """The gates are named here, so that their order in the table cannot matter."""
    monkeypatch.setitem(gates.ORDERS["the course"], "lstm", "figo"[::-1])
    check("lstm")

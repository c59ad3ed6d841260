"""Ω and its immediate partial, against equations 9 and 10 written out with explicit Jacobians, sequence by sequence."""

import numpy as np
import pytest

from bptt import Batch, Loss, Network, gradient, record
from bptt.train import configure, fit
from bptt.train.loop import make_network
from bptt.train.omega import omega
from bptt.train.problem import open_problem
from oracles.equations import STEP

CELLS = [
    ("rnn", {}), ("rnn", {"nonlinearity": "relu"}), ("lstm", {}), ("lstm", {"peepholes": True, "projection": 2}),
    ("gru", {"reset": "after"}), ("gru", {"reset": "before"}),
]  # fmt: skip
T, B, D, H = 6, 3, 2, 4


def problem(cell, options, seed=0):
    rng = np.random.default_rng(seed)
    network = Network.create(cell, inputs=D, hidden=H, outputs=2, seed=seed, **options)
    for name, value in network.params.items():
        network.params[name] = value + 0.3 * rng.standard_normal(value.shape)
    return network, Batch(rng.standard_normal((T, B, D)), rng.integers(0, 2, (T, B)))


def cut(p, name, gates):
    return np.split(p[name], gates, axis=-1)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def step_back_by_matrix(network, p, x, s):
    """W_hh → ∂s_t/∂s_{t−1} (S, S), rows the state before, from the derivatives that the held state fixes."""
    kind, options = network.cell.name.split(" ")[0].lower(), network.cell

    if kind == "rnn":
        a = x @ p["W_xh"] + s[0] @ p["W_hh"] + p["b"]
        slope = 1 - np.tanh(a) ** 2 if options.nonlinearity == "tanh" else (a > 0) * 1.0
        return lambda W: W * slope
    if kind == "lstm":
        h, c = s
        P = np.eye(H) if p.get("W_hr") is None else p["W_hr"]
        ai, af, ag, ao = np.split(x @ p["W_xh"] + h @ p["W_hh"] + p["b"], 4)
        pi, pf, po = (p.get(f"p_{g}", np.zeros(H)) for g in "ifo")
        i, f, g = sigmoid(ai + pi * c), sigmoid(af + pf * c), np.tanh(ag)
        new = f * c + i * g
        o, y = sigmoid(ao + po * new), np.tanh(new)

        def matrix(W):
            Wi, Wf, Wg, Wo = np.split(W, 4, axis=1)  # (P, H)
            dc_dh = Wi * (g * i * (1 - i)) + Wf * (c * f * (1 - f)) + Wg * (i * (1 - g**2))
            dc_dc = np.diag(f + pi * g * i * (1 - i) + pf * c * f * (1 - f))
            dm_dh = Wo * (y * o * (1 - o)) + dc_dh * (o * (1 - y**2) + po * y * o * (1 - o))
            dm_dc = dc_dc * (o * (1 - y**2) + po * y * o * (1 - o))
            return np.block([[dm_dh @ P, dc_dh], [dm_dc @ P, dc_dc]])

        return matrix
    (h,) = s
    Wr, Wz, Wn = np.split(p["W_hh"], 3, axis=1)
    ar, az, an = np.split(x @ p["W_xh"] + p["b"], 3)
    r, z = sigmoid(ar + h @ Wr), sigmoid(az + h @ Wz)
    if options.reset == "after":
        q = h @ Wn + p["b_hn"]
        n = np.tanh(an + r * q)
    else:
        n = np.tanh(an + (r * h) @ Wn)

    def matrix(W):
        Ur, Uz, Un = np.split(W, 3, axis=1)
        if options.reset == "after":
            dn = (Ur * (q * r * (1 - r)) + Un * r) * (1 - n**2)
        else:
            dn = ((np.diag(r) + Ur * (h * r * (1 - r))) @ Un) * (1 - n**2)
        return np.diag(z) + Uz * ((h - n) * z * (1 - z)) + dn * (1 - z)

    return matrix


def by_hand(network, batch, loss):
    """Ω as a function of the W_hh that stands in the step back alone."""
    p = {name.removeprefix("layer0."): value for name, value in network.params.items()}
    parts = record(network, batch, loss, engine="reference").state_parts["layer0."]
    kind = network.cell.name.split(" ")[0].lower()
    options = {"rnn": "nonlinearity", "gru": "reset", "lstm": None}[kind]
    extra = {options: getattr(network.cell, options)} if options else {}
    extra |= {"peepholes": network.cell.peepholes, "projection": network.cell.projection} if kind == "lstm" else {}
    terms = []
    for b in range(B):
        s = tuple(np.zeros(w) for w in network.cell.state_widths())
        for t in range(T):
            matrix = step_back_by_matrix(network, p, batch.x[t, b], s)
            if t:
                terms.append((np.concatenate([part[t + 1, b] for part in parts]), matrix))
            one = {name: value[None] for name, value in p.items()}
            s = tuple(a[0] for a in STEP[kind](one, batch.x[t, b][None], tuple(a[None] for a in s), hidden=H, **extra))

    def value(W):
        return sum(
            (np.sqrt(((u @ matrix(W).T) ** 2).sum()) / np.sqrt((u**2).sum()) - 1) ** 2 for u, matrix in terms
        ) / B  # fmt: skip

    return value


@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_omega_and_its_immediate_partial_are_those_of_explicit_jacobians(cell, options):
    network, batch = problem(cell, options)
    found = omega(network, batch, Loss())
    value, W = by_hand(network, batch, Loss()), network.params["layer0.W_hh"]
    assert found.value == pytest.approx(value(W), rel=1e-10)
    slopes = np.zeros_like(W)
    for at in np.ndindex(*W.shape):
        V = np.zeros_like(W, complex)
        V[at] = 1e-30j
        slopes[at] = value(W + V).imag / 1e-30
    np.testing.assert_allclose(found.gradients["layer0.W_hh"], slopes, rtol=1e-9, atol=1e-12)


def test_a_step_that_keeps_the_size_of_the_error_costs_nothing_and_one_that_halves_it_a_quarter():
    network, batch = problem("rnn", {"nonlinearity": "relu"})
    turn = np.roll(np.eye(H), 1, axis=0)
    network.params |= {"layer0.W_hh": turn, "layer0.b": np.full(H, 50.0)}  # every unit is on
    assert omega(network, batch, Loss()).value < 1e-25
    network.params["layer0.W_hh"] = 0.5 * turn
    found = omega(network, batch, Loss())
    assert found.value == pytest.approx((T - 1) / 4)


def test_sequences_that_ended_and_errors_that_never_came_count_nothing():
    network, batch = problem("lstm", {})
    short = batch._replace(lengths=np.array([T, 2, 4]))
    value = sum(
        omega(network, Batch(batch.x[:n, [b]], batch.targets[:n, [b]]), Loss()).value for b, n in enumerate((T, 2, 4))
    )
    assert omega(network, short, Loss()).value == pytest.approx(value / B, rel=1e-10)
    early = np.zeros((T, B))
    early[1] = 1
    assert omega(network, batch._replace(mask=early), Loss()).value == pytest.approx(
        omega(network, Batch(batch.x[:2], batch.targets[:2]), Loss()).value, rel=1e-10
    )


def test_a_vanished_error_of_float32_gives_no_warning_and_no_nan():
    network, _ = problem("rnn", {})
    network = network.astype(np.float32)
    network.params["layer0.W_hh"] *= 1e-3
    x = np.random.default_rng(0).standard_normal((40, B, D))
    found = omega(network, Batch(x, np.zeros((40, B), int), mask=np.eye(40)[:, -1:].repeat(B, 1)), Loss())
    assert np.isfinite(found.value)
    assert found.gradients["layer0.W_hh"].dtype == np.float32
    assert np.isfinite(found.gradients["layer0.W_hh"]).all()


def test_both_directions_are_asked_in_their_own_order():
    network, batch = problem("gru", {})
    both = Network.create("gru", inputs=D, hidden=H, outputs=2, bidirectional=True)
    for name, value in network.params.items():
        if name.startswith("layer0."):
            both.params[name] = value
            both.params[name.replace("layer0.", "layer0.reverse.")] = value
    both.params["readout.W"] = np.concatenate([network.params["readout.W"], network.params["readout.W"]])
    turned = Batch(batch.x[::-1], batch.targets[::-1])
    one, other = (omega(both, given, Loss()).gradients for given in (batch, turned))
    for name, back in (("layer0.W_hh", "layer0.reverse.W_hh"), ("layer0.reverse.W_hh", "layer0.W_hh")):
        np.testing.assert_allclose(one[name], other[back], rtol=1e-10)


def test_training_adds_omega_to_the_gradient_before_it_is_clipped():
    config = configure(
        "adding:8", cell="rnn", hidden=5, batch=3, iterations=1, optimiser="sgd", learning_rate=0.1, clip_norm=0,
        dtype="float64", probe_every=1,
    )  # fmt: skip
    plain, with_omega = fit(config), fit(config.replace(omega=0.5))
    problem = open_problem(config)
    network = make_network(problem, config)
    batch = problem.batch(0, np.random.default_rng([config.seed, 0]), config.batch)
    extra = omega(network, batch, problem.loss)
    moved = with_omega.network.params["layer0.W_hh"] - plain.network.params["layer0.W_hh"]
    np.testing.assert_allclose(moved, -0.1 * 0.5 * extra.gradients["layer0.W_hh"], rtol=1e-8, atol=1e-14)
    same = set(plain.network.params) - {"layer0.W_hh"}
    assert all((with_omega.network.params[name] == plain.network.params[name]).all() for name in same)
    events = {event["kind"]: event for event in with_omega.events}
    assert events["train"]["omega"] == pytest.approx(extra.value)
    part = events["update"]["parameters"]["layer0.W_hh"]
    total = sum(part["shares"]) + part["carried"] + part["decay"]
    dW = gradient(network, batch, problem.loss).gradients["layer0.W_hh"]
    step = -0.1 * (dW + 0.5 * extra.gradients["layer0.W_hh"])
    expected = np.sum(-0.1 * dW * step) / np.sum(step**2)  # the share that all uses have together
    assert total == pytest.approx(expected, rel=1e-8)
    assert part["omega"] == pytest.approx(1 - expected, rel=1e-6)
    assert "omega" not in {event["kind"]: event for event in plain.events}["train"]

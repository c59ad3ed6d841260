"""Diagnoses made by hand, with numbers as real ones have them, for what shows them."""

import numpy as np

import bptt
from bptt.diagnose.context import Context
from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.exponents import Exponents
from bptt.diagnose.findings import Finding
from bptt.diagnose.gain import Gain
from bptt.diagnose.gates import CellPath, Gate, Gates
from bptt.diagnose.history import History
from bptt.diagnose.spectrum import Spectrum
from bptt.diagnose.truncation import Truncation

W = "layer0.W_hh"
LENGTHS = {"windowed": 12.0, "chunked": 25.0}


def ledger(T=60, B=3, H=6, keep="full", cell="lstm", **options):
    """Of a small network on random classes."""
    rng = np.random.default_rng(0)
    network = bptt.Network.create(cell, inputs=3, hidden=H, outputs=3, seed=0, **options)
    batch = bptt.Batch(rng.integers(0, 3, (T, B)), rng.integers(0, 3, (T, B)))
    return bptt.record(network, batch, bptt.Loss(), keep=keep, engine="reference")


def truncations(T, name=W, exact=False):
    """b(K) that falls off exponentially, with an interval."""
    K = np.unique(np.geomspace(1, T, 24).round().astype(int))
    out = []
    for scheme, length in LENGTHS.items():
        bias = np.where(K == T, 0.0, np.exp(-(K - 1) / (length * T / 100)))
        low, high = (bias, bias) if exact else (bias * 0.7, bias * 1.3)
        out.append(
            Truncation(name, scheme, K, bias, np.sqrt(np.maximum(1 - bias**2, 0)), low, high, exact, 32, T, 0.95)
        )
    one = np.array([0.98])
    out.append(Truncation(name, "last step only", np.array([1]), one, 1 - one, one, one, True, T, T, 0.95))
    return out


def history(T, probes=12, iterations=600):
    """Of a run whose reach grows, with a plateau in its loss."""
    rng = np.random.default_rng(1)
    n = np.arange(1, iterations + 1)
    loss = 0.17 + 0.5 * np.exp(-n / 60) + 0.02 * rng.standard_normal(iterations)
    norms = np.exp(rng.normal(0, 0.7, iterations)) * 0.8
    at, lags = np.linspace(0, iterations, probes).round().astype(int), np.arange(T)
    profiles = np.exp(-lags[None] / (4 + at[:, None] / iterations * T / 4))
    profiles[:, T - 3 :] = 0
    update = {"iteration": iterations, "moved": 0.03, "carried": 0.61, "decay": -0.02}
    return History(
        np.stack([n, loss], 1),
        np.stack([at[1:], 0.18 + 0.5 * np.exp(-at[1:] / 70)], 1),
        norms,
        norms > 1,
        1.0,
        "full",
        at,
        lags,
        {W: profiles},
        {W: np.stack([at, 5 + at * T / iterations / 2], 1)},
        np.stack([at, -0.2 + 0.2 * at / iterations, np.full(probes, 0.02)], 1),
        {
            W: update | {"shares": rng.normal(0.41 / T, 0.02, T)},
            "layer0.b": update,
            "readout.W": update | {"moved": 0.0},
        },
        baseline=0.167,
    )


def findings():
    """One of each severity."""
    return [
        Finding(
            "BP502",
            "ledger does not add up",
            "error",
            W,
            "The step gradients of layer0.W_hh differ from its gradient by 3 %.",
            {"residual": 0.03},
            {"residual": 1e-5},
        ),
        Finding(
            "BP101",
            "vanishing",
            "warning",
            "layer0",
            "A step back leaves 87 % of an error: half of it is gone after 5 steps, 1 % is left after 34.",
            {"slope": -0.139, "half life": 5.0, "slopes": np.array([-0.1, -0.2]), "never": float("inf"), "none": None},
            {"slope": -0.05},
            ("orthogonal", "chrono", "gated-cell"),
        ),
        Finding("BP204", "loss merely small", "note", "", "The loss is 1e-4 of what a guess costs."),
    ]


def full(T=60, **options):
    """Everything there is."""
    of = ledger(T, **options)
    rng = np.random.default_rng(2)
    lags = np.arange(1, min(T, 40))
    S = 12
    falls = -np.outer(lags, np.linspace(0.1, 1.2, S))[:, None] + 0.3 * rng.standard_normal((len(lags), 3, S))
    exponents = np.linspace(-0.05, -1.4, S)
    gate = lambda low, high: Gate(rng.random(6), low, high, rng.random(6))  # noqa: E731
    return Diagnosis(
        "runs/adding-1",
        {
            "network": of.meta["network"],
            "data": "adding:100",
            "loss": "squared error",
            "T": T,
            "B": 3,
            "dtype": "float64",
            "engine": "reference",
            "plan": "Full()",
            "iteration": 600,
            "command": "bptt check runs/adding-1 --seed 0",
            "version": "0.1.0",
            "residual": of.residual,
        },
        of,
        Exponents("", S, T, exponents, np.full(S, 0.02), exponents + 0.02 * rng.standard_normal((3, S))),
        Spectrum("", S, lags, np.sort(falls, 2)[:, :, ::-1]),
        {
            "layer0.": Gates(
                "layer0.",
                {"i": gate(0.1, 0.02), "f": gate(0.0, 0.55), "o": gate(0.2, 0.1), "g": gate(0.3, 0.35)},
                np.exp(rng.normal(2, 1, 6)),
            )
        },
        {"layer0.": CellPath("layer0.", np.arange(20), np.exp(-np.arange(20) / 10))},
        {
            "layer0.": Gain(
                "layer0.",
                np.full(T, 0.87),
                np.arange(T),
                -0.139 * np.arange(T) + 0.1 * rng.standard_normal(T),
                -0.139,
                0.01,
                8,
            )
        },
        {W: truncations(T), "layer0.b": truncations(T, "layer0.b", exact=True)},
        Context(lags, 0.4 * np.exp(-lags / 5), np.full(len(lags), 0.02), np.exp(-lags / 6), 18, 15, 24, 0.01, 16),
        history(T),
        findings(),
        ["Flossing was not tried: it takes too long"],
        1.7,
    )

"""Models that have exactly one defect, and models that have none; which verdicts each is given.

    PYTHONPATH=src:tests python -m oracles.verdict_cases

prints the table of docs/verdicts.md. A defect may bring others with it, which are then right too: they are named.
"""

import sys
from dataclasses import replace

import numpy as np

import bptt
from bptt.diagnose import History

KINDS = ("rnn", "gru", "lstm")
TASKS = ("echo:3:16", "adding:20", "copy-recall:6:4:3", "parity:14", "temporal-order:20")
TRAINED = ("echo:3:16", "adding:20", "parity:14")


def look(network, batch, loss, **more):
    return bptt.diagnose(network, batch, loss, engine="reference", **more)


def chain(rng, T, B, symbols=6):
    """Text-like: the next of a few symbols, each of which has two likely ones after it."""
    x = np.zeros((T + 1, B), np.int32)
    for t in range(T):
        likely, any_ = (2 * x[t] + rng.integers(0, 2, B)) % symbols, rng.integers(0, symbols, B)
        x[t + 1] = np.where(rng.random(B) < 0.9, likely, any_)
    return bptt.Batch(x[:-1], x[1:])


# ---- healthy ---------------------------------------------------------------------------------------------------------


def of_task(spec, kind, hidden=12, **more):
    task = bptt.make_task(spec)
    network = bptt.Network.create(kind, inputs=task.inputs, hidden=hidden, outputs=task.outputs, **more)
    return task, network, bptt.Loss(task.loss)


def trained(spec, kind, iterations=40):
    """The network of a task after a short training."""
    task, network, loss = of_task(spec, kind)
    rng, first, second = np.random.default_rng(1), {}, {}
    for i in range(1, iterations + 1):
        dW = bptt.gradient(network, task.batch(rng, 8), loss, engine="reference", dx=False).gradients
        for name, g in dW.items():  # Adam (Kingma & Ba 2015), written out
            first[name] = 0.9 * first.get(name, 0) + 0.1 * g
            second[name] = 0.999 * second.get(name, 0) + 0.001 * g * g
            step = first[name] / (1 - 0.9**i) / (np.sqrt(second[name] / (1 - 0.999**i)) + 1e-8)
            network.params[name] = network.params[name] - 0.01 * step
    return task, network, loss


def healthy():
    """Name → function that gives the diagnosis."""
    cases = {}

    def seen(made):
        task, network, loss = made
        return look(network, task.batch(np.random.default_rng(2), 8), loss)

    for kind in KINDS:
        for spec in TASKS:
            cases[f"{kind}, fresh, {spec}"] = lambda k=kind, s=spec: seen(of_task(s, k))
        for spec in TRAINED:
            cases[f"{kind}, trained, {spec}"] = lambda k=kind, s=spec: seen(trained(s, k))
        cases[f"{kind}, fresh, text"] = lambda k=kind: look(
            bptt.Network.create(k, inputs=6, hidden=12, outputs=6), chain(np.random.default_rng(3), 24, 8), bptt.Loss()
        )
    cases["lstm of two layers, fresh, echo:3:16"] = lambda: seen(of_task("echo:3:16", "lstm", layers=2))
    cases["gru both ways, fresh, echo:3:16"] = lambda: seen(of_task("echo:3:16", "gru", bidirectional=True))
    cases["relu rnn, identity, adding:20"] = lambda: seen(
        of_task("adding:20", "rnn", init="identity", nonlinearity="relu")
    )
    cases["lstm, chrono, adding:40"] = lambda: seen(of_task("adding:40", "lstm", chrono=40))
    return cases


# ---- defects ---------------------------------------------------------------------------------------------------------


def rnn(scale=1.0, hidden=12, T=40, B=4, inputs=3, outputs=3, seed=0, **more):
    """A tanh RNN, its recurrent weights multiplied by `scale`, on random inputs and classes."""
    rng = np.random.default_rng(seed)
    network = bptt.Network.create("rnn", inputs=inputs, hidden=hidden, outputs=outputs, seed=seed, **more)
    network.params["layer0.W_hh"] *= scale
    return network, bptt.Batch(rng.standard_normal((T, B, inputs)), rng.integers(0, outputs, (T, B))), bptt.Loss()


def exploding():
    """ReLU with W_hh = 1.3 I on positive numbers: ∂J/∂s grows × 1.3 with each step back, loss at the last step only."""
    network, batch, _ = rnn(init="identity", nonlinearity="relu", T=36)
    network.params["layer0.W_hh"] *= 1.3
    network.params["layer0.W_xh"] = np.abs(network.params["layer0.W_xh"])
    return look(network, batch._replace(x=np.abs(batch.x)), bptt.Loss(steps="last"))


def chaotic():
    """Independent normal weights of variance 3²/H: chaos (Sompolinsky, Crisanti, Sommers 1988)."""
    network, batch, loss = rnn(hidden=48, T=60)
    network.params["layer0.W_hh"] = np.random.default_rng(0).standard_normal((48, 48)) * 3 / np.sqrt(48)
    return look(network, batch, loss)


def cut_short():
    """An LSTM that forgets next to nothing, in chunks of 3 of 30 steps."""
    rng = np.random.default_rng(0)
    network = bptt.Network.create("lstm", inputs=3, hidden=8, outputs=3, forget_bias=4.0)
    batch = bptt.Batch(rng.standard_normal((30, 4, 3)), rng.integers(0, 3, (30, 4)))
    return look(network, batch, bptt.Loss(), plan="chunked:3")


def dead():
    """ReLU units that are never above 0."""
    network, batch, loss = rnn(nonlinearity="relu")
    network.params["layer0.b"] -= 100
    return look(network, batch, loss)


def cancelling():
    """A state at rest, and errors of +1 and −1 in turn."""
    network, _, _ = rnn(outputs=1)
    x = np.full((300, 1, 3), 0.1)
    _, rest = bptt.predict(network, x, engine="reference")
    y, _ = bptt.predict(network, x[:30], states=rest, engine="reference")
    errors = np.where(np.arange(30) % 2, 1.0, -1.0)[:, None, None]
    return look(network, bptt.Batch(x[:30], y + errors), bptt.Loss("squared_error"), states=rest)


def one_step():
    """One target of 30 is a thousand times too large."""
    network, batch, _ = rnn(outputs=2, T=30)
    targets = np.random.default_rng(1).standard_normal((30, 4, 2))
    targets[6] *= 1000
    return look(network, batch._replace(targets=targets), bptt.Loss("squared_error"))


def learnt():
    """The targets are what the network says anyway, to seven digits."""
    network, batch, _ = rnn(outputs=2, T=20)
    y, _ = bptt.predict(network, batch.x, engine="reference")
    targets = y + 1e-7 * np.random.default_rng(1).standard_normal(y.shape)
    return look(network, batch._replace(targets=targets), bptt.Loss("squared_error"))


def saturated():
    """Inputs a hundred times too large."""
    network, batch, loss = rnn()
    return look(network, batch._replace(x=100 * batch.x), loss)


def wide_open():
    """An LSTM whose input gate stands open for good."""
    network = bptt.Network.create("lstm", inputs=3, hidden=8, outputs=3)
    network.params["layer0.b"][:8] += 10
    rng = np.random.default_rng(0)
    return look(network, bptt.Batch(rng.standard_normal((20, 4, 3)), rng.integers(0, 3, (20, 4))), bptt.Loss())


def history(clipped, norms=None, plan="full", **more):
    """A run of len(clipped) updates."""
    n = len(clipped)
    norms = np.linspace(1, 3, n) if norms is None else norms
    train = np.stack([np.arange(1, n + 1), np.ones(n)], 1)
    empty = np.zeros((0, 2))
    return History(train, empty, norms, np.array(clipped, bool), 1.0, plan, np.zeros(0, int), np.zeros(0, int), **more)


def clipped():
    """A healthy network of a run in which each update was clipped."""
    network, batch, loss = rnn(T=16)
    return look(network, batch, loss, history=history(np.ones(60)))


def nan_input():
    """A NaN in the middle of a sequence."""
    network, batch, loss = rnn()
    batch.x[20, 1, 0] = np.nan
    return look(network, batch, loss)


def overflow():
    """States that leave the range of floats."""
    network, batch, loss = rnn(nonlinearity="relu", init="identity")
    network.params["layer0.W_hh"] *= 1e30
    return look(network, batch._replace(x=np.abs(batch.x)), loss)


def lost_use():
    """A gradient with a part that no use explains."""
    ledger = bptt.record(*rnn(T=16), engine="reference")
    wrong = {name: dW * 1.01 for name, dW in ledger.gradients.items()}
    return bptt.diagnose(replace(ledger, gradients=wrong))


# code, its builder, and what is right to be said besides: a state that saturates passes nothing back, one that explodes
# is chaotic, one whose units are dead carries nothing.
DEFECTS = [
    ("BP101", lambda: look(*rnn(0.5)), ()),
    ("BP101", lambda: look(*rnn(T=100)), ()),  # honest: orthogonal weights do not save a tanh RNN over 100 steps
    ("BP102", exploding, ("BP103",)),
    ("BP103", chaotic, ("BP102",)),
    ("BP104", cut_short, ()),
    ("BP105", lambda: look(*rnn(T=16), plan="windowed:1"), ()),
    ("BP105", lambda: look(*rnn(T=16), plan="chunked:1"), ()),
    ("BP201", dead, ("BP101", "BP301")),
    ("BP202", cancelling, ()),
    ("BP203", one_step, ()),
    ("BP204", learnt, ()),
    ("BP301", saturated, ("BP101",)),
    ("BP302", wide_open, ()),
    ("BP401", clipped, ()),
    ("BP501", nan_input, ()),
    ("BP501", overflow, ()),
    ("BP502", lost_use, ()),
]


def main():
    """Print which of them are said."""
    false, missed, beside = [], [], []
    cases = healthy()
    for name, make in cases.items():
        codes = {one.code for one in make().findings}
        false += [(name, codes)] if codes else []
    for code, make, also in DEFECTS:
        codes = {one.code for one in make().findings}
        missed += [] if code in codes else [(code, make.__name__, codes)]
        beside += [(code, make.__name__, more)] if (more := codes - {code, *also}) else []
    text = f"healthy {len(cases)}, false positives {len(false)} {false}\n"
    text += f"defects {len(DEFECTS)}, misses {len(missed)} {missed}, wrong verdicts {len(beside)} {beside}\n"
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

"""Our own steps: the reference and the compiled engine, without a ledger and with all that it can say."""

from typing import Any

import bptt
from benchmarks.contenders import Work
from benchmarks.problem import Problem
from bptt.ledger.norms import norm

W_HH = "layer0.W_hh"
LOSS = bptt.Loss("squared_error")


def reference(problem: Problem, threads: int) -> Work:
    """The NumPy loop; its threads are those of NumPy's BLAS, set from outside."""
    return _plain(problem, engine="reference")


def compiled(problem: Problem, threads: int) -> Work:
    """The compiled engine, no ledger."""
    return _plain(problem, engine="compiled", threads=threads)


def ledger(problem: Problem, threads: int) -> Work:
    """The complete ledger of norms and gains, every step asked for all of it."""
    return _looked_at(problem, look, keep="norms", threads=threads)


def shares(problem: Problem, threads: int) -> Work:
    """The same with shares, which are two more products."""

    def look_closer(ledger: Any) -> None:
        look(ledger)
        for name in ledger.names:
            ledger.shares(name)

    return _looked_at(problem, look_closer, keep="norms", shares=True, threads=threads)


def contribution_map(problem: Problem, threads: int) -> Work:
    """‖C[k, t]‖ of every parameter, T × T each."""

    def look(ledger: Any) -> None:
        for name in ledger.names:
            ledger.map(name)

    return _looked_at(problem, look, keep="norms", map=True, threads=threads)


def look(ledger: Any) -> None:
    """Ask a ledger for every norm, gain and residual it has."""
    for name in ledger.names:
        ledger.norms(name), ledger.sequence_norms(name)
    ledger.state_norms(), ledger.gains(), ledger.residual


def _plain(problem: Problem, **options: Any) -> Work:
    batch = bptt.Batch(problem.x, problem.targets)

    def step() -> Any:
        return bptt.gradient(problem.network, batch, LOSS, dx=False, **options)

    return Work(step, lambda done: (float(done.loss), norm(done.gradients[W_HH])))


def _looked_at(problem: Problem, look: Any, **options: Any) -> Work:
    batch = bptt.Batch(problem.x, problem.targets)

    def step() -> Any:
        ledger = bptt.record(problem.network, batch, LOSS, engine="compiled", **options)
        look(ledger)
        return ledger

    return Work(step, lambda ledger: (ledger.loss, norm(ledger.gradient(W_HH))))

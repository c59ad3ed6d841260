"""JAX: one jitted value_and_grad of a scan.

x W_xh of all steps is one product outside the scan. Unrolling 2 or 4 steps gains up to a tenth for an RNN or a GRU and
loses two thirds at B = 1 (8 steps never won), so each is tried, and the fastest runs. For the gates of an LSTM
`jnp.split`, slices, a (B, 4, H) view and one product per gate were tried: the first two were best, by turns, and within
a tenth of each other.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.contenders import Work
from benchmarks.problem import Problem

UNROLL = (1, 2, 4)
sigmoid = jax.nn.sigmoid


def rnn(p: dict[str, Any], h: Any, a: Any) -> tuple[Any, Any]:
    """h (B, H), a = x W_xh + b (B, H)."""
    h = jnp.tanh(a + h @ p["W_hh"])
    return h, h


def gru(p: dict[str, Any], h: Any, a: Any) -> tuple[Any, Any]:
    """h (B, H), a = x W_xh + b (B, 3H)."""
    (a_r, a_z, a_n), (u_r, u_z, u_n) = jnp.split(a, 3, -1), jnp.split(h @ p["W_hh"], 3, -1)
    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
    n = jnp.tanh(a_n + r * (u_n + p["b_hn"]))
    h = n + z * (h - n)
    return h, h


def lstm(p: dict[str, Any], state: Any, a: Any) -> tuple[Any, Any]:
    """state: h and c (B, H), a = x W_xh + b (B, 4H)."""
    h, c = state
    i, f, g, o = jnp.split(a + h @ p["W_hh"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (h, c), h


CELLS = {"rnn": rnn, "gru": gru, "lstm": lstm}


def plain(problem: Problem, threads: int) -> Work:
    """The fastest of a few unrollings; its first call, when it is asked for, is already compiled."""
    weights = {name.removeprefix("layer0."): jnp.asarray(value) for name, value in problem.network.params.items()}
    data = weights, jnp.asarray(problem.x), jnp.asarray(problem.targets)
    choices = UNROLL if max(UNROLL) < problem.shape.T else UNROLL[:1]
    steps = [_step(problem, data, unroll) for unroll in choices]
    step = steps[0] if len(steps) == 1 else min(steps, key=_seconds)
    return Work(step, lambda done: (float(done[0]), float(jnp.linalg.norm(done[1]["W_hh"]))))


def _step(problem: Problem, data: tuple[Any, ...], unroll: int) -> Callable[[], Any]:
    cell, B, H = CELLS[problem.kind], problem.shape.B, problem.shape.H

    def loss(p: dict[str, Any], x: Any, targets: Any) -> Any:
        h = jnp.zeros((B, H), x.dtype)
        start = (h, h) if problem.kind == "lstm" else h
        a = x @ p["W_xh"] + p["b"]
        _, y = jax.lax.scan(lambda state, a: cell(p, state, a), start, a, unroll=unroll)
        return jnp.mean((y - targets) ** 2)

    both = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(both(*data))


def _seconds(step: Callable[[], Any]) -> float:
    """The fastest of a few calls, a tenth of a second of them at most, after one that compiles."""
    step()
    times, end = [], time.perf_counter() + 0.1
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 20):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)

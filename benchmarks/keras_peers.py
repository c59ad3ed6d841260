"""Keras 3, batch-major as it wants it, with the gradient of the backend that KERAS_BACKEND names."""

from typing import Any

import keras

from benchmarks.contenders import Work
from benchmarks.problem import Problem
from bptt.model.layouts import to_keras

LAYERS = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}


def on_torch(problem: Problem, threads: int) -> Work:
    """Torch's autograd of the layer's call."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    layer, at = _layer(problem)
    x, targets = (torch.from_numpy(part.swapaxes(0, 1).copy()) for part in (problem.x, problem.targets))
    weights = [variable.value for variable in layer.trainable_variables]

    def step() -> Any:
        loss = F.mse_loss(layer(x), targets)
        return loss.detach(), torch.autograd.grad(loss, weights)

    return Work(step, lambda done: (float(done[0]), float(done[1][at].norm())))


def on_jax(problem: Problem, threads: int) -> Work:
    """One jitted value_and_grad of the layer's stateless call."""
    import jax
    import jax.numpy as jnp

    layer, at = _layer(problem)
    x, targets = (jnp.asarray(part.swapaxes(0, 1)) for part in (problem.x, problem.targets))
    weights = [variable.value for variable in layer.trainable_variables]
    others = [variable.value for variable in layer.non_trainable_variables]

    def loss(weights: Any, x: Any, targets: Any) -> Any:
        y, _ = layer.stateless_call(weights, others, x)
        return jnp.mean((y - targets) ** 2)

    both = jax.jit(jax.value_and_grad(loss))
    return Work(
        lambda: jax.block_until_ready(both(weights, x, targets)),
        lambda done: (float(done[0]), float(jnp.linalg.norm(done[1][at]))),
    )


def _layer(problem: Problem) -> tuple[Any, int]:
    """A layer with the problem's weights, and where its recurrent kernel stands among its variables."""
    T, B, X, H = problem.shape
    layer = LAYERS[problem.kind](H, return_sequences=True)
    layer.build((B, T, X))
    layer.set_weights(to_keras(problem.network))
    return layer, [variable.name for variable in layer.trainable_variables].index("recurrent_kernel")

"""The loss, and the score, on the part that is never trained on."""

from typing import NamedTuple

import numpy as np

from bptt.engine import evaluate, predict
from bptt.model import Batch, Loss, Network, States
from bptt.train.problem import Problem


class Validated(NamedTuple):
    """loss: mean over counted steps.  score: accuracy from 0 to 1, None where the loss says it all."""

    loss: float
    score: float | None


def validate(network: Network, problem: Problem, windows: int | None = None, engine: str = "auto") -> Validated:
    """Mean loss over at most so many windows of the validation part (None: all), each continuing the one before."""
    count = len(problem.validation) if windows is None else min(windows, len(problem.validation))
    states: States | None = None
    losses, score = [], None
    for i in range(count):
        batch = problem.validation.batch(i)
        if problem.score is None:
            per_step, states = evaluate(network, batch, problem.loss, states, engine=engine)
            losses.append(float(per_step.sum(dtype=np.float64)))
        else:
            loss, score = _scored(network, batch, problem.loss, engine)
            losses.append(loss)
    return Validated(float(np.mean(losses)), score)


def _scored(network: Network, batch: Batch, loss: Loss, engine: str) -> tuple[float, float]:
    y, _ = predict(network, batch.x, batch.lengths, engine=engine)
    weights = loss.weights(batch, network.width, network.dtype)
    right = (y.argmax(-1) == batch.targets)[weights != 0]
    return float(loss.evaluate(y, batch.targets, weights).per_step.sum(dtype=np.float64)), float(right.mean())

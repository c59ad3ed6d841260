"""The losses of `bptt.model.losses` and their derivatives in one sweep over the outputs.

T step · B row · O output
"""

import math

import numpy as np

from bptt.engine.compiled.functions import exponentials
from bptt.engine.compiled.kernel import kernel
from bptt.engine.compiled.memory import aligned
from bptt.engine.compiled.threads import run, spread
from bptt.engine.compiled.vector import dot, flush_denormals, restore
from bptt.model import Loss
from bptt.model.losses import LossValue
from bptt.typing import Array

WORTH = 100_000  # outputs from which a second thread is worth waking


def evaluate(loss: Loss, y: Array, targets: Array, weights: Array, threads: int) -> LossValue:
    """As `Loss.evaluate`."""
    T = len(y)
    per_step, dy = np.empty(T, y.dtype), aligned(y.shape, y.dtype)
    kernel = _cross_entropy if loss.kind == "cross_entropy" else _squared_error
    parts = spread(T, threads if y.size >= WORTH else 1)
    run(lambda part: kernel(y, targets, weights, *part, per_step, dy), parts)
    return LossValue(per_step, dy)


@kernel
def _cross_entropy(y, targets, weights, first, last, per_step, dy):
    control = flush_denormals()
    T, B, O = y.shape
    flat, ones = dy.reshape(T * B * O), np.ones(O, y.dtype)
    for t in range(first, last):
        total = 0.0
        for b in range(B):
            w, row, out = weights[t, b], y[t, b], dy[t, b]
            if w == 0:
                out[:] = 0
                continue
            top = row[0]
            for j in range(O):
                top = row[j] if row[j] > top else top
            for j in range(O):
                out[j] = row[j] - top
            at = out[targets[t, b]]
            exponentials(flat, (t * B + b) * O, O)
            part = dot(flat, (t * B + b) * O, ones, 0, O)
            total += w * (math.log(part) - at)
            scale = y.dtype.type(w / part)
            for j in range(O):
                out[j] *= scale
            out[targets[t, b]] -= w
        per_step[t] = total
    restore(control)


@kernel
def _squared_error(y, targets, weights, first, last, per_step, dy):
    control = flush_denormals()
    T, B, O = y.shape
    flat = dy.reshape(T * B * O)
    for t in range(first, last):
        total = 0.0
        for b in range(B):
            w, row, wanted, out = weights[t, b], y[t, b], targets[t, b], dy[t, b]
            if w == 0:
                out[:] = 0
                continue
            for j in range(O):
                out[j] = row[j] - wanted[j]
            at, double = (t * B + b) * O, w + w
            total += w * np.float64(dot(flat, at, flat, at, O))
            for j in range(O):
                out[j] *= double
        per_step[t] = total
    restore(control)

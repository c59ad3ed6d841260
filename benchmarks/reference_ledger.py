"""What a ledger costs on the reference engine, beside the training step that it came from, with a readout.

`python -m benchmarks.reference_ledger CELL T B X H REPEATS` prints it; seconds.
"""

import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.children import ROOT, environment
from benchmarks.problem import Shape

FULL, QUICK, DRY = Shape(1000, 32, 64, 128), Shape(100, 8, 16, 32), Shape(5, 2, 3, 4)


def measure(kind: str, shape: Shape, repeats: int, threads: int) -> dict[str, Any]:
    """In a process of its own, with the number of threads that all have."""
    command = [sys.executable, "-m", "benchmarks.reference_ledger", kind, *map(str, shape), str(repeats)]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), check=True, stdout=subprocess.PIPE, text=True)
    return {"cell": kind, "shape": list(shape), **json.loads(done.stdout)}


def cost(kind: str, shape: Shape, repeats: int) -> dict[str, float]:
    """A training step, and what a ledger adds to it: the same pass recorded, then everything asked of it."""
    import numpy as np

    import bptt

    T, B, D, H = shape
    rng = np.random.default_rng(0)
    network = bptt.Network.create(kind, inputs=D, hidden=H, outputs=D, dtype=np.float32)
    batch, loss = bptt.Batch(rng.standard_normal((T, B, D)), rng.integers(0, D, (T, B))), bptt.Loss()
    plain, extra, asked = [], [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        bptt.gradient(network, batch, loss, engine="reference")
        stepped = time.perf_counter()
        ledger = bptt.record(network, batch, loss, engine="reference")
        recorded = time.perf_counter()
        ask(ledger)
        plain.append(stepped - start)
        extra.append(recorded - stepped - plain[-1])
        asked.append(time.perf_counter() - recorded)
    step, recording, asking = (statistics.median(times[1:]) for times in (plain, extra, asked))
    return {"step_s": step, "recording_adds_s": recording, "asking_s": asking, "ratio": (recording + asking) / step}


def ask(ledger: Any) -> None:
    """Norms, shares, per sequence, coherence, gains, what the state carries, residual."""
    for name in ledger.names:
        ledger.norms(name), ledger.shares(name), ledger.sequence_norms(name), ledger.coherence(name)
    ledger.gains(), ledger.state_norms(), ledger.residual


if __name__ == "__main__":
    print(json.dumps(cost(sys.argv[1], Shape(*map(int, sys.argv[2:6])), int(sys.argv[6]))))

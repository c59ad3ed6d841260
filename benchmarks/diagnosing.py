"""What a diagnosis costs: `bptt check` on a run as a whole process, and samples of the exponent while training."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT, ChildError, environment
from benchmarks.spread import median
from benchmarks.training import NEVER

FULL, QUICK, DRY = (200, 32, 128), (40, 8, 16), (8, 2, 4)  # T, B, H
EVERY = 50  # iterations between two samples
SAMPLING = """
import json, sys, time
from bptt.train import configure
from bptt.train.jacobian import JacobianSample
from bptt.train.loop import make_network
from bptt.train.problem import open_problem
from bptt.engine import gradient
import numpy as np
H, rounds = map(int, sys.argv[1:])
config = configure(None, hidden=H)
problem = open_problem(config)
network, rng = make_network(problem, config), np.random.default_rng(0)
sample, optimiser, clip = JacobianSample(problem, config), config.make_optimiser(), config.make_clip()
def step(n):
    done = gradient(network, problem.batch(n, rng, config.batch), problem.loss, dx=False)
    optimiser.update(network.params, done.gradients, clip).apply(network.params)
step(0), sample.look(network)
found = {"update": [], "sample": []}
for turn in range(rounds):
    start = time.perf_counter()
    for n in range(10):
        step(n)
    found["update"].append((time.perf_counter() - start) / 10)
    start = time.perf_counter()
    sample.look(network)
    found["sample"].append(time.perf_counter() - start)
print(json.dumps(found))
"""


def measure(sizes: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Seconds of the command, and of a sample and an update in turns; threads are those of the command itself."""
    T, B, H = sizes
    found: dict[str, Any] = {"sizes": list(sizes), "every": EVERY, "status": "measured"}
    try:
        with tempfile.TemporaryDirectory(prefix="bptt-benchmark-") as folder:
            run = str(Path(folder, "run"))
            asked = ["--hidden", str(H), "--steps", str(T), "--batch", str(B), "--iterations", "3", "--out", run]
            _timed(["-m", "bptt", "train", *asked, *NEVER])
            found["check"] = [_timed(["-m", "bptt", "check", run, "--json"])[0] for _ in range(rounds + 1)][1:]
        found |= json.loads(_timed(["-c", SAMPLING, str(H), str(20 * rounds)], environment(1))[1])
    except ChildError as error:
        found["status"] = f"failed: {error}"
    return found


def share(found: dict[str, Any]) -> float:
    """What a sample every so many updates adds to them."""
    return median(found["sample"]) / (found["every"] * median(found["update"]))


def _timed(command: list[str], env: dict[str, str] | None = None) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=env)
    took = time.perf_counter() - start
    if done.returncode not in (0, 1):  # 1: a verdict
        raise ChildError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return took, done.stdout

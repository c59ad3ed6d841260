"""How long it takes to begin: the command, the import, and the first compiled step on a new machine."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT, environment

FIRST = """
import sys, time
import numpy as np, bptt
kind = sys.argv[1]
network = bptt.Network.create(kind, inputs=2, hidden=3, dtype=np.float32)
batch = bptt.Batch(np.zeros((4, 2, 2), np.float32), np.zeros((4, 2, 3), np.float32))
start = time.perf_counter()
bptt.gradient(network, batch, bptt.Loss("squared_error"), engine="compiled")
bptt.record(network, batch, bptt.Loss("squared_error"), engine="compiled", keep="norms")
print(time.perf_counter() - start)
"""


def begin(repeats: int, threads: int) -> dict[str, float]:
    """`bptt explain` as a process, and `import bptt` beyond NumPy's own import, alternating."""
    python, env = sys.executable, environment(threads)
    numpy, bptt = [python, "-c", "import numpy"], [python, "-c", "import numpy, bptt"]
    pairs = [(_seconds(numpy, env), _seconds(bptt, env)) for _ in range(repeats + 1)][1:]
    explain = [_seconds([python, "-m", "bptt", "explain", "the cat sat down"], env) for _ in range(repeats + 1)][1:]
    return {
        "explain, whole process (s)": statistics.median(explain),
        "import bptt beyond numpy (s)": statistics.median(b - a for a, b in pairs),
    }


def first_step(kind: str, threads: int) -> dict[str, Any]:
    """Seconds of the first compiled gradient and ledger of a process: nothing compiled yet, and all of it on disk."""
    with tempfile.TemporaryDirectory(prefix="bptt-benchmark-") as folder:
        env = environment(threads) | {"BPTT_CACHE_DIR": folder}
        cold, warm = (_first(kind, env) for _ in range(2))
        cold = cold if any(Path(folder).iterdir()) else None  # kept elsewhere: then nobody knows how cold that was
    return {"cell": kind, "nothing compiled yet (s)": cold, "compiled before, read from disk (s)": warm}


def _first(kind: str, env: dict[str, str]) -> float | None:
    done = subprocess.run([sys.executable, "-c", FIRST, kind], cwd=ROOT, env=env, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def _seconds(command: list[str], env: dict[str, str]) -> float:
    """Wall time of a whole process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, env=env, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start

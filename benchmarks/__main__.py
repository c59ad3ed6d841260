"""Measure, side by side in one run: start-up, and what a ledger costs beside the training step that it came from.

make bench              all of it, about two minutes
make bench ARGS=--quick small shapes, a few seconds
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

from bptt.engine import gradient, record
from bptt.model import Batch, Loss, Network

SHAPE, QUICK = {"T": 1000, "B": 32, "H": 128, "D": 64}, {"T": 20, "B": 4, "H": 8, "D": 4}


def seconds(command: list[str], repeats: int) -> list[float]:
    """Wall time of a whole process, after one run that warms the disk."""
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times += [time.perf_counter() - start] * (i > 0)
    return times


def start_up(repeats: int) -> dict[str, float]:
    """`bptt explain` as a process, and `import bptt` beyond NumPy's own import, alternating."""
    python = sys.executable
    numpy, bptt = [python, "-c", "import numpy"], [python, "-c", "import numpy, bptt"]
    pairs = [(seconds(numpy, 1)[0], seconds(bptt, 1)[0]) for _ in range(repeats)]
    explain = seconds([python, "-m", "bptt", "explain", "the cat sat down"], repeats)
    return {
        "explain, whole process (s)": statistics.median(explain),
        "import bptt beyond numpy (s)": statistics.median(b - a for a, b in pairs),
    }


def ledger_cost(kind: str, shape: dict[str, int], repeats: int) -> dict[str, float]:
    """A training step, and what a ledger adds to it: the same pass recorded, then norms, shares, gains, residual."""
    T, B, H, D = (shape[key] for key in "TBHD")
    rng = np.random.default_rng(0)
    network = Network.create(kind, inputs=D, hidden=H, outputs=D, dtype=np.float32)
    batch, loss = Batch(rng.standard_normal((T, B, D)), rng.integers(0, D, (T, B))), Loss()
    plain, recorded, asked = [], [], []
    for _ in range(repeats + 1):
        at = [time.perf_counter()]
        gradient(network, batch, loss)
        at.append(time.perf_counter())
        ledger = record(network, batch, loss)
        at.append(time.perf_counter())
        for name in ledger.names:
            ledger.norms(name), ledger.shares(name), ledger.sequence_norms(name), ledger.coherence(name)
        ledger.gains(), ledger.state_norms(), ledger.residual
        at.append(time.perf_counter())
        for times, taken in zip((plain, recorded, asked), np.diff(at), strict=True):
            times.append(taken)
    step, extra = statistics.median(plain[1:]), statistics.median(np.subtract(recorded, plain)[1:])
    ask = statistics.median(asked[1:])
    return {"step (s)": step, "recording adds (s)": extra, "norms, shares, gains, residual (s)": ask,
            "ledger / step": (extra + ask) / step}  # fmt: skip


MEMORY = """
import sys
import numpy as np, bptt
T, keep, plan = int(sys.argv[1]), sys.argv[2], {"full": bptt.Full(), "checkpointed": bptt.Checkpointed()}[sys.argv[3]]
rng = np.random.default_rng(0)
network = bptt.Network.create("lstm", inputs=32, hidden=64, outputs=32, dtype=np.float32)
batch = bptt.Batch(rng.integers(0, 32, (T, 8)), rng.integers(0, 32, (T, 8)))
def peak():  # of this program alone; ru_maxrss would begin with that of the process that started it
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

before = peak()
bptt.record(network, batch, bptt.Loss(), keep=keep, plan=plan)
print((peak() - before) / 1024)
"""


def memory(T: int, keep: str, plan: str) -> float:
    """Peak memory of recording an LSTM, B = 8, H = 64, float32, above what was there before; MiB, own process."""
    command = [sys.executable, "-c", MEMORY, str(T), keep, plan]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a table; with --json the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    shape, repeats = (QUICK, 1) if options.quick else (SHAPE, 5)
    results = {"start-up": start_up(repeats)}
    for kind in ("rnn", "gru", "lstm"):
        results[f"{kind}, " + ", ".join(f"{k}={v}" for k, v in shape.items())] = ledger_cost(kind, shape, repeats)
    T = 100 if options.quick else 10_000
    cases = [(T, "factors", "full"), (T, "norms", "checkpointed"), (4 * T, "norms", "checkpointed")]
    results["memory of a ledger, LSTM, B=8, H=64 (MiB)"] = {
        f"T={steps}, keep {keep}, {plan}": memory(steps, keep, plan) for steps, keep, plan in cases
    }
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for title, figures in results.items():
        print(title)
        for name, value in figures.items():
            print(f"    {name:40} {value:8.3f}")


if __name__ == "__main__":
    main()

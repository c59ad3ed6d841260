"""What the questions of docs/reach.md cost: the least of three runs, LSTM H = 128, T = 200, B = 32.

python tests/diagnose/costs.py prints the table that docs/reach.md shows.
"""

import time

import numpy as np

import bptt
from bptt.diagnose.context import effective_context
from bptt.diagnose.gain import error_gain
from bptt.diagnose.sampled import measure_truncation, sample_truncation

ASKED = {
    "`bptt.record`": bptt.record,
    "`measure_truncation`, every loss walked back": measure_truncation,
    "`sample_truncation`, 32 of 200 losses": sample_truncation,
    "`error_gain`": error_gain,
    "`effective_context`": effective_context,
}


def lines(T=200, B=32, H=128, runs=3):
    """The table in Markdown, seconds."""
    yield "| | float32 | float64 |"
    found = {name: [] for name in ASKED}
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(0)
        network = bptt.Network.create("lstm", inputs=10, hidden=H, outputs=10, dtype=dtype)
        batch = bptt.Batch(rng.standard_normal((T, B, 10)).astype(dtype), rng.integers(0, 10, (T, B)))
        for name, asked in ASKED.items():
            times = []
            for _ in range(runs):
                start = time.perf_counter()
                asked(network, batch, bptt.Loss())
                times.append(time.perf_counter() - start)
            found[name].append(min(times))
    yield from (f"| {name} | {single:.2f} | {double:.2f} |" for name, (single, double) in found.items())


if __name__ == "__main__":
    print("\n".join(lines()))  # noqa: T201

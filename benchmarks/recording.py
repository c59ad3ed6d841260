"""Peak memory of recording one ledger, in a process of its own: ids in, classes out, so that the data is small.

`python -m benchmarks.recording CELL T B H D KEEP PLAN ENGINE THREADS` prints, in MiB above the data:
the peak, and what the finished ledger itself holds (T numbers per parameter and sequence, however they were made).
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks import peak
from benchmarks.children import ROOT, ChildError, environment


class Sizes(NamedTuple):
    """B sequences, H hidden units, D ids and classes."""

    B: int
    H: int
    D: int


def measure(kind: str, T: int, sizes: Sizes, keep: str, plan: str, engine: str, threads: int) -> dict[str, Any]:
    """status "measured", peak_mib and ledger_mib; or status "failed: …"."""
    words = [kind, T, *sizes, keep, plan, engine, threads]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.recording", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        return {"status": f"failed: {ChildError(last[0])}"}
    return {"status": "measured", **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    kind, T, B, H, D, keep, plan, engine, threads = sys.argv[1:]
    import numpy as np

    import bptt

    rng = np.random.default_rng(0)
    network = bptt.Network.create(kind, inputs=int(D), hidden=int(H), outputs=int(D), dtype=np.float32)
    options = {"keep": keep, "plan": plan, "engine": engine}
    options |= {"threads": int(threads)} if engine == "compiled" else {}
    few, many = (bptt.Batch(*rng.integers(0, int(D), (2, steps, int(B)))) for steps in (2, int(T)))
    bptt.record(network, few, bptt.Loss(), **options)  # loads what is loaded late
    peak.forget()
    before = peak.now()
    ledger = bptt.record(network, many, bptt.Loss(), **options)
    highest = peak.highest()
    above = None if highest is None or before is None else highest - before
    print(json.dumps({"peak_mib": above, "ledger_mib": sum(_bytes(ledger)) / 2**20}))


def _bytes(ledger: Any) -> Iterator[int]:
    """Of every array that a ledger of norms hands out, whatever it was made of."""
    yield ledger.losses.nbytes
    for arrays in (ledger.step_norms, ledger.step_sequence_norms, ledger.states):
        yield from (array.nbytes for array in arrays.values())


if __name__ == "__main__":
    main()

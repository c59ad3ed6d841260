"""`bptt train` on the default text, on either engine: seconds per update, as the command is given."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT, ChildError

ENGINES = ("reference", "compiled")
NEVER = [word for what in ("probe", "sample", "validate", "checkpoint") for word in (f"--{what}-every", "0")]


def measure(hidden: int, updates: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Seconds of one update, by engine: that many more updates, over what they take longer; engines alternate.

    Its threads are those the command chooses by itself.
    """
    few, many = updates
    found: dict[str, Any] = {"hidden": hidden, "updates": list(updates), "status": "measured"}
    found |= {engine: [] for engine in ENGINES}
    try:
        for turn in range(repeats + 1):
            for engine in ENGINES:
                took = [_train(engine, hidden, count) for count in updates]
                if turn:  # the first warms the disk
                    found[engine].append((took[1] - took[0]) / (many - few))
    except ChildError as error:
        found["status"] = f"failed: {error}"
    return found


def _train(engine: str, hidden: int, updates: int) -> float:
    with tempfile.TemporaryDirectory(prefix="bptt-benchmark-") as folder:
        command = [sys.executable, "-m", "bptt", "train", "--engine", engine, "--hidden", str(hidden), "--json",
                   "--iterations", str(updates), "--out", str(Path(folder, "run")), *NEVER]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        took = time.perf_counter() - start
    if done.returncode:
        raise ChildError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0])
    return took

"""Contenders' processes, seen from the one that gives the orders. A child that is not asked waits on its pipe, idle."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contenders import ALL

ROOT = Path(__file__).parents[1]
PATIENCE = 600  # seconds for one answer
POOLS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB", "NUMEXPR")


class ChildError(Exception):
    """A contender could not do what it was told; the message is its last word, without this machine's folders."""

    def __init__(self, message: str):
        for folder in (str(ROOT), sys.prefix, str(Path.home())):
            message = message.replace(folder, "…")
        super().__init__(message)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(threads: int, folder: str = "") -> dict[str, str]:
    """The same number of threads for every pool, and the CPU for every framework."""
    flags = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()} intra_op_parallelism_threads={threads}"
    own = {f"{pool}_NUM_THREADS": str(threads) for pool in POOLS}
    own |= {"XLA_FLAGS": flags, "NPROC": str(threads), "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    own |= {"KERAS_HOME": folder} if folder else {}
    return os.environ | own


class Child:
    """One contender's process; `ask` raises ChildError if it fails, and from then on always."""

    def __init__(self, name: str, threads: int):
        self.name = name
        self.folder = tempfile.TemporaryDirectory(prefix="bptt-benchmark-")
        self.log = Path(self.folder.name, "log")
        own = environment(threads, self.folder.name) | dict(ALL[name].environment)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.child", name, str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=own, text=True, bufsize=1, stderr=log, **pipes)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def tell(self, do: str, **what: Any) -> None:
        """Give an order, and do not wait."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
        except BrokenPipeError:
            raise ChildError(self._last_word()) from None

    def answer(self) -> dict[str, Any]:
        """The answer to the oldest order not yet answered."""
        if not self.selector.select(PATIENCE):
            self.process.kill()
            raise ChildError(f"no answer in {PATIENCE} s")
        line = self.process.stdout.readline()
        if not line:
            raise ChildError(self._last_word())
        reply = json.loads(line)
        if "error" in reply:
            raise ChildError(reply["error"])
        return reply

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self.tell(do, **what)
        return self.answer()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.selector.close()
        self.process.stdin.close()
        self.process.stdout.close()
        self.folder.cleanup()

    def _last_word(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"its process ended ({lines[-1]})" if lines else "its process ended"

"""How commands speak: a console for people, JSON for programs."""

import json as _json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bptt.report.terminal import console


def out() -> Console:
    """The console on standard output."""
    return console()


def program() -> str:
    """How this program is called from here: "bptt" where that is on the PATH, else the path that it was started by."""
    started = Path(sys.argv[0])
    return os.path.relpath(started) if started.name == "bptt" and shutil.which("bptt") is None else "bptt"


def print_json(value: Any) -> None:
    """One JSON document on standard output; arrays become lists, and NaN or infinity become null."""
    sys.stdout.write(_json.dumps(_plain(value), ensure_ascii=False, indent=2) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


class Busy:
    """A sign of life on standard error, where a person sees it: what is being done, once it takes over a second.

    Used as a context; called with the name of each measurement as it begins.
    """

    AFTER = 1.0  # seconds

    def __init__(self, what: str):
        self.title, self.what, self.lock = what, what, threading.Lock()
        self.timer: threading.Timer | None = None
        self.status: Any = None

    def __call__(self, what: str) -> None:
        """The name of what is being done now."""
        with self.lock:
            self.what = f"{self.title}: {what}"
            if self.status is not None:
                self.status.update(self.what)

    def __enter__(self) -> "Busy":
        if Console(stderr=True).is_terminal:
            self.timer = threading.Timer(self.AFTER, self._show)
            self.timer.daemon = True
            self.timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.timer is not None:
            self.timer.cancel()
        with self.lock:
            self.timer = None
            if self.status is not None:
                self.status.stop()

    def _show(self) -> None:
        with self.lock:
            if self.timer is not None:
                self.status = Console(stderr=True, emoji=False).status(self.what)
                self.status.start()

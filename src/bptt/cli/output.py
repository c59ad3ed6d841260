"""How commands speak: a console for people, JSON for programs."""

import json as _json
import os
import shutil
import sys
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

"""Where in the user's own code something happened."""

import linecache
import os
import sys
from pathlib import Path
from typing import Any

import torch

_OURS = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[3]))


def line() -> str | None:
    """file:line of the innermost frame outside torch and this package; None if there is none."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) and not name.startswith("<"):
            return f"{_short(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def line_of(function: Any) -> str | None:
    """file:line where a function is written."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    at = code.co_firstlineno  # of its first decorator
    while at < code.co_firstlineno + 9 and not linecache.getline(code.co_filename, at).lstrip().startswith("def "):
        at += 1
    return f"{_short(code.co_filename)}:{at}"


def _short(name: str) -> str:
    """The path from here, where it is below."""
    here = os.getcwd() + os.sep
    return name[len(here) :] if name.startswith(here) else name

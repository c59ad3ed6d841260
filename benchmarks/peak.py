"""Peak memory of this process, from Linux's own book-keeping."""

import ctypes
from contextlib import suppress
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def now() -> float | None:
    """What is in memory, MiB; None where the system does not say."""
    return _read("VmRSS")


def highest() -> float | None:
    """The most there was since `forget`, MiB (of this program alone: ru_maxrss begins with what its parent had)."""
    return _read("VmHWM")


def forget() -> None:
    """Let the highest be what there is now, so that loading and compiling do not hide what a step takes."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed but not handed back
    with suppress(OSError):
        CLEAR.write_text("5")


def _read(field: str) -> float | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), None)

"""How many threads an engine may use."""

import os

import numpy as np

from bptt.errors import InputError

ENV = "BPTT_THREADS"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
    """The number asked for, else that of the environment variable BPTT_THREADS, else one per core.

    Raises:
        InputError: not a whole number of at least 1.
    """
    if threads is None:
        given = os.environ.get(ENV, "").strip()
        if not given:
            return cores()
        if not (given.isascii() and given.isdecimal() and int(given) >= 1):
            raise InputError(f"environment variable {ENV}", got=repr(given), expected="a whole number, at least 1")
        return int(given)
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise InputError("threads", got=repr(threads), expected="a whole number, at least 1")
    return int(threads)

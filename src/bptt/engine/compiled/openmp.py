"""The threads of GNU's OpenMP, where another library has brought it into the process and keeps the cores busy with it.

Its threads spin for milliseconds after each parallel loop, in case another follows. Threads of ours, woken meanwhile,
would share a core with one of them: a walk took twice as long. So the work is given to those that spin.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Library(NamedTuple):
    """parallel(body, data, threads, flags) runs a body on so many threads at once; thread() and threads() in one."""

    parallel: Any
    thread: Any
    threads: Any


_lent: list[_Library] = []
_asked: list[bool] = []  # whether it was looked for, or must not be


def borrow() -> None:
    """From now on let the work be done by the threads of the OpenMP that is loaded, if it is GNU's."""
    if not _asked:
        _asked.append(True)
        _lent.extend(_loaded())


def _give_back() -> None:
    """In a forked child: its threads are not there any more, and whoever asks for them waits for ever."""
    _lent.clear()
    _asked.append(True)


def _loaded() -> list[_Library]:
    """The one that is loaded, if there is just one."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line}
        if len(paths) != 1:
            return []
        path = paths.pop()
        library, quick = ctypes.CDLL(path), ctypes.PyDLL(path)
        library.GOMP_parallel.argtypes = (_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        library.GOMP_parallel.restype = None
        return [_Library(library.GOMP_parallel, quick.omp_get_thread_num, quick.omp_get_num_threads)]
    except (OSError, AttributeError, IndexError):
        return []


def run(work: Callable[[Any], None], items: Sequence[Any], fail: Callable[[], None] | None) -> bool:
    """Whether there were as many threads as items; then each was worked on by one, and what was raised is raised."""
    if not _lent:
        return False
    library, errors, begun = _lent[0], [], []

    def body(_: Any) -> None:
        try:
            if library.threads() < len(items):  # it may give fewer, and they may have to meet
                return
            begun.append(True)
            work(items[library.thread()])
        except BaseException as error:  # noqa: BLE001 — raised again by the caller
            errors.append(error)
            if fail is not None:
                fail()

    library.parallel(_BODY(body), None, len(items), 0)
    if errors:
        raise errors[0]
    return bool(begun)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_back)

"""Threads of this engine alone: kernels without the interpreter's lock, on as many cores as the caller allows.

A kernel is run for several parts at once. Nothing that it computes depends on how many there are, or on whether they
run beside each other or one after the other; so a pool that is busy with another caller's work is not waited for.
"""

import contextlib
import ctypes
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bptt.engine.compiled import openmp
from bptt.engine.cores import cores

ROWS_APART = 8  # rows of one part are a multiple of a tile's
WORTH = 10_000_000  # multiply-adds from which a second thread gains more than it costs to wake
WEIGHTS = 96 << 10  # bytes of recurrent weights from which units are worth meeting at every step for


class _Crowd:
    """Whether other programs keep the cores busy, so that threads that meet at every step wait for each other."""

    def __init__(self) -> None:
        self.until, self.pause = 0.0, 1.0

    def is_there(self) -> bool:
        return time.monotonic() < self.until

    def heard(self, waits: int, meetings: int) -> None:
        """After a walk: how many of its meetings took long. Each crowded walk doubles the time until the next try."""
        if waits * 10 > meetings:
            self.until, self.pause = time.monotonic() + self.pause, min(60.0, 2 * self.pause)
        else:
            self.pause = 1.0


CROWD = _Crowd()


class Part(NamedTuple):
    """What one thread does: rows of the batch, units of the state."""

    rows: tuple[int, int]
    units: tuple[int, int]


def parts(B: int, H: int, width: int, work: int, weights: int, threads: int, units: bool) -> list[Part]:
    """How a walk is divided: by rows where there are many, else by units, if its kernel can and its weights are large.

    Args:
        B, H, width: rows, units, columns of a panel.
        work: multiply-adds of the walk.  weights: bytes read at every step.
        threads: how many at most.  units: whether the kernel can be divided by units.
    """
    whole = [Part((0, B), (0, H))]
    if threads == 1 or work < WORTH:
        return whole
    if B >= 2 * ROWS_APART:
        return [Part(rows, (0, H)) for rows in spread(B, threads, ROWS_APART)]
    if units and H % width == 0 and weights >= WEIGHTS and not CROWD.is_there():
        return [Part((0, B), unit) for unit in spread(H, min(threads, cores()), width)]
    return whole


def spread(size: int, threads: int, apart: int = 1) -> list[tuple[int, int]]:
    """0…size in up to `threads` ranges of nearly the same size, which begin at multiples of `apart`."""
    if threads == 1:
        return [(0, size)]
    blocks = -(-size // apart)
    many = min(threads, blocks)
    edges = [min(size, blocks * i // many * apart) for i in range(many + 1)]
    return list(itertools.pairwise(edges))


class _Worker(threading.Thread):
    """A thread that does one thing at a time, and tells when it is done."""

    def __init__(self) -> None:
        super().__init__(name="bptt", daemon=True)
        self.go, self.done = threading.Lock(), threading.Lock()
        self.task: Any = None
        self.kept_off: Any = None
        self.busy = False
        self.fail: Callable[[], None] | None = None
        self.error: BaseException | None = None
        self.go.acquire()
        self.done.acquire()
        self.start()

    def run(self) -> None:
        while True:
            self.go.acquire()
            work, item = self.task
            try:
                work(item)
            except BaseException as error:  # noqa: BLE001 — raised again by the caller
                self.error = error
                if self.fail is not None:
                    self.fail()
            self.task = work = item = None
            self.done.release()

    def begin(self, work: Callable[[Any], None], item: Any, fail: Callable[[], None] | None) -> None:
        """Start; `fail` is called if the work raises."""
        self.task, self.fail, self.busy = (work, item), fail, True
        self.go.release()

    def keep_off(self, core: int, allowed: frozenset[int]) -> None:
        """Run on any allowed core but this one: whoever wakes a thread may get it on its own core."""
        if self.kept_off != (core, allowed) and allowed - {core}:
            self.kept_off = (core, allowed)
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self.native_id or 0, allowed - {core})

    def end(self) -> BaseException | None:
        """Wait for the work that was begun; what it raised. A Ctrl-C meanwhile is handed back when it has ended."""
        stopped = None
        while self.busy:
            try:
                self.done.acquire()
                self.busy = False
            except KeyboardInterrupt as error:
                stopped = error
        error, self.error = self.error, None
        return error or stopped


def _place() -> tuple[int, frozenset[int]]:
    """The core that the caller runs on, and all that it may run on; −1 and none where the system does not say."""
    if _CORE is None or not hasattr(os, "sched_getaffinity"):
        return -1, frozenset()
    return _CORE(), frozenset(os.sched_getaffinity(0))


def _core_of() -> Callable[[], int] | None:
    """The C library's sched_getcpu."""
    try:
        return ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return None


_CORE = _core_of()


class _Pool:
    """Threads that live as long as the process, made when first needed, and again after a fork."""

    def __init__(self) -> None:
        self.lock, self.workers = threading.Lock(), []

    def run(self, work: Callable[[Any], None], items: Sequence[Any], fail: Callable[[], None] | None) -> bool:
        """Whether the pool was free; then every item was worked on, the first by the caller."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            try:
                while len(self.workers) < len(items) - 1:
                    self.workers.append(_Worker())
            except RuntimeError:  # the system has no thread left
                return False
            errors = self._together(work, items, fail)
        finally:
            self.lock.release()
        if errors:
            raise errors[0]
        return True

    def _together(
        self, work: Callable[[Any], None], items: Sequence[Any], fail: Callable[[], None] | None
    ) -> list[BaseException]:
        """All items at once, the first by the caller; what was raised."""
        core, allowed = _place()
        errors: list[BaseException] = []
        try:
            for worker, item in zip(self.workers, items[1:], strict=False):
                worker.keep_off(core, allowed)
                worker.begin(work, item, fail)
            work(items[0])
        except BaseException as error:  # noqa: BLE001 — raised again when all have ended
            errors.append(error)
            if fail is not None:
                fail()
        return errors + [error for worker in self.workers if (error := worker.end()) is not None]


_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.__init__)


def run(
    work: Callable[[Any], None], items: Sequence[Any], alone: Sequence[Any] | None = None,
    fail: Callable[[], None] | None = None,
) -> bool:  # fmt: skip
    """`work` done for every item; whether that was beside each other, or one after the other since the pool was taken.

    alone: what to do instead where the pool is taken, for items that meet on their way and so cannot wait.
    fail: called where an item raises, so that those who would meet it do not wait for it.
    """
    if len(items) == 1:
        work(items[0])
        return True
    if openmp.run(work, items, fail) or _POOL.run(work, items, fail):
        return True
    for item in items if alone is None else alone:
        work(item)
    return False

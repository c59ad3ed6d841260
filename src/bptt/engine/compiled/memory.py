"""Memory for tapes and deltas. Large pieces are used again: a fresh one costs a page fault for every 4 KiB.

A piece is free again when nothing refers to it but this module; so an array that was handed out stays as it is for as
long as anyone holds it.
"""

import math
import os
import sys
import threading
from typing import Any

import numpy as np

from bptt.engine.compiled.emit import ALIGN
from bptt.typing import Array

LARGE = 1 << 20  # bytes from which a piece is kept
LIMIT = 256 << 20  # bytes that are kept at most
REUSE = sys.version_info < (3, 14) and getattr(sys, "_is_gil_enabled", lambda: True)()  # later ones count differently
_UNUSED = 3  # references to a kept piece that nobody uses: the list, `piece`, and the question


class _Kept:
    """Large pieces, in the order in which they were last used."""

    def __init__(self) -> None:
        self.lock, self.pieces = threading.Lock(), []

    def take(self, size: int, dtype: np.dtype) -> Array:
        """A piece of this size and type that nobody uses."""
        with self.lock:
            for i in range(len(self.pieces)):
                piece = self.pieces[i]
                if len(piece) == size and piece.dtype == dtype and sys.getrefcount(piece) == _UNUSED:
                    self.pieces.append(self.pieces.pop(i))
                    return piece
            fresh = np.empty(size, dtype)
            self.pieces.append(fresh)
            while sum(kept.nbytes for kept in self.pieces) > LIMIT:
                self.pieces.pop(0)
            return fresh


_KEPT = _Kept()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_KEPT.__init__)


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Uninitialised memory that begins at the edge of a cache line."""
    dtype, size = np.dtype(dtype), math.prod(shape)
    room = size + ALIGN // dtype.itemsize
    large = REUSE and room * dtype.itemsize >= LARGE
    raw = _KEPT.take(room, dtype) if large else np.empty(room, dtype)
    start = -raw.__array_interface__["data"][0] % ALIGN // dtype.itemsize
    return raw[start : start + size].reshape(shape)

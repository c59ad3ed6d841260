"""Ctrl-C: the first finishes the iteration, the second stops at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """While it is open, the first SIGINT only sets `asked`, and the next one does what it did before."""

    def __init__(self, say: Callable[[str], None]):
        self.asked, self._say = False, say
        self._before: Any = None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        self.asked = True
        signal.signal(signal.SIGINT, self._before or signal.default_int_handler)
        self._say("Stopping after this iteration. Ctrl-C again stops at once.")

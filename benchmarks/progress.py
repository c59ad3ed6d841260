"""What is being done and for how long still, on stderr."""

import sys
import time


class Progress:
    """Tasks with their expected seconds; what they really took corrects the rest."""

    def __init__(self, expected: list[float]):
        self.expected, self.start, self.number = expected, time.monotonic(), 0

    def begin(self, task: str) -> None:
        """The next task: a line that stays."""
        line = f"[{self.number + 1:2}/{len(self.expected)}] {task}"
        self._write(f"{line:64} {self._left()}\n")
        self.number += 1

    def note(self, what: str) -> None:
        """Within a task, where somebody may be watching: a line that passes."""
        if sys.stderr.isatty():
            self._write(f"        {what}")

    def end(self) -> None:
        """Nothing left: wipe the line that passes."""
        self._write("")

    def _write(self, text: str) -> None:
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        print(clear + text, end="", file=sys.stderr, flush=True)

    def _left(self) -> str:
        done, total = sum(self.expected[: self.number]), sum(self.expected)
        left = total - done if done == 0 else (time.monotonic() - self.start) / done * (total - done)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"

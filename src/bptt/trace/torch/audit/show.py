"""Numbers of an audit, and the bar while it runs."""

import time
from typing import Any

AFTER = 1.0  # seconds before a bar appears


def figure(value: float) -> str:
    """A relative difference, with as many digits as it deserves.

    >>> figure(0.0), figure(3.21e-9), figure(0.5)
    ('0', '3e-09', '0.50')
    """
    return "0" if value == 0 else f"{value:.2f}" if 0.01 <= value < 1000 else f"{value:.0e}"


class Bar:
    """Uses done and time left, on standard error, on a terminal, where it takes longer than a second."""

    def __init__(self, total: int):
        self.total, self.done, self.began = total, 0, time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tick(self) -> None:
        """One use more."""
        self.done += 1
        if self.bar is None and time.monotonic() - self.began > AFTER:
            self._start()
        if self.task is not None:
            self.bar.update(self.task, completed=self.done)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, emoji=False)
        self.bar = Progress(
            TextColumn("audit: use {task.completed} of {task.total}"), BarColumn(), TimeRemainingColumn(compact=True),
            TextColumn("left"), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.bar.start()
        self.task = self.bar.add_task("", total=self.total)

"""What a terminal shows while a network learns: a bar with the time left, and lines that stay."""

from pathlib import Path
from typing import Any

from bptt.train.config import Config


class Progress:
    """Lines on a rich `Console`; a bar below them where it is a terminal; nothing at all where it is None."""

    def __init__(self, console: Any, total: int, start: int):
        self.console, self.total, self.start = console, total, start
        self.loss: float | None = None
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "Progress":
        if self.console is not None and self.console.is_terminal and self.start < self.total:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            wide = self.console.width >= 70
            columns = [TextColumn("{task.completed}/{task.total}"), BarColumn(bar_width=None if wide else 10)]
            columns += [TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn(compact=True), TextColumn("left")]
            self.bar = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            self.task = self.bar.add_task("", total=self.total, completed=self.start, loss="…")
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def heading(self, data: str, network: str, config: Config, folder: Path | None) -> None:
        """What is trained on what."""
        limit = f", norm clipped at {config.clip_norm:g}" if config.clip_norm else ""
        limit += f", values clipped at {config.clip_value:g}" if config.clip_value else ""
        self.say(data, style="bold")
        self.say(network)
        self.say(
            f"{config.optimiser} {config.learning_rate:g}{limit}; batch {config.batch} × {config.steps} steps, "
            f"plan {config.plan}; {config.dtype}, {config.engine}, seed {config.seed}",
            style="dim",
        )
        if folder is not None:
            begin = f" from iteration {self.start:,}" if self.start else ""
            self.say(f"{folder}{begin}", style="dim")

    def step(self, iteration: int, loss: float) -> None:
        """One iteration is done; the loss shown is smoothed over about 50."""
        self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
        if self.bar is not None:
            self.bar.update(self.task, completed=iteration, loss=f"{self.loss:.3f}")

    def preparing(self, done: int, total: int, what: str) -> None:
        """So much is done of what goes before the first iteration."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, loss=what)

    def prepared(self) -> None:
        """The bar stands at the first iteration again."""
        if self.bar is not None:
            self.bar.reset(self.task, total=self.total, completed=self.start, loss="…")

    def say(self, line: str, style: str | None = None) -> None:
        """A line that stays."""
        if self.console is not None:
            self.console.print(line, style=style, markup=False, highlight=False)

    def validated(self, iteration: int, loss: float, score: float | None) -> None:
        """The line of a look at the validation part."""
        learning = "" if self.loss is None else f"  training {self.loss:7.4f}"
        accuracy = "" if score is None else f"  accuracy {100 * score:5.1f} %"
        self.say(f"{iteration:>8,}{learning}  validation {loss:7.4f}{accuracy}")

    def sample(self, text: str) -> None:
        """A sample, on one line, in grey."""
        line = " ".join(text.split())
        room = max(20, min(self.console.width, 120) - 12) if self.console is not None else 0
        self.say(f"          “{line[:room]}”", style="dim")


class TrialProgress:
    """One bar over several trainings, on a rich `Console` that is a terminal; nothing at all otherwise."""

    def __init__(self, console: Any):
        self.console = console if console is not None and console.is_terminal else None
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "TrialProgress":
        if self.console is not None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            wide = self.console.width >= 70
            columns = [TextColumn("trying {task.description}"), BarColumn(bar_width=None if wide else 10)]
            columns += [TimeRemainingColumn(compact=True), TextColumn("left")]
            self.bar = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            self.task = self.bar.add_task("…", total=None)
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def about(self, what: str) -> None:
        """What is trained now."""
        if self.bar is not None:
            self.bar.update(self.task, description=what)

    def begin(self, total: int) -> None:
        """So many iterations are to come; the clock begins."""
        if self.bar is not None:
            self.bar.reset(self.task, total=total)

    def step(self, done: int) -> None:
        """So many of them are done."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done)

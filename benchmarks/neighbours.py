"""How much of the machine others took while contenders were timed: whether to believe the times."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_LEAST, AT_MOST = 0.05, 1.0  # seconds between one contender and the next; time is counted in hundredths


class Watch:
    """Adds up what the machine did beside one process at a time; all of it 0 where the system does not say."""

    def __init__(self) -> None:
        self.wall = self.everybody = self.watched = 0.0

    @contextmanager
    def beside(self, process: int) -> Iterator[None]:
        """While this process works."""
        wall, everybody, own = time.perf_counter(), _everybody(), one(process)
        yield
        self.wall += time.perf_counter() - wall
        self.everybody += _everybody() - everybody
        self.watched += one(process) - own

    def share(self, cores: int) -> float | None:
        """What others took, as a part of all cores' time; None where nothing is known."""
        known = self.wall > 0 and self.everybody > 0
        return max(0.0, self.everybody - self.watched) / (self.wall * cores) if known else None


def wait_until_still(process: int) -> None:
    """Until a process is idle: pools spin on after their work, OpenBLAS for a tenth of a second."""
    before, end = one(process), time.perf_counter() + AT_MOST
    while time.perf_counter() < end:
        time.sleep(AT_LEAST)
        now = one(process)
        if now == before:
            return
        before = now


def one(process: int) -> float:
    """Seconds that one process worked."""
    words = _first_line(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") if words else 0.0


def _everybody() -> float:
    """Seconds that all cores worked, for whomever (and what the hypervisor took), since the machine began."""
    words = _first_line(Path("/proc/stat")).split()
    return sum(map(int, words[1:4] + words[6:9])) / os.sysconf("SC_CLK_TCK") if words else 0.0


def _first_line(path: Path) -> str:
    try:
        return path.read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""

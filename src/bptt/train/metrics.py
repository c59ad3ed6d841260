"""metrics.jsonl: the events of a run, one JSON object per line, in the order in which they happened."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from bptt.errors import DamagedFile, FileError

WAITING = 200  # lines after which they go to the file


class Log:
    """The file, cut back to `size` bytes and written on from there; lines reach it whole or not at all."""

    def __init__(self, path: Path, size: int):
        self.path, self.size = path, size
        self._lines: list[str] = []
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            if os.fstat(self._file).st_size < size:
                do = "Something else than bptt has cut it; start a new run."
                raise DamagedFile(f"{path}", got="fewer lines than the checkpoint knows of", expected="all", do=do)
            self._cut()
        except OSError as error:
            raise FileError(f"cannot write {path}", got=error.strerror or str(error)) from None

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def _cut(self) -> None:
        os.ftruncate(self._file, self.size)
        os.lseek(self._file, self.size, os.SEEK_SET)

    def add(self, event: dict[str, Any]) -> None:
        """One more line, sooner or later."""
        self._lines.append(json.dumps(event) + "\n")
        if len(self._lines) >= WAITING:
            self.flush()

    def flush(self, *, sync: bool = False) -> int:
        """Write what waits; returns the size of the file. After an error the file is what it was before.

        Raises:
            FileError: the disk is full or cannot be written.
        """
        data, done = "".join(self._lines).encode(), 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
            if sync:
                os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut()
            raise FileError(f"cannot write {self.path}", got=error.strerror or str(error)) from None
        self._lines, self.size = [], self.size + len(data)
        return self.size


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The events of a run. A last line that is still being written is left out.

    Raises:
        FileError: no such file.  DamagedFile: a line that is no JSON.
    """
    path = Path(folder) / "metrics.jsonl"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror or str(error)) from None
    events = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            events.append(json.loads(line))
        except ValueError:
            raise DamagedFile(f"{path}, line {number}", got="no JSON", expected="an event") from None
    return events

"""Where the records of a watch go: files of JSON lines, experiment trackers, TensorBoard, functions.

A tracker gets few panels, never one for each parameter or step; how far back the gradient comes from is a histogram.
"""

import json
import math
import os
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from bptt.errors import DamagedFile, FileError, InputError
from bptt.trace.torch.records import panels, profiles


class Sink:
    """One of the places. What goes wrong with it is said once; then it is off, and training goes on.

    name: as one knows it.  send: takes a record.  end: when nothing more comes.
    """

    def __init__(self, name: str, send: Callable[[dict[str, Any]], Any], end: Callable[[], Any] = lambda: None):
        self.name, self._send, self._end, self.off = name, send, end, False

    def send(self, record: dict[str, Any]) -> None:
        """Hand a record over."""
        self._try(self._send, record)

    def close(self) -> None:
        """Nothing more comes."""
        self._try(self._end)
        self.off = True

    def _try(self, what: Callable[..., Any], *args: Any) -> None:
        if self.off:
            return
        try:
            what(*args)
        except Exception as error:  # noqa: BLE001 training goes on without it
            self.off = True
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"bptt.watch sends nothing more to {self.name}: {line}", stacklevel=2)


def sinks_of(to: Any) -> list[Sink]:
    """What `to` names.

    Raises:
        InputError: it is nothing that records can be sent to.  FileError, DamagedFile: as `JsonLines`.
    """
    if to is None:
        return []
    given = list(to) if isinstance(to, list | tuple) else [to]
    checked = [(one, _kind(one)) for one in given]  # all of them, before a file is opened
    return [kind(one) for one, kind in checked]


def _kind(to: Any) -> Callable[[Any], Sink]:
    if isinstance(to, str | os.PathLike):
        return _file
    for method, kind in (("add_scalar", _board), ("log_metrics", _metrics), ("log", _log)):
        if callable(getattr(to, method, None)):
            return kind
    if callable(to):
        return lambda one: Sink(getattr(one, "__name__", type(one).__name__), one)
    expected = "a path, something with .log(dict, step=), a SummaryWriter, a function, or a list of these"
    raise InputError("watch(…, to=…)", got=f"{type(to).__name__} {to!r}"[:80], expected=expected)


def _file(path: Any) -> Sink:
    lines = JsonLines(path)
    return Sink(str(path), lines.add, lines.close)


def _metrics(to: Any) -> Sink:
    return Sink(type(to).__name__, lambda record: to.log_metrics(panels(record), step=record["step"]))


def _log(to: Any) -> Sink:
    return Sink(type(to).__name__, lambda record: to.log(panels(record), step=record["step"]))


def _board(writer: Any) -> Sink:
    """TensorBoard: scalars, and the profile of each recurrent layer as the buckets of a histogram."""

    def send(record: dict[str, Any]) -> None:
        for tag, value in panels(record).items():
            writer.add_scalar(tag, value, record["step"])
        for tag, (edges, sizes) in profiles(record).items():
            writer.add_histogram_raw(tag, **_histogram(edges, sizes), global_step=record["step"])

    return Sink(type(writer).__name__, send, getattr(writer, "flush", lambda: None))


def _histogram(edges: list[int], sizes: list[float]) -> dict[str, Any]:
    """What `add_histogram_raw` takes: bucket i ends at limit i; its own middle stands for what lies in it."""
    middles = [(low + high - 1) / 2 for low, high in pairwise(edges)]
    return {
        "min": edges[0], "max": edges[-1] - 1, "num": sum(sizes),
        "sum": sum(m * s for m, s in zip(middles, sizes, strict=True)),
        "sum_squares": sum(m * m * s for m, s in zip(middles, sizes, strict=True)),
        "bucket_limits": edges[1:], "bucket_counts": sizes,
    }  # fmt: skip


class JsonLines:
    """A file with one JSON object on each line, that is only ever written on at its end.

    Each line goes out whole, at once. What a killed run left of its last line is cut off when the file is opened again.
    NaN and infinity, which JSON does not have, become null.

    Raises:
        FileError: it cannot be written.  DamagedFile: it ends in something that is no part of such a line.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._file: int | None = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise FileError(f"cannot write {path}", got=error.strerror or str(error)) from None
        try:
            self._repair()
        except BaseException:
            self.close()
            raise

    def _repair(self) -> None:
        """Cut off a last line that has no end; one that only lacks its newline gets it."""
        assert self._file is not None
        content = self.path.read_bytes()
        torn = content[content.rfind(b"\n") + 1 :]
        if not torn:
            return
        if not torn.startswith(b"{"):
            got = "a file that ends in something else"
            raise DamagedFile(str(self.path), got=got, expected="lines of JSON", do="Give a new path.")
        try:
            json.loads(torn)
        except ValueError:
            os.ftruncate(self._file, len(content) - len(torn))
        else:
            os.write(self._file, b"\n")

    def add(self, record: dict[str, Any]) -> None:
        """One more line."""
        if self._file is None:
            return
        line = json.dumps(_finite(record), allow_nan=False, ensure_ascii=False) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _finite(value: Any) -> Any:
    """The same, with None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""A run on disk: its configuration, a log that is cut back to the last checkpoint, ledgers, and the lock.

config.json                          every hyper-parameter
metrics.jsonl                        one line per event; no time of day in it, so that equal runs have equal bytes
ledgers/iteration-000500.safetensors
checkpoints/iteration-000500.safetensors     the latest two
lock                                 held while a process trains here; the kernel lets go when it dies
"""

import contextlib
import os
import re
from pathlib import Path

from bptt.errors import BusyError, FileError
from bptt.storage import write_text
from bptt.train.config import Config

KEPT = 2  # checkpoints: if the newest is damaged, the one before it still is there


class RunFolder:
    """An opened run folder, locked for this process until `close`.

    Raises:
        BusyError: another process trains here.
        FileError: the folder cannot be made or written; it holds something already (new); it holds no run (resume).
    """

    def __init__(self, path: str | Path, *, resume: bool):
        self.path = Path(path)
        if resume and not (self.path / "config.json").is_file():
            got = "no run (no config.json)" if self.path.is_dir() else "no such folder"
            raise FileError(f"{self.path}", got=got, expected="the folder of a run")
        self._made = not self.path.exists()
        if not resume and not self._made:
            self._refuse_used()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._lock: int | None = os.open(self.path / "lock", flags, 0o666)
        except OSError as error:
            raise FileError(f"cannot write {self.path}", got=error.strerror or str(error)) from None
        try:
            assert self._lock is not None
            _lock(self._lock, self.path)
            self._prepare(resume)
        except BaseException:
            self._discard()
            self.close()
            raise

    def _refuse_used(self) -> None:
        """Raise FileError if the folder for a new run holds something already."""
        try:
            found = sorted(entry.name for entry in self.path.iterdir() if entry.name != "lock")
        except OSError as error:
            raise FileError(f"cannot write {self.path}", got=error.strerror or str(error)) from None
        if found:
            go_on = f", or go on with it: --resume {self.path}" if "config.json" in found else ""
            got = f"a folder that is not empty ({found[0]})"
            raise FileError(f"{self.path}", got=got, expected="a new one", do=f"Choose another folder{go_on}.")

    def _prepare(self, resume: bool) -> None:
        if not resume:
            self._refuse_used()
        try:
            for name in ("ledgers", "checkpoints"):
                (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write {self.path}", got=error.strerror or str(error)) from None
        for rest in self.path.rglob(".*.partial"):  # of a process that was killed while it wrote
            rest.unlink(missing_ok=True)

    def _discard(self) -> None:
        """Leave nothing of a run that never came to its first checkpoint, in a folder that was made for it."""
        if not self._made or checkpoints(self.path):
            return
        with contextlib.suppress(OSError):
            for path in (self.path / "ledgers").glob("iteration-*.safetensors"):
                path.unlink()
            for name in ("config.json", "metrics.jsonl", "lock"):
                (self.path / name).unlink(missing_ok=True)
            for name in ("ledgers", "checkpoints", "."):
                with contextlib.suppress(FileNotFoundError):
                    (self.path / name).resolve().rmdir()

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._discard()
        self.close()

    def write_config(self, config: Config) -> None:
        """Write config.json."""
        write_text(self.path / "config.json", config.to_json())

    def ledger(self, iteration: int) -> Path:
        """Where the ledger of an iteration stands."""
        return self.path / "ledgers" / f"iteration-{iteration:06d}.safetensors"

    def checkpoint(self, iteration: int) -> Path:
        """Where the checkpoint of an iteration stands."""
        return self.path / "checkpoints" / f"iteration-{iteration:06d}.safetensors"

    def drop_old_checkpoints(self) -> None:
        """Keep the latest two."""
        for path in checkpoints(self.path)[KEPT:]:
            path.unlink(missing_ok=True)

    def drop_after(self, iteration: int) -> None:
        """Delete the ledgers and checkpoints of later iterations: they will be made again."""
        for folder in ("ledgers", "checkpoints"):
            for path in (self.path / folder).glob("iteration-*.safetensors"):
                if _number(path) > iteration:
                    path.unlink(missing_ok=True)


def read_config(folder: str | Path) -> Config:
    """The configuration of a run. FileError: no run there.  DataError: not a configuration."""
    path = Path(folder) / "config.json"
    try:
        return Config.from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        got = "no run (no config.json)" if Path(folder).is_dir() else "no such folder"
        raise FileError(f"{folder}", got=got, expected="the folder of a run") from None
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror or str(error)) from None


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    return sorted((Path(folder) / "checkpoints").glob("iteration-*.safetensors"), key=_number, reverse=True)


def _number(path: Path) -> int:
    match = re.fullmatch(r"iteration-(\d+)", path.stem)
    return int(match.group(1)) if match else -1


def _lock(handle: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such lock outside of POSIX
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        do = "Wait until it ends, or choose another folder."
        raise BusyError(f"{path}", got="a run that another process is training", do=do) from None

"""How a function becomes machine code: compiled when first called, kept on disk, and told to whoever waits for it.

One file per function and types, in a folder named after everything that the code depends on: the sources of this
package, Python, NumPy, numba and the processor. A folder that cannot be written, and a file that cannot be read, cost
time and nothing else. The files are numba's own and are read back as such: the folder must be the user's.
"""

import contextlib
import functools
import hashlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba import njit
from numba.core import caching, serialize

ENV = "BPTT_CACHE_DIR"
DIGEST = 32  # bytes at the head of a file: the SHA-256 of the rest
_NumbaLocator: Any = caching._CacheLocator
_NumbaResult: Any = caching.CompileResultCacheImpl
_NumbaCache: Any = caching.FunctionCache
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}


def cache_folder() -> Path:
    """Where compiled functions are kept: BPTT_CACHE_DIR, or the user's folder for caches."""
    given = os.environ.get(ENV)
    if given:
        return Path(given).absolute() / f"kernels-{_digest()}"
    base = os.environ.get({"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME"), "")
    if not os.path.isabs(base):  # not set, or not to be followed
        below = {"win32": ("AppData", "Local"), "darwin": ("Library", "Caches")}.get(sys.platform, (".cache",))
        home = os.path.expanduser("~")
        base = Path(home if os.path.isabs(home) and home != "/" else os.devnull, *below)  # no home, nothing is kept
    return Path(base) / "bptt" / f"kernels-{_digest()}"


@functools.cache
def _digest() -> str:
    """Of everything that the machine code depends on."""
    versions = (sys.version, np.__version__, numba.__version__, llvmlite.__version__)
    features = sorted(name for name, has in llvm.get_host_cpu_features().items() if has)
    seen = hashlib.sha256(repr((versions, llvm.get_host_cpu_name(), features)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def _trusted(path: Path) -> bool:
    """Whether nobody but this user and root can have written a file: what it holds is run."""
    if not hasattr(os, "getuid"):
        return True
    found = path.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o022


class _Locator(_NumbaLocator):
    """Tells numba where to keep the code of a function."""

    def __init__(self, function: Any):
        self.function = function

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(py_func)

    def ensure_cache_path(self) -> None:
        os.makedirs(self.get_cache_path(), mode=0o700, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return _digest()

    def get_disambiguator(self) -> str:
        return str(self.function.__code__.co_firstlineno)


class _Result(_NumbaResult):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Files:
    """One file per key, written whole or not at all: processes that compile at once cannot mix up each other's."""

    def __init__(self, folder: str, name: str):
        self.folder, self.name = Path(folder), name

    def _path(self, key: Any) -> Path:
        return self.folder / f"{self.name}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.code"

    def load(self, key: Any) -> Any:
        try:
            path = self._path(key)
            if not _trusted(path):
                return None
            content = path.read_bytes()
        except OSError:
            return None
        digest, data = content[:DIGEST], content[DIGEST:]
        return serialize.pickle.loads(data) if hashlib.sha256(data).digest() == digest else None

    def save(self, key: Any, data: Any) -> None:
        path = self._path(key)
        part, content = path.with_suffix(f".{secrets.token_hex(8)}.part"), serialize.dumps(data)
        try:
            part.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


class _Cache(_NumbaCache):
    _impl_class = _Result

    def __init__(self, function: Any):
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 — not what numba once wrote: all that it takes is to compile again
            found = None
        if found is None:
            _NOTICE.begin()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)
        _NOTICE.end()


class _Notice:
    """A line for people at a terminal while functions are compiled."""

    def __init__(self) -> None:
        self.depth, self.done, self.since = 0, 0, 0.0

    def begin(self) -> None:
        if self.depth == 0:
            self.since = time.monotonic()
        self.depth += 1
        self._show()

    def end(self) -> None:
        self.depth, self.done = max(0, self.depth - 1), self.done + 1
        self._show()

    def _show(self) -> None:
        if sys.stderr is None or not sys.stderr.isatty():
            return
        said = f"bptt: compiling the fast engine for this machine, which happens once: {self.done} functions"
        sys.stderr.write(f"\r{said} … \x1b[K" if self.depth else "\r\x1b[K")
        sys.stderr.flush()


_NOTICE = _Notice()


def kernel(function: Any) -> Any:
    """Decorator of a function that is compiled when it is first called, and from then on found on disk."""
    compiled: Any = njit(**OPTIONS)(function)
    compiled._cache = _Cache(function)
    return compiled

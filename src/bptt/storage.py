"""Files that are written whole or not at all, and read with suspicion. Used by ledgers and checkpoints.

The container is safetensors: named arrays behind a JSON header, no pickle. The header's metadata holds, as strings,
`format` (what kind of file), `schema` (its version, a whole number), `sha256` (of all that follows from the content)
and `json` (everything that is not an array).
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bptt.errors import DamagedFile, FileError, NewerFile
from bptt.typing import Array

UMASK = os.umask(0o077)  # it can only be read by setting it: once, before there are threads
os.umask(UMASK)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    Temporary file beside it, fsync, rename, fsync of the folder: after a crash either the old or the new file is there.

    Raises:
        FileError: the disk is full or read-only, or the folder is not there.
    """
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.chmod(temporary, 0o666 & ~UMASK)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the rename itself is done
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except OSError as error:
        raise FileError(f"cannot write {path}", got=error.strerror or str(error), do="Nothing was changed.") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_arrays(path: str | Path, arrays: dict[str, Array], *, format: str, schema: int, info: Any) -> None:
    """Write named arrays and `info` (anything JSON can hold) as one `.safetensors` file."""
    from safetensors.numpy import save

    flat = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # save() reads the raw buffer
    text = json.dumps(info, allow_nan=True)
    metadata = {"format": format, "schema": str(schema), "sha256": _digest(flat, text), "json": text}
    with replacing(path) as file:
        file.write(_in_order(save(flat, metadata)))


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its metadata sorted, which `save` leaves in random order: equal bytes for equals.

    Eight bytes of length, a JSON header padded with spaces to a multiple of eight, then the arrays.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(content)[start:]])


def read_arrays(path: str | Path, *, format: str, schema: int) -> tuple[dict[str, Array], Any]:
    """What `write_arrays` wrote: arrays and info.

    Raises:
        FileError: there is no such file, or it cannot be read.
        DamagedFile: truncated, altered, or of another format.
        NewerFile: of a later schema than this version knows.
    """
    from safetensors import SafetensorError, safe_open

    path, kind = Path(path), format.removeprefix("bptt.")
    if path.is_dir():
        raise FileError(f"{path}", got="a folder", expected=f"a {kind} file (.safetensors)")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if not metadata.get("format", "").startswith("bptt."):
                do = "Was it written by another program?"
                raise DamagedFile(f"{path}", got="a safetensors file of foreign origin", expected=f"a {kind}", do=do)
            if metadata["format"] != format:
                raise DamagedFile(f"{path}", got=f"a {metadata['format'].removeprefix('bptt.')}", expected=f"a {kind}")
            found = int(metadata["schema"])
            if found < 1:
                raise DamagedFile(f"{path}", got=f"{kind} schema {found}", expected="a schema of at least 1")
            if found > schema:
                do = "Install a newer bptt to read it."
                raise NewerFile(f"{path}", got=f"{kind} schema {found}", expected=f"at most {schema}", do=do)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(arrays, metadata["json"]) != metadata["sha256"]:
            raise DamagedFile(f"{path}", got="content that does not match its checksum", expected=f"an intact {kind}")
        return arrays, json.loads(metadata["json"])
    except FileNotFoundError:
        raise FileError(f"{path}", got="no such file", expected=f"a {kind}") from None
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror or str(error)) from None
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, FileError):
            raise
        got = f"a damaged or foreign file ({str(error).splitlines()[0][:60]})"
        raise DamagedFile(f"{path}", got=got, expected=f"a {kind}") from None


def format_of(path: Path) -> str:
    """ "bptt.ledger", "bptt.checkpoint" or so of a safetensors file that this package wrote; "" of any other."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return ""
    try:
        with safe_open(path, framework="np") as file:
            found = (file.metadata() or {}).get("format", "")
    except (SafetensorError, OSError):
        return ""
    return found if found.startswith("bptt.") else ""


def _digest(arrays: dict[str, Array], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

"""A .npy file as an array, read without pickle and without trust in its header."""

import io
import math
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

from bptt.data.files import read_bytes
from bptt.errors import DamagedFile, DataError
from bptt.typing import Array

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_BROKEN = (ValueError, TypeError, KeyError, SyntaxError, TokenError, OverflowError, RecursionError, MemoryError)


def read_npy(path: Path) -> Array:
    """(N, D) real numbers; (N,) becomes (N, 1). DamagedFile: cut off, or no .npy. DataError: other dtypes or shapes."""
    raw = read_bytes(path)
    what = f"array {path.name!r}"
    shape, dtype, offset = _header(what, raw)
    if dtype.hasobject:
        do = "Save it as numbers: np.save(path, array.astype(float))."
        raise DataError(what, got="Python objects", expected="numbers", do=do)
    if dtype.kind not in "biuf":
        raise DataError(what, got=f"dtype {dtype}", expected="real numbers")
    if len(shape) not in (1, 2):
        raise DataError(what, got=f"shape {shape}", expected="(N,) or (N, D)")
    if (size := math.prod(shape) * dtype.itemsize) != len(raw) - offset:
        # Asked before NumPy reads: a damaged header may promise more than the memory holds.
        got, expected = f"{len(raw) - offset} bytes of values", f"{size}, as its header says"
        raise DamagedFile(what, got=got, expected=expected, do="Save or copy it again.")
    values = np.load(io.BytesIO(raw), allow_pickle=False)
    return values.reshape(len(values), -1) if values.size else np.empty((len(values), 1))[:0]


def _header(what: str, raw: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    stream = io.BytesIO(raw)
    try:
        shape, _, dtype = _HEADERS[npy.read_magic(stream)](stream)
    except _BROKEN:
        got = "a damaged header" if raw.startswith(b"\x93NUMPY") else "a file without the mark of a .npy file"
        do = "Write it with np.save(path, array)."
        raise DamagedFile(what, got=got if raw else "an empty file", expected="an array of numbers", do=do) from None
    return shape, dtype, stream.tell()

"""Tables as pictures: an indexed PNG with one colour for each of the scale's levels, written by hand."""

import base64
import struct
import zlib

import numpy as np

from bptt.report.svg.palette import colour
from bptt.report.terminal import DECADES
from bptt.typing import Array

LEVELS = 48  # of the scale, that an eye can just tell apart
SIDE = 256  # cells along a side, beyond which neighbours are added up
CRISP = 512  # pixels along a side: small tables are enlarged here, since not everything that prints keeps edges sharp


def block_sum(table: Array, limit: int | tuple[int, int] = SIDE) -> tuple[Array, int, int]:
    """The table with neighbours added up so that no side has more than `limit` cells; the total stays what it was.

    Returns:
        The sums, and how many rows and columns stand in one.
    """
    limits = (limit, limit) if isinstance(limit, int) else limit
    down, across = (max(1, -(-n // most)) for n, most in zip(table.shape, limits, strict=True))
    with np.errstate(over="ignore"):
        rows = np.add.reduceat(table.astype(np.float64), np.arange(0, table.shape[0], down), axis=0)
        return np.add.reduceat(rows, np.arange(0, table.shape[1], across), axis=1), down, across


def levels(table: Array, largest: float) -> Array:
    """0 where the table is exactly zero or no number, else 1…LEVELS on a logarithmic scale of `DECADES` decades."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        at = 1 + (np.log10(np.maximum(table, 0)) - np.log10(largest)) / DECADES
        at = np.clip(np.where(np.isfinite(at), at, np.where(table > 0, at > 0, 0)), 0, 1)
    return np.where(table > 0, 1 + np.minimum((at * LEVELS).astype(int), LEVELS - 1), 0).astype(np.uint8)


def picture(indices: Array) -> str:
    """A data URI of a PNG whose pixels are `levels`; 0 is transparent."""
    enlarge = [max(1, CRISP // max(n, 1)) for n in indices.shape]
    pixels = np.repeat(np.repeat(indices, enlarge[0], 0), enlarge[1], 1)
    rows = np.zeros((pixels.shape[0], pixels.shape[1] + 1), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 3, 0, 0, 0)
    palette = bytes(3) + bytes(part for i in range(LEVELS) for part in colour((i + 0.5) / LEVELS))
    parts = (
        (b"IHDR", header),
        (b"PLTE", palette),
        (b"tRNS", b"\0"),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

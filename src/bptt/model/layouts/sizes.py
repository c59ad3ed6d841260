"""Sizes read off foreign arrays, in either orientation, so that a transposed matrix is reported as transposed."""

import difflib
import re
from typing import Any

import numpy as np

from bptt.cells import CELLS
from bptt.errors import ShapeError, UnknownName, unknown
from bptt.model.layouts.gates import count
from bptt.model.network import Network
from bptt.typing import Params

NAMES = {  # that arrays of a layout can have: one that has another may be a slip of the pen
    "PyTorch": r"(.*\.)?(((weight|bias)_(ih|hh)|weight_hr)_l\d+(_reverse)?|weight|bias)",
    "Keras": r".*",
    "ONNX": r"node\d+\.[WRBP]|readout\.[BC]",
    "the course": r"W(ax|aa|ya|[fico]|y)|b[aficoy]",
}


def shape_of(layout: str, arrays: Params, name: str, ndim: int = 2) -> tuple[int, ...]:
    """Shape of an array that must be there, with so many axes.

    Raises:
        UnknownName: it is not there; the nearest name that is, is suggested.
        ShapeError: another number of axes.
    """
    if name not in arrays:
        ending = name.split(".")[-1]
        slips = [n for n in arrays if n.split(".")[-1] == ending or not re.fullmatch(NAMES[layout], n)]
        near = difflib.get_close_matches(name, slips, n=1)
        do = f"Is it {near[0]!r}?" if near else None
        raise UnknownName(
            f"arrays for {layout}",
            got=f"none named {name!r}",
            expected=f"it beside {', '.join(arrays) or 'others'}",
            do=do,
        )
    shape = arrays[name].shape
    if len(shape) != ndim or 0 in shape:
        raise ShapeError(
            f"array {name!r}", got=f"shape {shape}", expected=f"{ndim} axes for {layout}, none of them empty"
        )
    return shape


def hidden_units(kind: str, name: str, shape: tuple[int, ...]) -> int:
    """H of a recurrent matrix (H, G·H) or (G·H, H).

    Raises:
        UnknownName: no such kind of cell.
        ShapeError: the matrix has the gates of another kind.
    """
    if kind not in CELLS:
        raise unknown("cell", kind, CELLS)
    small, large = sorted(shape)
    looks = [other for other in CELLS if large == count(other) * small]
    if looks and kind not in looks:
        got, expected = f"shape {shape}, {count(looks[0])} × {small}", f"{count(kind)} × {small} for kind={kind!r}"
        raise ShapeError(f"array {name!r}", got=got, expected=expected, do=f"It looks like kind={looks[0]!r}.")
    return small


def beside(shape: tuple[int, ...], axis: int, known: int) -> int:
    """The size on `axis` of a matrix whose other axis should have the known size; of the other, if it is transposed."""
    swapped = shape[1 - axis] != known and shape[axis] == known
    return shape[1 - axis] if swapped else shape[axis]


def skeleton(kind: str, hidden: int, *, nonlinearity: str = "tanh", **sizes: Any) -> Network:
    """A network of the right sizes, for its shapes; its numbers do not matter."""
    if nonlinearity != "tanh":  # an option of one kind only, which make_cell refuses for the others
        sizes["nonlinearity"] = nonlinearity
    return Network.create(kind, hidden=hidden, init="glorot", dtype=np.float32, **sizes)

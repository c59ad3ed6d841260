"""What differs between layouts, as data: the order of the gates, and what a layout has no place for."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bptt.cells import CELLS
from bptt.errors import InputError
from bptt.model.network import Network, Scan
from bptt.typing import Array, Params

# Blocks in their order, by the letters of `bptt.cells`: g is Keras's and ONNX's c, n is their GRU's h.
ORDERS = {
    "PyTorch": {"rnn": "h", "gru": "rzn", "lstm": "ifgo"},
    "Keras": {"rnn": "h", "gru": "zrn", "lstm": "ifgo"},
    "ONNX": {"rnn": "h", "gru": "zrn", "lstm": "iofg"},
    "the course": {"rnn": "h", "lstm": "figo"},
}

LACKS = {
    "PyTorch": ("peepholes", "reset before the product"),
    "Keras": ("peepholes", "projection"),
    "ONNX": ("projection",),
    "the course": ("peepholes", "projection", "GRU", "relu", "more than one layer", "both directions"),
}

_HAS: dict[str, Callable[[Network], bool]] = {
    "peepholes": lambda network: getattr(network.cell, "peepholes", False),
    "projection": lambda network: getattr(network.cell, "projection", None) is not None,
    "reset before the product": lambda network: getattr(network.cell, "reset", "after") == "before",
    "GRU": lambda network: kind_of(network.cell) == "gru",
    "relu": lambda network: getattr(network.cell, "nonlinearity", "tanh") == "relu",
    "more than one layer": lambda network: network.layers > 1,
    "both directions": lambda network: network.bidirectional,
}


class Gated(NamedTuple):
    """One scan in another gate order: W (D, GH), R (P, GH), b_x and b_h (GH,) whose sum is the bias; own: our names.

    b_h repeats b, save for the candidate of a GRU with reset after the product, where it is b_hn.
    """

    scan: Scan
    W: Array
    R: Array
    b_x: Array
    b_h: Array
    own: Params


def kind_of(cell: Any) -> str:
    """Its name in `CELLS`."""
    return next(kind for kind, make in CELLS.items() if type(cell) is make)


def count(kind: str) -> int:
    """G, the number of gates."""
    return len(ORDERS["PyTorch"][kind])


def regate(W: Array, ours: str, theirs: str) -> Array:
    """The column blocks of W (..., GH) from one order of gates to another.

    >>> regate(np.array([10, 11, 20, 21, 30, 31]), "rzn", "zrn").tolist()
    [20, 21, 10, 11, 30, 31]
    """
    blocks = np.split(W, len(ours), axis=-1)
    return np.concatenate([blocks[ours.index(gate)] for gate in theirs], axis=-1)


def gated(layout: str, network: Network, params: Params) -> Iterator[Gated]:
    """Every scan of the network with its parameters in the layout's gate order.

    Raises:
        InputError: the network has what the layout has no place for.
    """
    require_place(layout, network)
    ours, theirs = "".join(network.cell.gates), ORDERS[layout][kind_of(network.cell)]
    for scan in network.scans():
        own = {name: params[scan.prefix + name] for name in network.cell.shapes(scan.inputs)}
        b_h = own["b"]
        if "b_hn" in own:
            b_h = np.concatenate([b_h[: -network.cell.hidden], own["b_hn"]])
        W, R, b_x, b_h = (regate(a, ours, theirs) for a in (own["W_xh"], own["W_hh"], own["b"], b_h))
        yield Gated(scan, W, R, b_x, b_h, own)


def require_place(layout: str, network: Network) -> None:
    """Raise InputError if the network has what the layout has no place for."""
    for feature in LACKS[layout]:
        if _HAS[feature](network):
            do = "Export to another layout, or keep the network in this package's own format."
            expected = f"a network without {feature}"
            raise InputError(f"layout of {layout}", got=network.describe(), expected=expected, do=do)

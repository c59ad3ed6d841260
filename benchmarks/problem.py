"""What every contender works on: one layer, float32, h_0 = 0, mean squared error of h against random targets.

T steps · B sequences · X inputs · H hidden units
"""

from typing import Any, NamedTuple

CELLS = ("rnn", "gru", "lstm")
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class Shape(NamedTuple):
    """Sizes of one problem."""

    T: int
    B: int
    X: int
    H: int

    def __str__(self) -> str:
        return f"{self.T}, {self.B}, {self.X}, {self.H}"


FULL = [
    Shape(100, 32, 64, 128),
    Shape(256, 64, 256, 256),
    Shape(1000, 16, 64, 64),
    Shape(50, 1, 32, 32),
    Shape(1000, 1, 64, 256),
    Shape(128, 32, 512, 512),
]
TRACED_MAPS = [Shape(100, 32, 64, 128), Shape(100, 8, 32, 64), Shape(100, 1, 32, 32)]
QUICK = [Shape(50, 1, 32, 32), Shape(64, 16, 32, 64)]
DRY = [Shape(3, 2, 3, 4)]
TINY = Shape(2, 1, 2, 2)  # one step of it loads whatever a contender loads late


class Problem(NamedTuple):
    """kind: of the cell.  network: bptt's, with the weights that all get.  x (T, B, X) and targets (T, B, H)."""

    kind: str
    shape: Shape
    network: Any
    x: Any
    targets: Any


def make(kind: str, shape: Shape) -> Problem:
    """The same numbers in every process."""
    import numpy as np

    import bptt

    rng = np.random.default_rng(0)
    network = bptt.Network.create(kind, inputs=shape.X, hidden=shape.H, dtype=np.float32)
    x = rng.standard_normal((shape.T, shape.B, shape.X), np.float32)
    return Problem(kind, shape, network, x, rng.standard_normal((shape.T, shape.B, shape.H), np.float32))


def products(kind: str, shape: Shape) -> int:
    """Floating-point operations of the matrix products of one step: forward, back to h, and to the weights.

    dx is not asked for, and what is elementwise is not counted.
    """
    T, B, X, H = shape
    N = GATES[kind] * H
    return 2 * T * B * N * ((X + H) + H + (X + H))

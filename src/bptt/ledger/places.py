"""Where a parameter stands: whose state it works on, which way that walks, and which of its blocks are which gate's."""

from typing import NamedTuple


class Place(NamedTuple):
    """Where one parameter stands. What works on no state, such as a readout, is `Place()`.

    state: the key of that state in `Ledger.states`, "" for none.
    reverse: whether its steps are walked from the last to the first.
    gates: names of the equal blocks along `axis`, () for none.
    axis: of W along which the blocks lie: −1 for ours, 0 for PyTorch's weights.
    """

    state: str = ""
    reverse: bool = False
    gates: tuple[str, ...] = ()
    axis: int = -1

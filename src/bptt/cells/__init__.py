"""The textbook: equations, `step` and `step_back` of each cell. NumPy only, and no loop over time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bptt.cells.base import Cell, initial_state, pick, sigmoid, times
from bptt.cells.gru import GRU, GRUState
from bptt.cells.init import SCHEMES, initialise
from bptt.cells.lstm import LSTM, LSTMState
from bptt.cells.rnn import RNN, RNNState
from bptt.errors import InputError, unknown

CELLS: dict[str, Callable[..., Any]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


def make_cell(kind: str, hidden: int, **options: Any) -> Cell:
    """A cell by its name: "rnn", "gru" or "lstm", with that cell's own options.

    Raises:
        UnknownName: no such cell.
        InputError: an option that the cell does not have, or no hidden unit.

    >>> make_cell("gru", 8, reset="before").name
    'GRU (reset before)'
    """
    if kind not in CELLS:
        raise unknown("cell", kind, CELLS)
    _units("hidden units", hidden)
    if options.get("projection") is not None:
        _units("projection", options["projection"])
    fields = [name for name in CELLS[kind].__dataclass_fields__ if name != "hidden"]  # type: ignore[attr-defined]
    for option in options:
        if option not in fields:
            raise unknown(f"option of {kind}", option, fields)
    return CELLS[kind](hidden, **options)


def _units(what: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(what, got=repr(size), expected="a whole number, at least 1")


__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "SCHEMES",
    "Cell",
    "GRUState",
    "LSTMState",
    "RNNState",
    "initial_state",
    "initialise",
    "make_cell",
    "pick",
    "sigmoid",
    "times",
]

"""The textbook: equations, `step` and `step_back` of each cell. NumPy only, and no loop over time."""

from dataclasses import fields
from typing import Any

from bptt.cells.base import Cell, initial_state, pick, sigmoid, times
from bptt.cells.gru import GRU, GRUState
from bptt.cells.init import SCHEMES, initialise
from bptt.cells.lstm import LSTM, LSTMState
from bptt.cells.rnn import RNN, RNNState
from bptt.errors import unknown

CELLS: dict[str, Any] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


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
    known = [field.name for field in fields(CELLS[kind]) if field.name != "hidden"]
    for option in options:
        if option not in known:
            raise unknown(f"option of {kind}", option, known)
    return CELLS[kind](hidden, **options)


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

"""Whole numbers and fractions that a caller chooses: how many steps, how long a lag, which part."""

import math
import operator
from typing import SupportsIndex

from bptt.errors import DataError


def whole(what: str, value: SupportsIndex, least: int = 1) -> int:
    """`value` as an int of at least `least`; DataError otherwise."""
    expected = f"a whole number of at least {least}"
    try:
        number = operator.index(value)
    except TypeError:
        raise DataError(what, got=repr(value), expected=expected) from None
    if number < least:
        raise DataError(what, got=number, expected=expected)
    return number


def training_rows(rows: int, train_fraction: float) -> int:
    """How many of `rows` are in the training part.

    `split` and `Series.standardised` both ask here, so that the scale never sees one row of the validation part.
    """
    return math.floor(rows * train_fraction + 1e-9)  # 10 * (1 - 0.9) is 0.9999999999999998 and means 1

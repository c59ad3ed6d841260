"""Numbers over time, from a .csv or a .npy file."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from bptt.data.counts import training_rows
from bptt.data.csv import Table, read_table
from bptt.data.files import shown
from bptt.data.npy import read_npy
from bptt.errors import DataError, unknown
from bptt.typing import Array

Columns = str | int | Sequence[str | int] | None


@dataclass(frozen=True, eq=False, repr=False)
class Series:
    """N moments of D quantities.

    name: the file's.  columns: D names; "1", "2", … where the file gives none.  values: (N, D) float64, all finite.
    """

    name: str
    columns: tuple[str, ...]
    values: Array

    def standardised(self, train_fraction: float) -> tuple[Array, Array, Array]:
        """(N, D) values with mean 0 and standard deviation 1 over the training part, and that mean and std, (D,) each.

        train_fraction: the first share of the rows, 0 < f ≤ 1; the rest has no influence on the scale. With
        `split(values, v)` use 1 - v. A column that is constant there keeps its unit: std 1.
        DataError: the training part has fewer than two rows.

        >>> series = Series("s", ("a",), np.array([[1.0], [3.0], [9.0]]))
        >>> values, mean, std = series.standardised(0.7)
        >>> values.T.tolist(), mean.tolist(), std.tolist()
        ([[-1.0, 1.0, 7.0]], [2.0], [1.0])
        """
        if not 0 < train_fraction <= 1:
            raise DataError("train_fraction", got=train_fraction, expected="a share above 0, up to 1")
        train = self.values[: training_rows(len(self.values), train_fraction)]
        if len(train) < 2:
            got = f"{len(train)} of {len(self.values)} rows"
            raise DataError("training part", got=got, expected="at least 2 rows", do="Use a larger train_fraction.")
        mean, std = _moments(train)
        return (self.values - mean) / std, mean, std

    def __repr__(self) -> str:
        return f"Series(name={self.name!r}, columns={self.columns}, rows={len(self.values)})"


def _moments(values: Array) -> tuple[Array, Array]:
    # Divided by the largest first: a constant column becomes ones, whose std is exactly 0, and no square overflows.
    largest = np.abs(values).max(axis=0)
    scale = np.where(largest > 0, largest, 1.0)
    mean, std = (values / scale).mean(axis=0) * scale, (values / scale).std(axis=0) * scale
    return mean, np.where(std > 0, std, 1.0)


def read_series(path: str | Path, *, columns: Columns = None) -> Series:
    r"""A series from a .csv (or .tsv) file, or from a .npy array of shape (N,) or (N, D).

    columns: names, or numbers counted from 1, of the columns to read, in this order; None: all. A first line in which
        no cell is a number is the header. Cells are parted by tabs, semicolons (then 1,5 is 1.5) or commas.

    FileError: no such file, a folder. DamagedFile: a .npy that is cut off or none. UnknownName: no such column.
    DataError: an empty cell, a word, NaN or infinity (with row and column as they stand in the file), rows of different
    length, fewer than two rows, an array of objects or of more than two dimensions.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "sea.csv")
    >>> _ = path.write_text("day,height\nmon,1.5\ntue,2.5\n")
    >>> read_series(path, columns="height").values.T
    array([[1.5, 2.5]])
    >>> read_series(path)
    Traceback (most recent call last):
    bptt.errors.DataError: 'sea.csv', row 2, column 1 'day': got 'mon', expected a number. Choose the columns that are
        numbers, here: columns=['height'].
    >>> folder.cleanup()
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _from_array(path.name, read_npy(path), columns)
    if suffix in (".csv", ".tsv"):
        return _from_table(path.name, read_table(path), columns)
    raise DataError(f"series {path.name!r}", got=f"the ending {suffix!r}", expected=".csv, .tsv or .npy")


def _from_array(name: str, values: Array, columns: Columns) -> Series:
    names = [str(i + 1) for i in range(values.shape[1])]
    picked = _pick(name, names, columns)
    values = np.ascontiguousarray(values[:, picked], np.float64)
    _check_rows(name, len(values))
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        what = f"{name!r}, row {row + 1}, column {names[picked[column]]}"
        do = "Fill the gap, or leave out the row or the column."
        raise DataError(what, got=values[row, column], expected="a finite number", do=do)
    return Series(name, tuple(names[i] for i in picked), values)


def _from_table(name: str, table: Table, columns: Columns) -> Series:
    picked = _pick(name, table.names, columns)
    _check_rows(name, len(table.rows))
    values = np.empty((len(table.rows), len(picked)))
    for n, row in enumerate(table.rows):
        for d, column in enumerate(picked):
            value = table.number(row[column])
            if value is None or not isfinite(value):
                raise _bad_cell(name, table, n, column)
            values[n, d] = value
    return Series(name, tuple(table.names[i] for i in picked), values)


def _bad_cell(name: str, table: Table, n: int, column: int) -> DataError:
    cell = table.rows[n][column]
    label = f" {shown(table.names[column])}" if table.header else ""
    what = f"{name!r}, row {table.lines[n]}, column {column + 1}{label}"
    if not cell:
        return DataError(what, got="an empty cell", expected="a number", do="Fill the gap or leave out the row.")
    if table.number(cell) is not None:
        do = "Fill the gap, or leave out the row or the column."
        return DataError(what, got=shown(cell), expected="a finite number", do=do)
    return DataError(what, got=shown(cell), expected="a number", do=_advice(table, n, column))


def _advice(table: Table, n: int, column: int) -> str:
    def finite(i: int) -> list[bool]:
        return [isfinite(number) for row in table.rows if (number := table.number(row[i])) is not None]

    good = [i for i in range(len(table.names)) if sum(finite(i)) == len(table.rows)]
    if good and not finite(column):  # a whole column of dates or names, not one bad cell
        choice = [table.names[i] if table.header else i + 1 for i in good[:4]]
        return f"Choose the columns that are numbers, here: columns={choice}{', …' * (len(good) > 4)}."
    if n == 0 and not table.header:
        return "If this is a header, give every column a name that is not a number."
    return "Correct the cell or leave out the row."


def _check_rows(name: str, rows: int) -> None:
    if rows < 2:
        do = "A series needs a value to learn from and one to predict."
        raise DataError(
            f"series {name!r}", got=f"{rows} row{'s' * (rows != 1)} of numbers", expected="at least 2", do=do
        )


def _pick(file: str, names: Sequence[str], columns: Columns) -> list[int]:
    if columns is None:
        return list(range(len(names)))
    chosen = [columns] if isinstance(columns, str | int) else list(columns)
    if not chosen:
        raise DataError("columns", got="none", expected=f"some of {', '.join(names)}")
    return [_position(file, names, column) for column in chosen]


def _position(file: str, names: Sequence[str], column: str | int) -> int:
    if isinstance(column, str) and column in names:
        if names.count(column) > 1:
            do = "Choose it by number, counted from 1."
            raise DataError(f"column {column!r} of {file!r}", got=f"{names.count(column)} of that name", do=do)
        return names.index(column)
    if isinstance(column, str) and not column.isdecimal():
        raise unknown(f"column of {file!r}", column, names)
    number = int(column)
    if not 1 <= number <= len(names):
        raise DataError(f"column of {file!r}", got=number, expected=f"a number from 1 to {len(names)}")
    return number - 1

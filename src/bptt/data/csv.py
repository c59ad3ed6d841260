"""A .csv file as rows of cells: which delimiter, whether there is a header, and on which line each row stands."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from bptt.data.files import read_utf8
from bptt.errors import DataError

# Not whatever float() takes: 1_000 is a typing error in a data file, and so are digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE)


class Table(NamedTuple):
    """Cells as strings without white space around them.

    names: one per column.  header: whether they are the file's own.  rows: each as long as `names`.
    lines: of each row, its line in the file, counted from 1.  decimal: "," or ".".
    """

    names: list[str]
    header: bool
    rows: list[list[str]]
    lines: list[int]
    decimal: str

    def number(self, cell: str) -> float | None:
        """The number that a cell holds, NaN and infinity among them; None for anything else."""
        if self.decimal == "," and "." not in cell:
            cell = cell.replace(",", ".")
        return float(cell) if _NUMBER.fullmatch(cell) else None


def read_table(path: Path) -> Table:
    """The rows of a file. DataError: not UTF-8, empty, a blank line in the middle, rows of different length."""
    document = read_utf8(path)
    delimiter = sniff(document)
    numbered = _trim(_numbered_rows(path.name, document, delimiter))
    if not numbered:
        raise DataError(f"series {path.name!r}", got="only blank lines", expected="rows of numbers")
    _check_shape(path.name, numbered)
    decimal = "," if delimiter == ";" else "."
    first = Table([], False, [], [], decimal)
    header = any(numbered[0][1]) and all(first.number(cell) is None for cell in numbered[0][1])
    names = [str(i + 1) for i in range(len(numbered[0][1]))]
    if header:
        cells = [numbered[0][1][0].removeprefix("#").strip(), *numbered[0][1][1:]]  # np.savetxt writes "# a,b"
        names = [cell or names[i] for i, cell in enumerate(cells)]
        numbered = numbered[1:]
    return Table(names, header, [row for _, row in numbered], [line for line, _ in numbered], decimal)


def sniff(document: str) -> str:
    r"""The delimiter: of tab, semicolon and comma the first that cuts the first lines into equally many cells.

    The order matters: a line such as 1,5;2,5 has commas too, as decimal points.

    >>> sniff("a;b\n1,5;2,5\n"), sniff("a,b\n1.5,2.5\n"), sniff("1.5\n2.5\n")
    (';', ',', ',')
    """
    lines = [line for line in document[:20_000].splitlines()[:20] if line.strip()]
    for delimiter in "\t;,":
        widths = {len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)}
        if len(widths) == 1 and widths != {1}:
            return delimiter
    return next((delimiter for delimiter in "\t;," if lines and delimiter in lines[0]), ",")


def _numbered_rows(name: str, document: str, delimiter: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(document, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        what = f"{name!r}, row {reader.line_num}"
        raise DataError(what, got=str(error), expected="cells parted by tabs, semicolons or commas") from None


def _trim(numbered: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    filled = [i for i, (_, row) in enumerate(numbered) if _is_filled(row)]
    return numbered[filled[0] : filled[-1] + 1] if filled else []


def _is_filled(row: list[str]) -> bool:
    return bool(row) and row != [""]


def _check_shape(name: str, numbered: list[tuple[int, list[str]]]) -> None:
    first, width = numbered[0][0], len(numbered[0][1])
    for line, row in numbered:
        what = f"{name!r}, row {line}"
        if not _is_filled(row):
            raise DataError(what, got="a blank line", expected="numbers", do="Fill the gap or leave out the row.")
        if len(row) != width:
            expected = f"{width}, as in row {first}"
            raise DataError(what, got=f"{len(row)} cell{'s' * (len(row) > 1)}", expected=expected)

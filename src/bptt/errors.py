"""Every exception of the package. Each message is one line: what, got, expected, do.

BpttError
├── InputError            what the caller gave cannot be used
│   ├── ShapeError        an array does not fit
│   ├── UnknownName       a name that nothing answers to; the nearest one is suggested
│   ├── DataError         text, series or task data that cannot be learnt from
│   ├── NotFiniteError    NaN or infinity, with the step and the tensor where it first appeared
│   └── NotKeptError      the ledger was recorded without what is asked of it
├── FileError             a file or folder that cannot be read or written
│   ├── DamagedFile       truncated, altered, or not what its name says
│   ├── NewerFile         written by a later version of the format
│   └── BusyError         a run folder that another process is using
└── MissingExtra          an optional package is not installed
"""

import difflib
from collections.abc import Iterable


class BpttError(Exception):
    """Base of all errors of this package.

    Args:
        what: the thing that is wrong, named as the caller knows it.
        got: what was found.
        expected: what would have been right.
        do: what to do about it, as a sentence.

    >>> print(ShapeError("state h", got="shape (32, 64)", expected="(B, H) = (32, 128)", do="Drop its layer axis."))
    state h: got shape (32, 64), expected (B, H) = (32, 128). Drop its layer axis.
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, do: str | None = None):
        self.what, self.got, self.expected, self.do = what, got, expected, do
        facts = [f"got {got}" if got is not None else "", f"expected {expected}" if expected is not None else ""]
        facts = ", ".join(fact for fact in facts if fact)
        line = f"{what}: {facts}" if facts else what
        super().__init__(f"{line.rstrip('.')}. {do}" if do else line)


class InputError(BpttError, ValueError):
    """What the caller gave cannot be used."""


class ShapeError(InputError):
    """An array does not fit."""


class UnknownName(InputError):
    """A name that nothing answers to; the nearest known one is suggested."""


class DataError(InputError):
    """Text, series or task data that cannot be learnt from."""


class NotFiniteError(InputError):
    """NaN or infinity; the message names the step and the tensor where it first appeared."""


class NotKeptError(InputError):
    """The ledger was recorded without what is asked of it."""


class FileError(BpttError):
    """A file or folder that cannot be read or written."""


class DamagedFile(FileError):
    """A file that is truncated, altered, or not what its name says."""


class NewerFile(FileError):
    """A file written by a later version of the format."""


class BusyError(FileError):
    """A run folder that another process is using."""


class MissingExtra(BpttError, ImportError):
    """An optional package is not installed; the message says what to install."""


def unknown(kind: str, got: str, known: Iterable[str]) -> UnknownName:
    """The error for a name that is not one of `known`, with the nearest one.

    >>> print(unknown("cell", "ltsm", ["rnn", "gru", "lstm"]))
    cell: got 'ltsm', expected one of rnn, gru, lstm. Did you mean 'lstm'?
    """
    known = list(known)
    near = difflib.get_close_matches(str(got), known, n=1, cutoff=0.5)
    do = f"Did you mean {near[0]!r}?" if near else None
    return UnknownName(kind, got=repr(got), expected="one of " + ", ".join(known), do=do)

"""Files as bytes and as UTF-8 text, with one clear line for every way in which reading them fails."""

from pathlib import Path

from bptt.errors import DataError, FileError


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file. FileError when it is missing, a folder, or may not be read."""
    what = f"file {str(path)!r}"
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise FileError(what, got="no such file", do="Check the name and the folder.") from None
    except IsADirectoryError:
        raise FileError(what, got="a folder", expected="a file", do="Name one file inside it.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise FileError(what, got=f"{reason}", expected="a file that can be read") from None


def read_utf8(path: str | Path) -> str:
    """The text of a UTF-8 file, without its byte order mark. DataError when it is empty, binary, or not UTF-8."""
    raw = read_bytes(path)
    what = f"file {str(path)!r}"
    if not raw:
        raise DataError(what, got="an empty file", expected="text in UTF-8")
    if (nul := raw.find(0)) >= 0:
        do = "If it is UTF-16 text, convert it to UTF-8 first."
        raise DataError(what, got=f"a binary file (a zero byte at byte offset {nul})", expected="text in UTF-8", do=do)
    try:
        # Not "utf-8-sig": that codec counts the offset of a bad byte from behind the mark.
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        got = f"byte 0x{raw[error.start]:02x} at byte offset {error.start}, which is not UTF-8"
        do = "Convert it first, for example: iconv -f latin1 -t utf-8."
        raise DataError(what, got=got, expected="text in UTF-8", do=do) from None


def shown(cell: str, width: int = 40) -> str:
    """A piece of somebody's file, quoted, on one line, and short enough for a message."""
    return repr(cell if len(cell) <= width else cell[: width - 1] + "…")

"""What a project says of `bptt check` in its pyproject.toml, under [tool.bptt.check]; the command line wins over it."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from bptt.errors import FileError, InputError, unknown

TABLE = "[tool.bptt.check]"
KEYS = ("select", "ignore", "fail-on", "thresholds")
FAIL_ON = ("error", "warning", "note", "never")


class Settings(NamedTuple):
    """None for what is not said.  select, ignore: codes.  fail_on: a severity or "never".  thresholds: by name."""

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    fail_on: str | None = None
    thresholds: dict[str, float] | None = None


def project_settings(folder: Path) -> Settings:
    """Of the nearest pyproject.toml, in this folder or above it.

    Raises:
        FileError: it cannot be read as TOML.  UnknownName: a key that there is not.
        InputError: a value of the wrong kind.
    """
    folder = folder.absolute()
    found = next((path for at in (folder, *folder.parents) if (path := at / "pyproject.toml").is_file()), None)
    return Settings() if found is None else _settings(_table(found), found)


def asked(select: str | None, ignore: str | None, threshold: list[str] | None, fail_on: str | None = None) -> Settings:
    """What the command line says, and the project where it says nothing; of limits, name by name.

    Raises:
        As `project_settings`, `thresholds` and `severity`.
    """
    project = project_settings(Path.cwd())
    failing = project.fail_on if fail_on is None else severity(fail_on, "--fail-on")
    limits = (project.thresholds or {}) | thresholds(threshold)
    return Settings(codes(select) or project.select, codes(ignore) or project.ignore, failing, limits or None)


def codes(text: str | None) -> tuple[str, ...] | None:
    """Codes parted by commas; None for nothing.

    >>> codes("BP1, BP204")
    ('BP1', 'BP204')
    """
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def severity(text: str, what: str) -> str:
    """A severity or "never". UnknownName: anything else."""
    if text not in FAIL_ON:
        raise unknown(what, text, FAIL_ON)
    return text


def thresholds(given: list[str] | None) -> dict[str, float]:
    """Name → number, of words like vanishing=0.9. InputError: another form.

    >>> thresholds(["slope=-0.1"])
    {'slope': -0.1}
    """
    found = {}
    for word in given or ():
        name, _, value = word.partition("=")
        try:
            found[name.strip()] = _number(value)
        except ValueError:
            raise InputError("--threshold", got=repr(word), expected="NAME=NUMBER") from None
    return found


def _number(text: str) -> float:
    value = float(text)
    if not -1e300 < value < 1e300:  # infinity and NaN too
        raise ValueError(text)
    return value


def _table(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror or str(error)) from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise FileError(f"{path}", got=f"no TOML ({str(error)[:80]})", do="Correct it.") from None
    for key in ("tool", "bptt", "check"):
        document = document.get(key, {})
        if not isinstance(document, dict):
            raise InputError(f"{TABLE} in {path}", got=type(document).__name__, expected="a table")
    return document


def _settings(table: dict[str, Any], path: Path) -> Settings:
    for key in table:
        if key not in KEYS:
            raise unknown(f"key of {TABLE} in {path}", key, KEYS)
    lists = {key: _codes(table[key], key, path) for key in ("select", "ignore") if key in table}
    fail_on = table.get("fail-on")
    if fail_on is not None:
        fail_on = severity(str(fail_on), f"fail-on of {TABLE} in {path}")
    return Settings(lists.get("select"), lists.get("ignore"), fail_on, _limits(table.get("thresholds"), path))


def _codes(value: Any, key: str, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
        raise InputError(f"{key} of {TABLE} in {path}", got=repr(value), expected='a list of codes, as in ["BP1"]')
    return tuple(value)


def _limits(value: Any, path: Path) -> dict[str, float] | None:
    if value is None:
        return None
    numbers = isinstance(value, dict) and all(
        isinstance(limit, int | float) and not isinstance(limit, bool) and -1e300 < limit < 1e300
        for limit in value.values()
    )
    if not numbers:
        raise InputError(f"thresholds of {TABLE} in {path}", got=repr(value), expected="a table of numbers")
    return {name: float(limit) for name, limit in value.items()}

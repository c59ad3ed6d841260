"""What a user names, as a configuration that suits it: a text, a series, or a task."""

from pathlib import Path
from typing import Any

from bptt.data import TASKS, make_task, read_series, read_text
from bptt.data.counts import training_rows
from bptt.errors import FileError, InputError, unknown
from bptt.train.config import Config, Kind
from bptt.train.problem import chosen_columns

SERIES = (".csv", ".tsv", ".npy")


def classify(data: str | None) -> Kind:
    """What `data` is: a task by its name, a series by its ending, a text if there is such a file.

    Raises:
        UnknownName: neither a file nor a task.  FileError: a path where there is no file.

    >>> classify(None), classify("adding:20"), classify("tides.csv")
    ('text', 'task', 'series')
    """
    if data is None:
        return "text"
    if data.split(":")[0] in TASKS:
        return "task"
    path = Path(data)
    if path.suffix.lower() in SERIES:
        return "series"
    if path.exists():
        return "text"
    if "/" in data or "\\" in data or (path.suffix and ":" not in data):
        raise FileError(f"file {data!r}", got="no such file", do="Check the name and the folder.")
    raise unknown("no file of that name, and no task; task", data.split(":")[0], TASKS)


FOR_TASKS: dict[str, Any] = {"hidden": 64, "batch": 32, "iterations": 2000}
FOR_SERIES: dict[str, Any] = {"hidden": 32, "batch": 8, "steps": 32, "iterations": 1500}
FOR_WORDS: dict[str, Any] = {"max_vocabulary": 2000, "iterations": 1500}  # a wide readout is what costs
OF_KIND = {"unit": "text", "max_vocabulary": "text", "columns": "series", "validation": "text or series"}


def configure(data: str | Path | None = None, **options: Any) -> Config:
    """A configuration that suits the data; options that are None are left to it, the others are fields of `Config`.

    Raises:
        UnknownName, FileError: as `classify`.  UnknownName: an option that is no field.
        InputError: an option that has no meaning for such data.
        FileError, DataError: as the readers in `bptt.data`.

    >>> configure("adding:100").steps
    100
    """
    data = None if data is None else str(data)
    kind = classify(data)
    for name in options:
        if name not in Config.__struct_fields__:
            raise unknown("option", name, Config.__struct_fields__)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if kind not in OF_KIND.get(name, kind):
            raise InputError(name.replace("_", " "), got=f"a {kind}", expected=f"a {OF_KIND[name]}", do="Leave it out.")
    if kind == "task":
        task = make_task(str(data))
        if given.get("steps", task.steps) != task.steps:
            raise InputError("steps", got=given["steps"], expected=f"{task.steps}, those of {task.name}")
        return _config(given | {"kind": kind, "data": task.name, "steps": task.steps}, FOR_TASKS)
    given |= {"kind": kind, "data": None if data is None else str(Path(data).resolve())}
    config = _config(given, FOR_SERIES if kind == "series" else FOR_WORDS if given.get("unit") == "word" else {})
    return config if data is None else _fit_in(config, given)


def _config(given: dict[str, Any], defaults: dict[str, Any]) -> Config:
    return Config(**(defaults | given))


def _fit_in(config: Config, given: dict[str, Any]) -> Config:
    """Fewer steps and sequences where the text or series is short, unless they were asked for."""
    units = _length(config)
    train = training_rows(units, 1 - config.validation)
    steps = config.steps if "steps" in given else min(config.steps, max(1, units - train - 1))
    batch = config.batch if "batch" in given else min(config.batch, max(1, (train - 1) // steps))
    return config.replace(steps=steps, batch=batch)


def _length(config: Config) -> int:
    assert config.data is not None
    if config.kind == "series":
        return len(read_series(config.data, columns=chosen_columns(config)).values)
    return len(read_text(config.data, unit=config.unit, max_vocabulary=config.max_vocabulary))

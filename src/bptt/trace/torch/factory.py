"""A factory: what a command is told about somebody's model, as `module:name` or `path/to/file.py:name`.

The name belongs to something that is called without arguments, and that returns one of

    model                                        where the command needs no batch
    model, batch                                 a tensor, a tuple of arguments, or a dict of named ones
    model, batch, losses                         losses(outputs) → (K,) losses, one for each step, or a single one
    {"model": …, "batch": …, "losses": …, "step": …}

or a named tuple with some of the same four names. `step(model, batch)` is a whole training step with its own backward
calls; it is only ever given by name, so that a third value is always `losses`.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from bptt.errors import InputError

RULE = "(model, batch), (model, batch, losses), or a dict of model, batch, losses, step"


class Given(NamedTuple):
    """What a factory returned; None for what it left out.

    model: a module.  batch: what it is called with; see `call`.  losses: of its outputs.  step: a whole training step.
    """

    model: nn.Module
    batch: Any = None
    losses: Callable[[Any], Tensor] | None = None
    step: Callable[[nn.Module, Any], Any] | None = None


def load(spec: str) -> Given:
    """Import a factory, call it, and sort what it returns.

    Args:
        spec: `module:name` or `path/to/file.py:name`. Modules are looked for in the current folder too.

    Raises:
        InputError: no such module or name, it is not callable, it raised, or what it returned is none of the above.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        got = repr(spec)
        raise InputError("factory", got=got, expected="module:name or path/to/file.py:name, as in train.py:make")
    module = _module(source, spec)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"factory {spec}", got=f"no {name} in {source}", expected=_names(module))
        found = getattr(found, part)
    if not callable(found) or isinstance(found, nn.Module):
        do = "Write a function that returns it."
        raise InputError(f"factory {spec}", got=type(found).__name__, expected="a function without arguments", do=do)
    with _current_folder():
        try:
            made = found()
        except Exception as error:
            raise InputError(f"factory {spec}", got=f"it raised {_line(error)}", expected=RULE) from error
    return given(made, f"factory {spec}")


def given(made: Any, what: str = "factory") -> Given:
    """What a factory returned, sorted.

    Raises:
        InputError: it is none of what a factory may return.
    """
    if isinstance(made, nn.Module):
        return Given(made)
    named = made._asdict() if hasattr(made, "_asdict") else made
    if isinstance(named, Mapping):
        if "model" not in named or not set(named) <= set(Given._fields):
            got = "a mapping with " + (", ".join(map(str, named)) or "nothing in it")
            raise InputError(what, got=got, expected="names among model, batch, losses, step, with a model")
        return _checked(Given(**named), what)
    if not isinstance(made, tuple | list) or not 1 <= len(made) <= 3:
        many = f" of {len(made)}" if isinstance(made, tuple | list) else ""
        raise InputError(what, got=f"it returned {type(made).__name__}{many}", expected=RULE)
    return _checked(Given(*made), what)


def call(model: nn.Module, batch: Any) -> Any:
    """The model's outputs: a tuple or list is its arguments, a dict its named ones, anything else its one argument."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence):
        return model(*batch)
    return model(batch)


def default_losses(outputs: Any, T: int | None = None, batch_first: bool = False) -> Tensor:
    """(K,) losses of whatever a model returns: one for each step, where one of the first two axes is T; else K = 1.

    Each is the sum of the first floating tensor's numbers at that step, weighted by fixed random numbers: a way in
    which no symmetry of the model cancels.

    Args:
        outputs: what the model returned.
        T: number of steps.
        batch_first: which axis is time where the first two are both of size T.

    Raises:
        InputError: there is no floating tensor in the outputs.

    >>> default_losses((torch.ones(5, 2, 3), None), 5).shape
    torch.Size([5])
    """
    out = next((t for t in _floats(outputs)), None)
    if out is None:
        do = "Give losses(outputs)."
        raise InputError("outputs", got=type(outputs).__name__, expected="a floating tensor among them", do=do)
    if out.dim() == 0:
        return out[None]
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weighted = out * direction.to(out)
    axes = [axis for axis in range(min(out.dim(), 2)) if out.shape[axis] == T]
    if not axes:
        return weighted.sum()[None]
    axis = 1 if batch_first and 1 in axes else axes[0]
    return weighted.movedim(axis, 0).reshape(out.shape[axis], -1).sum(1)


def _checked(found: Given, what: str) -> Given:
    if not isinstance(found.model, nn.Module):
        raise InputError(what, got=f"a model of {type(found.model).__name__}", expected="a torch.nn.Module")
    for name, value in (("losses", found.losses), ("step", found.step)):
        if value is not None and not callable(value):
            do = "Put further inputs into the batch: (model, (x, y))." if name == "losses" else None
            raise InputError(what, got=f"{name} of {type(value).__name__}", expected="a function", do=do)
    return found


def _floats(outputs: Any) -> Iterator[Tensor]:
    """Every floating tensor in nested outputs; of a packed sequence the padded one (T, B, D)."""
    if isinstance(outputs, PackedSequence):
        yield pad_packed_sequence(outputs)[0]
    elif isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _floats(value)
    elif isinstance(outputs, tuple | list):
        for value in outputs:
            yield from _floats(value)
    elif hasattr(outputs, "__dict__"):
        yield from _floats(vars(outputs))


def _module(source: str, spec: str) -> Any:
    """The module of a factory, from a file or by its name."""
    path = Path(source)
    if path.suffix == ".py" and not path.is_file():
        raise InputError(f"factory {spec}", got=f"no file {source}")
    with _current_folder(path.resolve().parent if path.suffix == ".py" else None):
        try:
            return _from_file(path) if path.suffix == ".py" else importlib.import_module(source)
        except ModuleNotFoundError as error:
            if error.name is not None and (source == error.name or source.startswith(f"{error.name}.")):
                do = "Run it from the folder that the module is in, or name a file: path/to/file.py:name."
                raise InputError(f"factory {spec}", got=f"no module {error.name}", do=do) from error
            raise InputError(f"factory {spec}", got=f"{source} needs {error.name}, which is missing") from error
        except (Exception, SystemExit) as error:
            raise InputError(f"factory {spec}", got=f"importing {source} raised {_line(error)}") from error


def _from_file(path: Path) -> Any:
    """A file as a module; one that is imported already is taken as it is."""
    known = next((m for m in list(sys.modules.values()) if _same_file(m, path)), None)
    if known is not None:
        return known
    maker = importlib.util.spec_from_file_location(path.stem, path)
    assert maker is not None
    assert maker.loader is not None
    module = importlib.util.module_from_spec(maker)
    if path.stem not in sys.modules:  # dataclasses and pickles look there
        sys.modules[path.stem] = module
    try:
        maker.loader.exec_module(module)
    except BaseException:
        if sys.modules.get(path.stem) is module:
            del sys.modules[path.stem]
        raise
    return module


def _same_file(module: Any, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and getattr(module, "__name__", "") != "__main__" and Path(file) == path.resolve()


@contextmanager
def _current_folder(first: Path | None = None) -> Iterator[None]:
    """Modules are found in the current folder, and in one more before it."""
    folders = [str(folder) for folder in (first, Path.cwd()) if folder is not None]
    before = list(sys.path)
    sys.path[:0] = [folder for folder in dict.fromkeys(folders) if folder not in before]
    try:
        yield
    finally:
        sys.path[:] = before


def _names(module: Any) -> str:
    """What a module has that might have been meant."""
    own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    return "one of " + ", ".join(own[:8]) if own else "the name of a function"


def _line(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

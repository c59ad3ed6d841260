"""Other people's models as ledgers: one room for each framework, and none of them knows another.

The room itself is called like a function: `bptt.trace(model)` finds the framework that a model belongs to.
"""

import importlib
import sys
import types
from typing import Any

from bptt.errors import InputError, MissingExtra

FRAMEWORKS = ("torch",)
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")  # of files of weights that some room reads


class _Room(types.ModuleType):
    """A module that can be called, since `bptt.trace` is both the room and what one does in it."""

    def __call__(self, model: Any, **options: Any) -> Any:
        """A context in which a model's forward and backward pass are recorded; see `bptt.trace.torch.trace`."""
        return adapter(model).trace(model, **options)


def audit(model: Any, x: Any = None, losses: Any = None, **options: Any) -> Any:
    """Whether a model's gradient is that of its values, use by use; see `bptt.trace.torch.audit`."""
    return adapter(model).audit(model, x, losses, **options)


def adapter(model: Any) -> Any:
    """The room of the framework that a model belongs to.

    Raises:
        InputError: it belongs to none.  MissingExtra: its framework is not installed.
    """
    families = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    for framework in FRAMEWORKS:
        if framework in families:
            return room(framework)
    raise InputError("model", got=type(model).__name__, expected="a torch.nn.Module")


def watch(model: Any, **options: Any) -> Any:
    """Look at a training loop's own gradient every so many steps; see `bptt.trace.torch.watch`."""
    return adapter(model).watch(model, **options)


def room(framework: str) -> Any:
    """`bptt.trace.<framework>`.

    Raises:
        MissingExtra: the framework is not installed.
    """
    try:
        importlib.import_module(framework)
    except ImportError:
        raise MissingExtra(framework, got="not installed", do=f"pip install 'bptt[{framework}]'") from None
    return importlib.import_module(f"bptt.trace.{framework}")


sys.modules[__name__].__class__ = _Room

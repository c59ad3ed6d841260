"""Training: the loop, optimisers, checkpoints, and one training step in full view."""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "SGD": "optimisers",
    "Adam": "optimisers",
    "Attribution": "attribution",
    "Checkpoint": "saved",
    "Clip": "clip",
    "Config": "config",
    "Lesson": "lesson",
    "Result": "loop",
    "Update": "optimisers",
    "attribute": "attribution",
    "configure": "choice",
    "explain": "lesson",
    "fit": "loop",
    "forecast": "generation",
    "generate": "generation",
    "load_model": "saved",
    "read_metrics": "metrics",
}

if TYPE_CHECKING:
    from bptt.train.attribution import Attribution, attribute
    from bptt.train.choice import configure
    from bptt.train.clip import Clip
    from bptt.train.config import Config
    from bptt.train.generation import forecast, generate
    from bptt.train.lesson import Lesson, explain
    from bptt.train.loop import Result, fit
    from bptt.train.metrics import read_metrics
    from bptt.train.optimisers import SGD, Adam, Update
    from bptt.train.saved import Checkpoint, load_model


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bptt.train' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bptt.train.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "SGD",
    "Adam",
    "Attribution",
    "Checkpoint",
    "Clip",
    "Config",
    "Lesson",
    "Result",
    "Update",
    "attribute",
    "configure",
    "explain",
    "fit",
    "forecast",
    "generate",
    "load_model",
    "read_metrics",
]

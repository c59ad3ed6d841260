"""Training: the loop, optimisers, checkpoints, and one training step in full view."""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "SGD": "optimisers",
    "Adam": "optimisers",
    "Attribution": "attribution",
    "Checkpoint": "saved",
    "Clip": "clip",
    "Comparison": "comparison",
    "Config": "config",
    "Lesson": "lesson",
    "Result": "loop",
    "Trial": "trial",
    "Trials": "trial",
    "Update": "optimisers",
    "attribute": "attribution",
    "compare": "comparison",
    "configure": "choice",
    "examine": "examination",
    "explain": "lesson",
    "fit": "loop",
    "floss": "flossing",
    "forecast": "generation",
    "generate": "generation",
    "load_model": "saved",
    "read_metrics": "metrics",
    "try_remedies": "trial",
}

if TYPE_CHECKING:
    from bptt.train.attribution import Attribution, attribute
    from bptt.train.choice import configure
    from bptt.train.clip import Clip
    from bptt.train.comparison import Comparison, compare
    from bptt.train.config import Config
    from bptt.train.examination import examine
    from bptt.train.flossing import floss
    from bptt.train.generation import forecast, generate
    from bptt.train.lesson import Lesson, explain
    from bptt.train.loop import Result, fit
    from bptt.train.metrics import read_metrics
    from bptt.train.optimisers import SGD, Adam, Update
    from bptt.train.saved import Checkpoint, load_model
    from bptt.train.trial import Trial, Trials, try_remedies


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
    "Comparison",
    "Config",
    "Lesson",
    "Result",
    "Trial",
    "Trials",
    "Update",
    "attribute",
    "compare",
    "configure",
    "examine",
    "explain",
    "fit",
    "floss",
    "forecast",
    "generate",
    "load_model",
    "read_metrics",
    "try_remedies",
]

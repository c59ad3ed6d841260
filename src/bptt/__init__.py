"""Recurrent networks with explicit backpropagation through time: the gradient of each shared weight, step by step.

>>> import bptt
>>> ledger = bptt.explain("the cat sat down")
>>> ledger.map("W_hh").shape
(4, 4)

Everything loads on first touch, so that `import bptt` costs little more than NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bptt.version import VERSION

__version__ = VERSION

_HOMES = {
    "Batch": "bptt.model",
    "Checkpointed": "bptt.engine",
    "Chunked": "bptt.engine",
    "Full": "bptt.engine",
    "Ledger": "bptt.ledger",
    "Loss": "bptt.model",
    "Network": "bptt.model",
    "Windowed": "bptt.engine",
    "audit": "bptt.trace",
    "check_gradient": "bptt.engine",
    "compare": "bptt.train",
    "evaluate": "bptt.engine",
    "explain": "bptt.train",
    "fit": "bptt.train",
    "gradient": "bptt.engine",
    "horizon": "bptt.diagnose",
    "make_task": "bptt.data",
    "predict": "bptt.engine",
    "read_series": "bptt.data",
    "read_text": "bptt.data",
    "record": "bptt.engine",
    "truncation_bias": "bptt.diagnose",
    "watch": "bptt.trace",
}
_ROOMS = (
    "cells",
    "data",
    "diagnose",
    "engine",
    "errors",
    "ledger",
    "model",
    "plot",
    "report",
    "testing",
    "trace",
    "train",
    "uses",
)

if TYPE_CHECKING:
    from bptt import diagnose, trace
    from bptt.data import make_task, read_series, read_text
    from bptt.diagnose import horizon, truncation_bias
    from bptt.engine import Checkpointed, Chunked, Full, Windowed, check_gradient, evaluate, gradient, predict, record
    from bptt.ledger import Ledger
    from bptt.model import Batch, Loss, Network
    from bptt.trace import audit, watch
    from bptt.train import compare, explain, fit

__all__ = [
    "Batch",
    "Checkpointed",
    "Chunked",
    "Full",
    "Ledger",
    "Loss",
    "Network",
    "Windowed",
    "audit",
    "check_gradient",
    "compare",
    "diagnose",
    "evaluate",
    "explain",
    "fit",
    "gradient",
    "horizon",
    "make_task",
    "predict",
    "read_series",
    "read_text",
    "record",
    "trace",
    "truncation_bias",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS and name not in _HOMES:
        return importlib.import_module(f"bptt.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'bptt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, "__version__"])

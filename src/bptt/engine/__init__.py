"""Who walks through time, and how: the reference engine and the plans."""

from bptt.engine.check import check_gradient
from bptt.engine.plan import Checkpointed, Chunked, Full, Plan, Windowed, parse_plan
from bptt.engine.reference import Pass, evaluate, gradient, predict, record

__all__ = [
    "Checkpointed",
    "Chunked",
    "Full",
    "Pass",
    "Plan",
    "Windowed",
    "check_gradient",
    "evaluate",
    "gradient",
    "parse_plan",
    "predict",
    "record",
]

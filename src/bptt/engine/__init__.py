"""Who walks through time, and how: the reference engine and the plans."""

from bptt.engine.check import check_gradient
from bptt.engine.given import Pass
from bptt.engine.passes import ENGINES, choose_engine, evaluate, gradient, predict, record, record_with, warm_up
from bptt.engine.plan import Checkpointed, Chunked, Full, Plan, Windowed, parse_plan

__all__ = [
    "ENGINES",
    "Checkpointed",
    "Chunked",
    "Full",
    "Pass",
    "Plan",
    "Windowed",
    "check_gradient",
    "choose_engine",
    "evaluate",
    "gradient",
    "parse_plan",
    "predict",
    "record",
    "record_with",
    "warm_up",
]

"""The compiled engine: the numbers of the reference, whole sequences at a time, in machine code."""

from bptt.engine.compiled.run import Run, Unfinished
from bptt.engine.compiled.walk import outputs

__all__ = ["Run", "Unfinished", "outputs"]

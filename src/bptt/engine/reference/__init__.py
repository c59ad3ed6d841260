"""The reference engine: NumPy, one Python loop over time, and the numbers that every faster engine must give."""

from bptt.engine.reference.run import Run

__all__ = ["Run"]

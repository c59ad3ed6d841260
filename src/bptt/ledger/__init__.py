"""The record: uses, totals, norms, shares, maps, save and load. Knows no cell."""

from bptt.ledger.ledger import LagProfile, Ledger
from bptt.ledger.recorder import KEEP, Recorder, delta_width
from bptt.ledger.reductions import inner, matrices, total

__all__ = ["KEEP", "LagProfile", "Ledger", "Recorder", "delta_width", "inner", "matrices", "total"]

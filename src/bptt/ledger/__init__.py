"""The record: uses, totals, norms, shares, maps, save and load. Knows no cell."""

from bptt.ledger.lags import LagProfile
from bptt.ledger.ledger import Ledger
from bptt.ledger.places import Place
from bptt.ledger.recorder import KEEP, Recorder, delta_width
from bptt.ledger.reductions import inner, matrices, total

__all__ = ["KEEP", "LagProfile", "Ledger", "Place", "Recorder", "delta_width", "inner", "matrices", "total"]

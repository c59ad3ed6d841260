"""Questions put to a ledger or a model: how far back does the gradient reach, why does it stop, what is to be done.

The room itself is called like a function: `bptt.diagnose(ledger)`, or `bptt.diagnose(network, batch, loss)`.
"""

import sys
import types
from typing import Any

from bptt.diagnose.context import Context, effective_context
from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.exponents import Exponents, exponents, sample_exponent
from bptt.diagnose.findings import Finding, Severity
from bptt.diagnose.gain import Gain, error_gain, gain
from bptt.diagnose.gates import CellPath, Gate, Gates, cell_path, gates
from bptt.diagnose.history import History
from bptt.diagnose.linear import Linearised, jacobians, linearise
from bptt.diagnose.measuring import diagnose, light
from bptt.diagnose.remedies import REMEDIES, Remedy, find_remedy
from bptt.diagnose.rules import RULES, Rule
from bptt.diagnose.sampled import measure_truncation, sample_truncation
from bptt.diagnose.spectrum import Spectrum, spectrum
from bptt.diagnose.truncation import SCHEMES, Reach, Truncation, horizon, truncation, truncation_bias
from bptt.diagnose.verdicts import SEVERITIES, at_or_above, judge


class _Room(types.ModuleType):
    """A module that can be called, since `bptt.diagnose` is both the room and what one does in it."""

    def __call__(self, subject: Any, *given: Any, **options: Any) -> Diagnosis:
        """What is wrong with a model, or a ledger of it; see `bptt.diagnose.measuring.diagnose`."""
        return diagnose(subject, *given, **options)


__all__ = [
    "REMEDIES",
    "RULES",
    "SCHEMES",
    "SEVERITIES",
    "CellPath",
    "Context",
    "Diagnosis",
    "Exponents",
    "Finding",
    "Gain",
    "Gate",
    "Gates",
    "History",
    "Linearised",
    "Reach",
    "Remedy",
    "Rule",
    "Severity",
    "Spectrum",
    "Truncation",
    "at_or_above",
    "cell_path",
    "diagnose",
    "effective_context",
    "error_gain",
    "exponents",
    "find_remedy",
    "gain",
    "gates",
    "horizon",
    "jacobians",
    "judge",
    "light",
    "linearise",
    "measure_truncation",
    "sample_exponent",
    "sample_truncation",
    "spectrum",
    "truncation",
    "truncation_bias",
]

sys.modules[__name__].__class__ = _Room

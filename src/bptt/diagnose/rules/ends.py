"""BP301 and BP302: units and gates at the ends of their range, where their derivative is next to nothing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bptt.diagnose.gates import Gate, Gates
from bptt.diagnose.rules.rule import Rule, Seen, Thresholds, name_of

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis

UNITS = ("h", "g", "n")  # what is squashed by tanh


def saturated_units(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP301."""
    for state, found in diagnosis.gates.items():
        for name, gate in found.gates.items():
            if gate.relu or diagnosis.facts.get("units") == "relu":
                yield from _dead_units(state, gate, limits)
                continue
            share = gate.low + gate.high
            if name in UNITS and share > limits["share"]:
                stuck = int(np.count_nonzero(gate.by_unit > limits["share"]))
                evidence = {"share": share, "units": len(gate.by_unit), "saturated units": stuck}
                text = f"{100 * share:.0f} % of all {name} stand beyond ± 0.95, where tanh passes less than a tenth; "
                text += f"so do {stuck} of {len(gate.by_unit)} units most of the time"
                yield Seen(name_of(state), text, evidence)


def _dead_units(state: str, gate: Gate, limits: Thresholds) -> Iterator[Seen]:
    """Of ReLU, which is silent half of the time as a rule: units that are never above 0."""
    dead = int(np.count_nonzero(gate.by_unit >= 1))
    if dead > limits["dead"] * len(gate.by_unit):
        text = f"{dead} of {len(gate.by_unit)} units of ReLU are never above 0"
        yield Seen(name_of(state), text, {"dead units": dead, "units": len(gate.by_unit)})


def saturated_gates(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP302."""
    for state, found in diagnosis.gates.items():
        shares = {name: _idle(found, name) for name in found.gates if name not in UNITS}
        name, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
        if share > limits["share"]:
            gate = found.gates[name]
            evidence = {"share": share, "low": gate.low, "high": gate.high}
            text = f"the gate is shut {100 * gate.low:.0f} % and wide open {100 * gate.high:.0f} % of the time: "
            yield Seen(f"{name_of(state)}.{name}", text + "it hardly learns any more", evidence)


def _idle(found: Gates, name: str) -> float:
    """The share of a gate's values at an end that is no memory.

    An open forget gate (of a GRU, z) keeps what is there, which is what it is for; only a shut one is meant. While it
    is open, a shut input gate keeps what is there too.
    """
    gate = found.gates[name]
    if name in ("f", "z"):
        return gate.low
    if name == "i" and "f" in found.gates:
        return gate.high + max(gate.low - found.gates["f"].high, 0.0)
    return gate.low + gate.high


# SHARE of BP301: half of all g of a good language model stand there, so three quarters are asked for.  SHARE of BP302:
# trained networks have gates that are open or shut a good part of the time (Karpathy, Johnson, Fei-Fei 2015,
# arXiv 1506.02078, figure 2); most of the time is another matter.
RULES = (
    Rule("BP301", "saturated units", "warning", "Most values of tanh stand at an end, where it passes no gradient.",
         saturated_units, {"share": 0.75, "dead": 0.5}, ("orthogonal", "clip", "gated-cell")),
    Rule("BP302", "saturated gates", "warning", "A gate stands at an end most of the time, where it does not learn.",
         saturated_gates, {"share": 0.5}, ("forget-bias", "chrono", "clip")),
)  # fmt: skip

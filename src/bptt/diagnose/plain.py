"""A diagnosis in plain values for JSON, and in a few lines for people."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.ledger import Ledger
from bptt.ledger.norms import norm


def plain(value: Any) -> Any:
    """Any value of a diagnosis in lists, dicts, strings and finite numbers; None for NaN and infinity.

    >>> plain({"a": np.array([1.0, np.nan]), "b": (np.int64(2), True)})
    {'a': [1.0, None], 'b': [2, True]}
    """
    if isinstance(value, Ledger):
        return plain_ledger(value)
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def plain_ledger(ledger: Ledger) -> dict[str, Any]:
    """The totals of a ledger: what it is of, its losses, and for each parameter and state its norms."""
    with np.errstate(all="ignore"):
        return {
            "meta": plain(ledger.meta),
            "losses": plain(ledger.losses),
            "residual": plain(ledger.residual),
            "parameters": {name: _parameter(ledger, name) for name in ledger.names},
            "states": {key.rstrip("."): plain(ledger.state_norms(key)) for key in ledger.states},
        }


def _parameter(ledger: Ledger, name: str) -> dict[str, Any]:
    out: dict[str, Any] = {
        "norm": norm(ledger.gradients[name]),
        "coherence": ledger.coherence(name),
        "norms": ledger.norms(name),
    }
    if name in ledger.maps and ledger.has_lags(name):
        out["lag profile"] = ledger.lag_profile(name)._asdict()
    return plain(out)


def plain_diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    """`Diagnosis.to_dict`."""
    out = plain(diagnosis)
    for finding, entry in zip(diagnosis.findings, out["findings"], strict=True):
        entry["page"] = finding.page
    if diagnosis.spectrum is not None:  # (n, B, r) would be most of the file
        out["spectrum"]["logs"] = plain(diagnosis.spectrum.logs.mean(1))
    return out


def lines(diagnosis: Diagnosis) -> list[str]:
    """What it says, the verdicts first."""
    facts = diagnosis.facts
    sizes = ", ".join(f"{key}={facts[key]}" for key in ("T", "B") if facts.get(key) is not None)
    out = [f"{facts.get('network', diagnosis.source)}{f' ({sizes})' if sizes else ''}"]
    for one in diagnosis.findings:
        out.append(f"{one.severity}: {one}")
        out += [f"  try {', '.join(one.remedies)}"] if one.remedies else []
    out += [] if diagnosis.findings else ["no finding"]
    measured = _measured(diagnosis)
    out += [f"measured: {'; '.join(measured)}"] if measured else []
    return out + [f"not measured: {note}" for note in diagnosis.notes]


def _measured(diagnosis: Diagnosis) -> list[str]:
    """The few numbers that say most."""
    out = []
    far = [one for schemes in diagnosis.truncation.values() for one in schemes if one.scheme == "windowed"]
    reaches = {one.parameter: one.horizon() for one in far}
    if reaches:
        name, reach = max(reaches.items(), key=lambda item: item[1].steps)
        within = "" if reach.low == reach.high else f" ({reach.low} to {reach.high})"
        out.append(f"horizon {reach.steps}{within} steps ({name})")
    for state, gain in diagnosis.gains.items():
        name = state.rstrip(".")
        out.append(f"{name} × {gain.factor:.3g} per step back" if len(gain.lags) else f"no gradient arrives at {name}")
    exponents = diagnosis.exponents
    if exponents is not None and np.isfinite(exponents.largest):
        out.append(f"largest exponent {exponents.largest:.3g} ± {exponents.largest_error:.1g}")
    if diagnosis.context is not None:
        steps = diagnosis.context.steps
        out.append(f"effective context {steps} step{'s' if steps > 1 else ''}")
    if diagnosis.ledger is not None and math.isfinite(diagnosis.ledger.residual):
        out.append(f"residual {diagnosis.ledger.residual:.1e}")
    return out

"""What a watch streams: a ledger as one small record, the verdicts drawn from its numbers, and its few panels."""

import math
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from bptt.errors import NotKeptError
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.typing import Array

REACH = 0.01  # of the largest: what is below counts as gone
LAST = 0.1  # of the uses: those whose share is told
SHORT = 0.25  # of the steps: a gradient that reaches no further has vanished
GROWN = 1000.0  # times as large at the first step as at the last: it has exploded
DEAD = 0.5  # of the uses: so many without any gradient are worth a word
ONE = 0.5  # of Σ ‖dW_t‖: a use with more dominates
FEW = 4  # uses: with fewer, one may well dominate, and nothing reaches far
INCOMPLETE = 1e-3  # relative: uses that add up no better are not all there are
LAYERS = 4  # that have panels of their own

Profile = tuple[list[int], list[float]]


def record_of(ledger: Ledger, step: int, forwards: int = 1) -> dict[str, Any]:
    """One line for a file, plain numbers only; what is not known is None.

    step, time (s since 1970), forwards of the model, rank among distributed processes, loss, residual of the ledger,
    parameters, states, verdicts. docs/watch.md says what each number means.
    """
    record: dict[str, Any] = {"step": step, "time": time.time(), "forwards": forwards, "rank": _rank()}
    record["loss"] = None if math.isnan(ledger.loss) and _is_finite(ledger) else ledger.loss
    record["residual"] = float(ledger.residual)
    record["parameters"] = {name: _parameter(ledger, name) for name in ledger.names}
    record["states"] = {prefix.rstrip("."): _state(ledger.state_norms(prefix)) for prefix in ledger.states}
    if not record["states"]:
        for name, numbers in record["parameters"].items():
            numbers["lags"] = lags(_walked(ledger, name))
    record["verdicts"] = verdicts(record)
    return record


def _is_finite(ledger: Ledger) -> bool:
    return all(np.isfinite(gradient).all() for gradient in ledger.gradients.values())


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _walked(ledger: Ledger, name: str) -> Array:
    """‖dW_t‖ in the order in which the state walks."""
    norms = ledger.norms(name).astype(np.float64)
    return norms[::-1] if ledger.place(name).reverse else norms


def _parameter(ledger: Ledger, name: str) -> dict[str, Any]:
    norms = ledger.norms(name).astype(np.float64)
    total, largest = float(norms.sum()), int(norms.argmax())
    numbers = {
        "norm": float(norm(ledger.gradient(name))), "coherence": ledger.coherence(name), "uses": len(norms),
        "first": float(norms[0]), "last": float(norms[-1]), "mean": float(norms.mean()),
        "largest": float(norms[largest]) / total if total > 0 else 0.0, "largest_at": largest + 1,
        "dead": int((norms == 0).sum()), "reach": _reach(_walked(ledger, name)),
    }  # fmt: skip
    try:
        shares = ledger.shares(name)
    except NotKeptError:
        return numbers
    shares = shares[::-1] if ledger.place(name).reverse else shares
    return numbers | {"last_share": float(shares[-max(1, round(LAST * len(shares))) :].sum())}


def _reach(norms: Array) -> int:
    """How many of them, counted from the last, it takes to hold all that are not gone."""
    with_some = np.flatnonzero(norms >= REACH * norms.max()) if norms.max() > 0 else []
    return len(norms) - int(with_some[0]) if len(with_some) else 0


def _state(norms: Array) -> dict[str, Any]:
    """norms: (T + 1,) ‖∂J/∂s_t‖ as it walks."""
    gain = _gain(norms)
    return {
        "steps": len(norms) - 1, "gain": gain,
        "half_life": math.log(0.5) / math.log(gain) if gain is not None and 0 < gain < 1 else None,
        "reach": max(_reach(norms.astype(np.float64)) - 1, 0), "lags": lags(norms),
    }  # fmt: skip


def _gain(norms: Array) -> float | None:
    """Geometric mean of ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖ over the steps where the dtype has digits for it."""
    digits = np.finfo(norms.dtype)
    steps = np.flatnonzero(norms >= digits.tiny / digits.eps)
    if len(steps) < 2:
        return None
    logs = np.log(norms[steps].astype(np.float64))
    return float(np.exp((logs[0] - logs[-1]) / (steps[-1] - steps[0])))


def lags(norms: Array) -> dict[str, list[Any]]:
    """Sums of norms by how far they stand from the last: bucket i from edges[i] to below edges[i + 1]; 0, 1, 2–3, …

    >>> lags(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    {'edges': [0, 1, 2, 4, 8], 'sizes': [5.0, 4.0, 5.0, 1.0]}
    """
    far = np.asarray(norms, np.float64)[::-1]
    edges = [0, 1]
    while edges[-1] < len(far):
        edges.append(2 * edges[-1])
    sizes = [float(far[low:high].sum()) for low, high in pairwise(edges)]
    return {"edges": edges, "sizes": sizes}


# ---- verdicts --------------------------------------------------------------------------------------------------------


def verdicts(record: dict[str, Any]) -> list[str]:
    """What the numbers of a record say in words; empty where there is nothing to say."""
    parameters, states = record["parameters"], record["states"]
    found = [f"not finite: {name}" for name, p in parameters.items() if not math.isfinite(p["norm"])]
    if found:
        return found
    for name, s in states.items():
        found += _of_state(name, s)
    for name, p in parameters.items():
        found += _of_parameter(name, p, bool(states))
    found += _of_one_step(parameters)
    if record["residual"] > INCOMPLETE:
        found.append(f"incomplete: the uses add up to the gradient only within {record['residual']:.1e}")
    return found


def _of_state(name: str, s: dict[str, Any]) -> list[str]:
    steps, gain = s["steps"], s["gain"]
    if steps < FEW or gain is None:
        return []
    if gain < 1 and s["reach"] <= SHORT * steps:
        return [f"vanishing: {name} reaches {s['reach']} of {steps} steps back, × {gain:.3g} with each"]
    if steps * math.log(gain) >= math.log(GROWN):
        return [f"exploding: {name} grows × {gain:.3g} with each of {steps} steps back"]
    return []


def _of_parameter(name: str, p: dict[str, Any], has_states: bool) -> list[str]:
    uses, found = p["uses"], []
    if p["dead"] >= DEAD * uses:
        found.append(f"dead use: {p['dead']} of {uses} uses of {name} get no gradient")
    if not has_states and uses >= FEW and 0 < p["reach"] <= SHORT * uses:
        found.append(f"vanishing: {name} hears of its last {p['reach']} of {uses} uses only")
    return found


def _of_one_step(parameters: dict[str, dict[str, Any]]) -> list[str]:
    """The parameter of which a single use has the most: where one step dominates it does so in several."""
    name, p = max(parameters.items(), key=lambda item: item[1]["largest"] if item[1]["uses"] >= FEW else 0.0)
    if p["uses"] < FEW or p["largest"] < ONE:
        return []
    return [f"one step dominates: use {p['largest_at']} of {p['uses']} has {p['largest']:.0%} of {name}"]


# ---- for those who draw ----------------------------------------------------------------------------------------------


def panels(record: dict[str, Any]) -> dict[str, float]:
    """At most twelve numbers to be drawn over the steps; what is not known is left out."""
    states, parameters = record["states"], record["parameters"]
    drawn: dict[str, Any] = {key: record[key] for key in ("loss", "residual")}
    drawn |= {"verdicts": len(record["verdicts"]), "coherence": min(p["coherence"] for p in parameters.values())}
    if len(states) > LAYERS:
        for key in ("gain", "reach"):
            known = [s[key] for s in states.values() if s[key] is not None]
            drawn |= {f"{key} lowest": min(known), f"{key} highest": max(known)} if known else {}
    elif states:
        drawn |= {f"{name}/{key}": s[key] for name, s in states.items() for key in ("gain", "reach")}
    else:
        first = list(parameters.items())[:LAYERS]
        drawn |= {f"{name}/{key}": p[key] for name, p in first for key in ("norm", "reach")}
    return {f"bptt/{name}": value for name, value in drawn.items() if value is not None}


def profiles(record: dict[str, Any]) -> dict[str, Profile]:
    """How far back the gradient comes from: edges and sizes, for each state; of a model without, for few parameters."""
    of = record["states"] or dict(list(record["parameters"].items())[:LAYERS])
    return {f"bptt/{name}/lag": (one["lags"]["edges"], one["lags"]["sizes"]) for name, one in of.items()}

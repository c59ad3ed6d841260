"""What a watch streams: a ledger as one small record, the verdicts drawn from its numbers, and its few panels."""

import math
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from bptt.diagnose import judge, light
from bptt.errors import NotKeptError
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.typing import Array

REACH = 0.01  # of the largest: what is below counts as gone
LAST = 0.1  # of the uses: those whose share is told
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
    record["verdicts"] = verdicts(ledger)
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


def verdicts(ledger: Ledger) -> list[str]:
    """What the rules of `bptt.diagnose` say of a ledger alone, in lines; empty where there is nothing to say."""
    return [str(finding) for finding in judge(light(ledger))]


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

"""Remedies: what may be changed of a training so that its gradient reaches further, and when it makes sense.

A remedy is a proposal. Whether it helped is measured (`bptt.train.try_remedies`), on the same data from the same seed.
What it changes is a plain mapping of fields of a training's configuration, as is what it is told of it (`Settings`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.findings import Finding
from bptt.engine import Chunked, Windowed, parse_plan
from bptt.errors import unknown
from bptt.ledger.norms import norm
from bptt.typing import Array

Settings = Mapping[str, Any]  # the fields of a `bptt.train.Config`, and "inputs" and "outputs", D and O of the network
Changes = dict[str, Any]

SMALL_RATE = 1e-3  # largest learning rate of Adam at which units without a bound stay finite
FORGET_BIAS = 3.0  # σ(3) = 0.95: half of the memory is left after 13.5 steps; after 2.2 with the usual 1
OMEGA = 0.5  # weight of Ω
FLOSS = 100  # updates of gradient flossing
OFTEN = 0.5  # of the steps: clipping at most of them is not clipping but a smaller learning rate


@dataclass(frozen=True)
class Remedy:
    """One remedy.

    name: as findings name it.  summary: what it does, in one line.  source: where it comes from.
    needs: what must be so for it to apply, in words.
    applies: settings → whether it makes sense for such a training.
    changes: settings, diagnosis → fields to change; empty where there is nothing to change after all.
    """

    name: str
    summary: str
    source: str
    needs: str
    applies: Callable[[Settings], bool]
    changes: Callable[[Settings, Diagnosis], Changes]


def find_remedy(name: str) -> Remedy:
    """The remedy of that name.

    Raises:
        UnknownName: there is none.

    >>> find_remedy("chrono").changes({"steps": 100}, None)
    {'chrono': 100}
    """
    if name not in REMEDIES:
        raise unknown("remedy", name, REMEDIES)
    return REMEDIES[name]


def propose(
    settings: Settings, diagnosis: Diagnosis, names: list[str] | None = None, most: int = 4
) -> dict[str, Changes]:
    """Name → what to change: the remedies that the findings name, each finding's first before any finding's second.

    Args:
        settings: of the training.
        diagnosis: with its findings, the gravest first.
        names: these instead, all of them, also where one does not apply (its changes are then empty).
        most: at most so many, where they come from the findings.

    Raises:
        UnknownName: a remedy that there is not.
    """
    wanted = _named(diagnosis) if names is None else list(dict.fromkeys(names))
    out: dict[str, Changes] = {}
    for remedy in map(find_remedy, wanted):
        changes = remedy.changes(settings, diagnosis) if remedy.applies(settings) else {}
        changes = {name: value for name, value in changes.items() if settings.get(name) != value}
        if names is not None or (changes and len(out) < most):
            out[remedy.name] = changes
    return out


def only_fitting(settings: Settings, diagnosis: Diagnosis) -> list[Finding]:
    """The findings without remedies that would change nothing of this training: it starts orthogonal already, say."""
    fits = [propose(settings, diagnosis, list(finding.remedies)) for finding in diagnosis.findings]
    return [
        replace(finding, remedies=tuple(name for name, changes in some.items() if changes))
        for finding, some in zip(diagnosis.findings, fits, strict=True)
    ]


def _named(diagnosis: Diagnosis) -> list[str]:
    lists = [finding.remedies for finding in diagnosis.findings]
    longest = max(map(len, lists), default=0)
    return list(dict.fromkeys(names[i] for i in range(longest) for names in lists if i < len(names)))


# ---- clip ---------------------------------------------------------------------------------------------------------


def _clip(settings: Settings, diagnosis: Diagnosis) -> Changes:
    """Half of the gradients are clipped; where most are already, only a tenth is to be."""
    norms = _gradient_norms(diagnosis)
    if not len(norms):
        return {}
    history = diagnosis.history
    often = history is not None and len(history.clipped) > 0 and history.clipped.mean() > OFTEN
    limit = float(f"{np.quantile(norms, 0.9 if often else 0.5):.2g}")  # more digits would pretend to matter
    return {"clip_norm": limit, "clip_value": None} if limit > 0 else {}


def _gradient_norms(diagnosis: Diagnosis) -> Array:
    """Of the whole gradient, before clipping: of every iteration that is known, else of the examined batch."""
    history = diagnosis.history
    if history is not None and len(history.norms):
        return history.norms[np.isfinite(history.norms)]
    if diagnosis.ledger is None:
        return np.empty(0)
    total = norm(np.array([norm(dW) for dW in diagnosis.ledger.gradients.values()]))
    return np.array([total] if np.isfinite(total) else [])


# ---- starts -------------------------------------------------------------------------------------------------------


def _identity(settings: Settings, diagnosis: Diagnosis) -> Changes:
    changes: Changes = {"init": "identity", "options": {**settings.get("options", {}), "nonlinearity": "relu"}}
    if settings.get("optimiser", "adam") == "adam":
        changes["learning_rate"] = min(settings.get("learning_rate", SMALL_RATE), SMALL_RATE)
    return changes


def _relu(settings: Settings) -> bool:
    return settings.get("options", {}).get("nonlinearity") == "relu"


def _gated(settings: Settings) -> bool:
    return settings.get("cell") in ("lstm", "gru")


def _has_chrono(settings: Settings) -> bool:
    return settings.get("chrono") is not None


# ---- cells --------------------------------------------------------------------------------------------------------


def _gated_cell(settings: Settings, diagnosis: Diagnosis) -> Changes:
    """An LSTM; for a task its memory lasts from the start, since with a forget bias of 1 half is gone in 2.2 steps.

    A window of a stream says nothing of the lags in it, and time scales that long only make it learn later.
    """
    options = {key: value for key, value in settings.get("options", {}).items() if key != "nonlinearity"}
    init = "orthogonal" if settings.get("init") == "identity" else settings.get("init", "orthogonal")
    lasting = {"chrono": settings["steps"]} if settings.get("kind") == "task" and settings["steps"] >= 3 else {}
    return {"cell": "lstm", "hidden": equal_size(settings), "options": options, "init": init, **lasting}


def equal_size(settings: Settings) -> int:
    """H of an LSTM with about as many parameters as the RNN of these settings; at least 1.

    >>> equal_size({"hidden": 64, "layers": 1, "inputs": 2, "outputs": 1})
    31
    """
    wanted = _parameters(settings, settings["hidden"], 1)
    sizes = range(1, settings["hidden"] + 1)
    return min(sizes, key=lambda H: abs(_parameters(settings, H, 4) - wanted))


def _parameters(settings: Settings, H: int, gates: int) -> int:
    ways = 2 if settings.get("bidirectional") else 1
    inputs, outputs = settings.get("inputs", H), settings.get("outputs") or 0
    total = outputs * (ways * H + 1)
    for layer in range(settings.get("layers", 1)):
        width = inputs if layer == 0 else ways * H
        total += ways * gates * H * (width + H + 1)
    return total


# ---- how far back -------------------------------------------------------------------------------------------------


def _larger_K(settings: Settings, diagnosis: Diagnosis) -> Changes:
    """Twice the K, or what the measured horizon asks for if that is more; of a stream that is walked whole, its steps.

    A stream's window twice as long has half as many sequences, so that every update sees as much as before.
    """
    plan, T = parse_plan(settings["plan"]), settings["steps"]
    if isinstance(plan, Chunked | Windowed):
        K = max(2 * plan.K, _horizon(diagnosis))
        return {"plan": "full" if K >= T else f"{type(plan).__name__.lower()}:{K}"}
    return {"steps": 2 * T, "batch": max(1, settings["batch"] // 2)}


def _horizon(diagnosis: Diagnosis) -> int:
    """The farthest reach of any recurrent weight; 0 where it was not measured."""
    reaches = [
        part.horizon().steps
        for name, parts in diagnosis.truncation.items() if name.endswith("W_hh")
        for part in parts if part.scheme == "windowed"
    ]  # fmt: skip
    return max(reaches, default=0)


def _can_be_larger(settings: Settings) -> bool:
    plan = parse_plan(settings.get("plan", "full"))
    cut = isinstance(plan, Chunked | Windowed) and settings["steps"] > plan.K
    return cut or (settings.get("kind") != "task" and not isinstance(plan, Chunked | Windowed))


REMEDIES: dict[str, Remedy] = {
    remedy.name: remedy
    for remedy in (
        Remedy(
            "clip", "limit the gradient's norm at a quantile of the norms that were measured",
            "Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063", "a measured norm",
            lambda s: True, _clip,
        ),
        Remedy(
            "orthogonal", "start with orthogonal recurrent weights", "Saxe et al. 2013, arXiv 1312.6120",
            "another start than the orthogonal one",
            lambda s: s.get("init") != "orthogonal", lambda s, d: {"init": "orthogonal"},
        ),
        Remedy(
            "identity", "IRNN: start with the identity, and relu units",
            "Le, Jaitly, Hinton 2015, arXiv 1504.00941", "an RNN that is not an IRNN yet",
            lambda s: s.get("cell") == "rnn" and not (_relu(s) and s.get("init") == "identity"), _identity,
        ),
        Remedy(
            "chrono", "spread the gates' time scales over all lags up to T",
            "Tallec & Ollivier 2018, arXiv 1804.11188", "gates, without the chrono start yet, and 3 steps or more",
            lambda s: _gated(s) and not _has_chrono(s) and s.get("steps", 0) >= 3,
            lambda s, d: {"chrono": s["steps"]},
        ),
        Remedy(
            "forget-bias", "start with forget gates that are nearly open",
            "Gers et al. 2000; Jozefowicz et al. 2015", f"an LSTM whose forget bias is below {FORGET_BIAS:g}",
            lambda s: s.get("cell") == "lstm" and not _has_chrono(s) and s.get("forget_bias", 1.0) < FORGET_BIAS,
            lambda s, d: {"forget_bias": FORGET_BIAS},
        ),
        Remedy(
            "gated-cell", "an LSTM with about as many parameters; for a task with the chrono start",
            "Hochreiter & Schmidhuber 1997; Tallec & Ollivier 2018, arXiv 1804.11188", "an RNN",
            lambda s: s.get("cell") == "rnn", _gated_cell,
        ),
        Remedy(
            "larger-K", "walk back further before the gradient is cut",
            "Williams & Peng 1990; Aicher, Foti, Fox 2019, arXiv 1905.07473",
            "a plan that cuts, or a stream",
            _can_be_larger, _larger_K,
        ),
        Remedy(
            "omega", "a regulariser that asks every step back to keep the error's size",
            "Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, equations 9 and 10", "no regulariser yet",
            lambda s: not s.get("omega"), lambda s, d: {"omega": OMEGA},
        ),
        Remedy(
            "floss", "gradient flossing: move the leading Lyapunov exponents to 0 before training",
            "Engelken 2023, arXiv 2312.17306", "no flossing yet",
            lambda s: not s.get("floss"), lambda s, d: {"floss": FLOSS},
        ),
    )
}  # fmt: skip

__all__ = ["REMEDIES", "Changes", "Remedy", "Settings", "equal_size", "find_remedy", "propose"]

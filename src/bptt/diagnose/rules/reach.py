"""BP101 and BP102: what the state carries back dies out, or grows without bound."""

from collections.abc import Iterator
from math import exp, inf, log
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bptt.diagnose.gain import Gain
from bptt.diagnose.rules.rule import Rule, Seen, Thresholds, name_of
from bptt.diagnose.truncation import Reach
from bptt.ledger import Ledger
from bptt.typing import Array

if TYPE_CHECKING:
    from bptt.diagnose.diagnosis import Diagnosis

CLIPPED = 0.5  # of the last updates: so many, and growth counts from GROWTH_CLIPPED on
GROWTH_CLIPPED = 10.0


class Fall(NamedTuple):
    """reach: the last lag at which no less than `left` of ∂L/∂s is left.  of: the steps there are.  each: per step."""

    reach: int
    of: int
    each: float


def fall(gain: Gain, left: float) -> Fall:
    """How far back a part `left` of ∂L_k/∂s_k comes, by the mean of the logarithms over losses."""
    above = np.flatnonzero(gain.logs >= log(left))
    reach = int(gain.lags[above[-1]]) if len(above) else 0
    return Fall(reach, max(len(gain.per_step), int(gain.lags[-1]) if len(gain.lags) else 0), gain.factor)


def growth(gain: Gain) -> float:
    """The largest log (‖∂L/∂s_{k−lag}‖ / ‖∂L/∂s_k‖).

    Of a whole loss, losses that add up on the way back are taken off, and what comes at one step is no growth: so the
    slope has to say it too.
    """
    if not len(gain.logs) or not gain.slope > 0:
        return -inf
    if gain.losses:
        return float(gain.logs.max())
    most = int(gain.lags[gain.logs.argmax()])
    return min(float(gain.logs.max()), gain.slope * most) - log(1 + most)


def vanishing(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP101."""
    for state, gain in diagnosis.gains.items():
        found = fall(gain, limits["left"])
        if found.of < limits["steps"] or not gain.slope < 0 or found.reach > limits["share"] * found.of:
            if not gain.losses and diagnosis.ledger is not None:
                yield from _by_loss(diagnosis.ledger, state, limits)
            continue
        horizon = _horizon(diagnosis, state)
        if horizon is not None and horizon.low > limits["share"] * found.of:
            continue  # little of each loss comes so far, and yet dW is made of it
        evidence: dict[str, Any] = {"last lag": found.reach, "steps": found.of, "per step": found.each}
        evidence |= {"half-life": gain.half_life, "slope": gain.slope, "slope error": gain.error}
        evidence |= {"losses walked back": gain.losses} | ({} if horizon is None else {"horizon": horizon.steps})
        of = "∂L/∂s" if gain.losses else "∂J/∂s"
        yield Seen(name_of(state), f"{of} falls below {100 * limits['left']:.3g} % of its size within "
                   f"{found.reach + 1} of {found.of} steps back, × {found.each:.3g} with each", evidence)  # fmt: skip
    if not diagnosis.gains and diagnosis.ledger is not None and not diagnosis.ledger.states:
        uses = list(_by_use(diagnosis.ledger, limits))
        yield from uses or _by_loss(diagnosis.ledger, None, limits)


def _horizon(diagnosis: "Diagnosis", state: str) -> Reach | None:
    """The farthest horizon of the parameters that work on a state, None where it was not measured."""
    ledger, found = diagnosis.ledger, []
    for name, schemes in diagnosis.truncation.items():
        if ledger is not None and name in ledger.names and ledger.place(name).state == state:
            found += [one.horizon() for one in schemes if one.scheme == "windowed"]
    return max(found, default=None)


def _by_loss(ledger: Ledger, state: str | None, limits: Thresholds) -> Iterator[Seen]:
    """Of single losses where ‖C[k, t]‖ is known, which no later loss adds to; of the parameter they reach farthest.

    state: of the parameters that are looked at; None for all.
    """
    of_state = [name for name in ledger.names if state in (None, ledger.place(name).state)]
    mapped = [name for name in of_state if (name in ledger.maps or name in ledger.loss_uses) and ledger.has_lags(name)]
    found = {name: _fall_of_map(ledger, name, limits["left"]) for name in mapped}
    known = {name: one for name, one in found.items() if one is not None and one.of >= limits["steps"]}
    if not known:
        return
    name, far = max(known.items(), key=lambda item: item[1].reach / item[1].of)
    if far.each < 1 and far.reach <= limits["share"] * far.of:
        evidence = {"last lag": far.reach, "steps": far.of, "per step": far.each}
        yield Seen(name if state is None else name_of(state), f"‖C[k, t]‖ of {name} falls below "
                   f"{100 * limits['left']:.3g} % of ‖C[k, k]‖ within {far.reach + 1} of {far.of} steps back, "
                   f"× {far.each:.3g} with each", evidence)  # fmt: skip


def _fall_of_map(ledger: Ledger, name: str, left: float) -> Fall | None:
    """By the mean of the logarithms over losses; None where nothing lies off the diagonal, as of a readout."""
    lags, table = ledger.lags(name), ledger.map_by_lag(name).astype(np.float64)
    table = table[table[:, lags == 0][:, 0] > 0][:, lags >= 0]
    known = table > 0
    if not known[:, 1:].any():
        return None
    logs = np.log(np.where(known, table, 1)) - np.log(table[:, :1])
    there = np.flatnonzero(known.any(0))
    means = np.where(known, logs, 0).sum(0)[there] / known.sum(0)[there]
    slope = np.polyfit(there, means, 1)[0]
    return Fall(int(there[means >= log(left)][-1]), len(lags[lags >= 0]), exp(min(slope, 700.0)))


def _by_use(ledger: Ledger, limits: Thresholds) -> Iterator[Seen]:
    """Of a model whose states nobody knows: ‖dW_t‖ of the parameter that hears from farthest back.

    A readout hears of the steps with a loss and of no other, exactly: it says nothing of what a state carries.
    """
    found = {name: _reach(ledger, name, limits["left"]) for name in ledger.names}
    heard = {name: one for name, one in found.items() if one is not None and one.of >= limits["steps"]}
    if not heard:
        return
    name, far = max(heard.items(), key=lambda item: item[1].reach / item[1].of)
    if far.reach <= limits["share"] * far.of:
        evidence = {"uses heard": far.reach, "steps": far.of, "per step": far.each}
        yield Seen(name, f"per use: ‖dW_t‖ falls below {100 * limits['left']:.3g} % of its largest within "
                   f"{far.reach} of {far.of} uses, counted from the last", evidence)  # fmt: skip


def _reach(ledger: Ledger, name: str, left: float) -> Fall | None:
    """How many uses, counted from the last, hold all with a part `left` of the largest; None for a readout."""
    norms = walked(ledger, name)
    if not norms.max(initial=0) > 0:
        return None
    loud, some = np.flatnonzero(norms >= left * norms.max()), np.flatnonzero(norms > 0)
    reach, heard = len(norms) - int(loud[0]), len(norms) - int(some[0])
    if heard < 2 * reach and reach < len(norms):  # no decay: it ends all at once
        return None
    each = (norms[some[0]] / norms[loud[-1]]) ** (1 / max(loud[-1] - some[0], 1))
    return Fall(reach, len(norms), float(each))


def walked(ledger: Ledger, name: str) -> Array:
    """‖dW_t‖ (T,) in the order in which the state walks."""
    norms = ledger.norms(name).astype(np.float64)
    return norms[::-1] if ledger.place(name).reverse else norms


def exploding(diagnosis: "Diagnosis", limits: Thresholds) -> Iterator[Seen]:
    """BP102."""
    history = diagnosis.history
    clipped = 0.0 if history is None or not len(history.clipped) else float(_last_half(history.clipped).mean())
    limit = min(limits["growth"], GROWTH_CLIPPED) if clipped > CLIPPED else limits["growth"]
    if not diagnosis.gains and diagnosis.ledger is not None and not diagnosis.ledger.states:
        yield from _growing_uses(diagnosis.ledger, limit, limits)
    for state, gain in diagnosis.gains.items():
        times = growth(gain)
        if len(gain.per_step) < limits["steps"] or times < log(limit):
            continue
        evidence: dict[str, Any] = {"growth": exp(min(times, 700.0)), "log growth": times, "per step": gain.factor}
        evidence |= {"steps": len(gain.per_step), "slope": gain.slope, "slope error": gain.error, "clipped": clipped}
        also = f", and {100 * clipped:.0f} % of the last updates were clipped" if clipped > CLIPPED else ""
        yield Seen(name_of(state), f"{'∂L/∂s' if gain.losses else '∂J/∂s'} grows × {power(times)} over "
                   f"{len(gain.per_step)} steps back, × {gain.factor:.3g} with each{also}", evidence)  # fmt: skip


def _growing_uses(ledger: Ledger, limit: float, limits: Thresholds) -> Iterator[Seen]:
    """Of a model whose states nobody knows: ‖dW_t‖ of its biases, which is ‖δ_t‖ and has no input in it."""
    found: dict[str, tuple[float, float, int]] = {}
    for name in ledger.names:
        norms = walked(ledger, name)[::-1]
        some = np.flatnonzero((norms > 0) & np.isfinite(norms))
        if ledger.gradients[name].ndim == 1 and len(some) >= limits["steps"]:
            lags, logs = some - some[0], np.log(norms[some]) - np.log(norms[some[0]])
            slope, most = float(np.polyfit(lags, logs, 1)[0]), int(lags[logs.argmax()])
            found[name] = min(float(logs.max()), slope * most) - log(1 + most), slope, len(norms)
    name, (times, slope, steps) = max(found.items(), key=lambda item: item[1][0], default=("", (-inf, 0.0, 0)))
    if times >= log(limit):
        evidence = {"growth": exp(min(times, 700.0)), "log growth": times, "per step": exp(slope), "steps": steps}
        yield Seen(name, f"per use: ‖dW_t‖ grows × {power(times)} over {steps} uses back, × {exp(slope):.3g} with each",
                   evidence)  # fmt: skip


def _last_half(values: Array) -> Array:
    return values[len(values) // 2 :]


def power(log_: float) -> str:
    """e to this, in digits that fit any size.

    >>> power(7.0), power(3000.0)
    ('1.1e+03', '1e+1303')
    """
    return f"{exp(log_):.2g}" if log_ < 700 else f"1e+{log_ / log(10):.0f}"


# LEFT: 1 % is the tolerance of the horizon too.  SHARE: what reaches three quarters of the steps and more with less
# than that is not learnt from.  STEPS: in fewer, nothing can be far.  GROWTH: a thousandfold is past what clipping or a
# learning rate evens out.
RULES = (
    Rule("BP101", "vanishing", "warning", "What the state carries back dies out in a small part of the steps.",
         vanishing, {"left": 0.01, "share": 0.25, "steps": 8},
         ("gated-cell", "chrono", "forget-bias", "orthogonal", "identity", "omega", "floss")),
    Rule("BP102", "exploding", "warning", "What the state carries back grows a thousandfold or more.",
         exploding, {"growth": 1000.0, "steps": 8}, ("clip", "orthogonal", "omega", "floss", "gated-cell")),
)  # fmt: skip

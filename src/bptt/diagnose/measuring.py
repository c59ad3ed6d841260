"""Everything at once: what can be measured of a ledger, or of a network on a batch, and the verdicts on it.

What cannot be had is a note with its reason, never an exception: a diagnosis of a model that is ill must not die of it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bptt.cells import CELLS
from bptt.diagnose.context import effective_context
from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.exponents import exponents
from bptt.diagnose.gain import error_gain, gain
from bptt.diagnose.gates import cell_path, gates
from bptt.diagnose.history import History
from bptt.diagnose.rules import cell_of_ledger
from bptt.diagnose.sampled import measure_truncation
from bptt.diagnose.spectrum import spectrum
from bptt.diagnose.truncation import SCHEMES, is_whole, truncation
from bptt.diagnose.verdicts import Names, chosen, judge
from bptt.engine import Chunked, Plan, Windowed, predict, record
from bptt.engine.plan import as_plan
from bptt.errors import BpttError, InputError, NotFiniteError, NotKeptError
from bptt.ledger import Ledger, delta_width
from bptt.model import Batch, Loss, Network, States
from bptt.typing import Array
from bptt.version import VERSION

MAP_STEPS = 256  # up to so many steps, ‖C[k, t]‖ is measured
FEWEST = 4  # losses of a sample: of fewer nobody can say how far off it is
FULL = 1 << 26  # bytes up to which the contributions themselves are kept

Progress = Callable[[str], None]


def diagnose(
    subject: Any, batch: Batch | None = None, loss: Loss | None = None, *, plan: Plan | str | None = None,
    states: States | None = None, select: Names = None, ignore: Names = None,
    thresholds: Mapping[str, float] | None = None, samples: int = 32, seed: int = 0, source: str | None = None,
    facts: Mapping[str, Any] | None = None, history: History | None = None, engine: str = "auto", quick: bool = False,
    progress: Progress | None = None,
) -> Diagnosis:  # fmt: skip
    """How far the gradient reaches, why it stops, and what is wrong, of a ledger or of a network on a batch.

    A network is measured under the full gradient, whatever the plan of its training: what a plan cuts off can only be
    known from what there is. A ledger can say less: what needs other passes is left out.

    Args:
        subject: a `Ledger`, or a `Network`.
        batch, loss: that the network is examined on.
        plan: of the training, or its name; it is held against what it cuts off (BP104, BP105).
        states: initial states; zeros by default.
        select, ignore, thresholds: which rules, and their limits, as `judge`.
        samples: losses that are walked back one by one, where not all can be.
        seed: of what is drawn at random; the same seed gives the same numbers.
        source: what the user calls it.
        facts: more of them.
        history: of the run that it comes from.
        engine: as `bptt.record`.
        quick: leave out what takes longest: the spectrum, the cell paths, the effective context, and, where no plan
            cuts, the truncation.
        progress: called with the name of each measurement before it is made.

    Raises:
        InputError: neither a ledger nor a network, or a network without batch and loss; ShapeError, UnknownName and
            other InputErrors for a batch, a plan, a rule or a threshold that does not fit. What is not finite is a
            finding (BP501), and not an error.

    >>> import bptt
    >>> found = bptt.diagnose(bptt.explain("the cat sat down"))
    >>> found.findings, found.exit_code()
    ([], 0)
    """
    _check_drawn(samples, seed)  # what is misspelt is said before anything is measured
    chosen(select, ignore)
    begin = time.perf_counter()
    bench = _Bench(states, samples, seed, engine, quick, progress or (lambda what: None))
    judge(Diagnosis("", {}), thresholds=thresholds)
    if isinstance(subject, Ledger):
        found = bench.of_ledger(subject)
    elif isinstance(subject, Network):
        if batch is None or loss is None:
            do = "Say bptt.diagnose(network, batch, loss)."
            raise InputError("diagnosis of a network", got="no batch or no loss", expected="both", do=do)
        found = bench.of_network(subject, batch, loss, as_plan(plan))
    else:
        raise InputError("diagnosis", got=type(subject).__name__, expected="a Ledger, or a Network with batch and loss")
    keys = ("source", "network") if isinstance(subject, Ledger) else ("network",)  # the latter's source is this program
    name = source or next((found.facts[key] for key in keys if found.facts.get(key)), "a ledger")
    said = "" if plan is None else repr(as_plan(plan))
    found = replace(found, source=str(name), facts=found.facts | dict(facts or {}), history=history, plan=said)
    findings = judge(found, select=select, ignore=ignore, thresholds=thresholds)
    return replace(found, findings=findings, seconds=time.perf_counter() - begin)


def _check_drawn(samples: int, seed: int) -> None:
    for name, value, least in (("samples", samples, FEWEST), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(name, got=value, expected=f"a whole number of at least {least}")


def light(ledger: Ledger) -> Diagnosis:
    """What a ledger says at once: the gains of its states. For those who look often (`bptt.watch`)."""
    return _Bench().of_ledger(ledger, gains_only=True)


class _Bench:
    """Makes the measurements one after the other, and notes those that cannot be made."""

    def __init__(
        self, states: States | None = None, samples: int = 32, seed: int = 0, engine: str = "auto",
        quick: bool = False, progress: Progress = lambda what: None,
    ):  # fmt: skip
        self.states, self.samples, self.seed, self.engine = states, samples, seed, engine
        self.quick, self.progress = quick, progress
        self.notes: list[str] = []

    def tried(self, what: str, measure: Callable[[], Any], otherwise: Any = None) -> Any:
        """What a measurement gives, or `otherwise` and a note."""
        self.progress(what)
        try:
            with np.errstate(all="ignore"):
                return measure()
        except BpttError as error:
            self.notes.append(f"{what}: {error}")
            return otherwise

    # ---- of a ledger -------------------------------------------------------------------------------------------

    def of_ledger(self, ledger: Ledger, gains_only: bool = False) -> Diagnosis:
        """What a ledger alone can say."""
        facts = _facts_of(ledger, residual=not gains_only)
        found = Diagnosis(facts["source"], facts, ledger=ledger, notes=self.notes)
        if not all(np.isfinite(dW).all() for dW in ledger.gradients.values()):
            self.notes.append("gains and truncation: the gradient is not finite")
            return found
        for key in ledger.states:
            one = self.tried(f"gain of {key.rstrip('.')}", lambda key=key: gain(ledger, key))
            found.gains.update({} if one is None else {key: one})
        if not gains_only:
            found.truncation.update(self.tried("truncation", lambda: self._exact(ledger), {}))
        return found

    def _exact(self, ledger: Ledger) -> dict[str, list[Any]]:
        """b(K) of the matrices that work on a state, of all where none is known; of factors alone, the last use's."""
        names = [name for name in ledger.names if ledger.gradients[name].ndim == 2 and ledger.place(name).state]
        names = names or ledger.names
        try:
            return {name: [truncation(ledger, name, scheme) for scheme in SCHEMES] for name in names}
        except NotKeptError:
            self.notes.append("truncation: the ledger keeps no single contributions; a recording with keep='full' does")
        except InputError as error:  # a cut pass, or a loss of which nobody knows where it stands
            self.notes.append(f"truncation: {error}")
        with_factors = [name for name in names if name in ledger.uses and is_whole(ledger)]
        return {name: [truncation(ledger, name, "last step only")] for name in with_factors}

    # ---- of a network ------------------------------------------------------------------------------------------

    def of_network(self, network: Network, batch: Batch, loss: Loss, plan: Plan) -> Diagnosis:
        """Everything."""
        facts = _facts_of_network(network, batch, loss, plan)
        found = Diagnosis("", facts, notes=self.notes)
        self.progress("ledger")
        try:
            _require_finite_parameters(network)
            ledger = self._ledger(network, batch, loss)
        except NotFiniteError as error:
            self.notes.append("everything else: the pass is not finite")
            return replace(found, not_finite=str(error))
        error = _error(network, batch, loss, self.states, self.engine)
        facts |= _facts_of(ledger) | {"plan": repr(plan), "error": error}
        self._travels(found, network, batch, loss)
        given = (network, batch, loss)
        if not self.quick or isinstance(plan, Chunked | Windowed):
            found.truncation.update(self.tried("truncation", lambda: self._truncation(*given, ledger, plan), {}))
        more = self._jacobians(network, batch, loss)
        if not self.quick:
            more["context"] = self.tried("effective context", lambda: effective_context(*given, **self._drawn(16)))
        return replace(found, ledger=ledger, **more)

    def _ledger(self, network: Network, batch: Batch, loss: Loss) -> Ledger:
        T, B = np.shape(batch.x)[:2]
        size = T * T * B * delta_width(network.shapes()) * network.dtype.itemsize
        keep = "full" if size <= FULL and not self.quick else "factors"
        map_ = T <= MAP_STEPS and not self.quick
        return record(network, batch, loss, states=self.states, keep=keep, map=map_, engine=self.engine)

    def _drawn(self, most: int | None = None) -> dict[str, Any]:
        samples = self.samples if most is None else min(self.samples, most)
        return {"samples": samples, "seed": self.seed, "states": self.states, "engine": self.engine}

    def _travels(self, found: Diagnosis, network: Network, batch: Batch, loss: Loss) -> None:
        found.gains.update(self.tried("gain", lambda: error_gain(network, batch, loss, **self._drawn(8)), {}))
        found.gates.update(self.tried("gates", lambda: gates(network, batch, states=self.states), {}))
        if network.cell.gates and "f" in network.cell.gates and not self.quick:
            own = {"samples": min(self.samples, 8), "seed": self.seed, "states": self.states}
            for layer in range(network.layers - 1 if network.bidirectional else 0, network.layers):
                one = self.tried(f"cell path of layer{layer}", lambda n=layer: cell_path(
                    network, batch, loss, layer=n, **own))  # fmt: skip
                found.cell_paths.update({} if one is None else {one.state: one})

    def _truncation(
        self, network: Network, batch: Batch, loss: Loss, ledger: Ledger, plan: Plan
    ) -> dict[str, list[Any]]:
        at = [plan.K] if isinstance(plan, Chunked | Windowed) else []
        return measure_truncation(network, batch, loss, ledger=ledger, at=at, **self._drawn())

    def _jacobians(self, network: Network, batch: Batch, loss: Loss) -> dict[str, Any]:
        """Exponents and spectrum, along a few of the sequences; of two directions each has a state of its own."""
        layer = 0 if network.bidirectional else None
        if layer is not None:
            self.notes.append("exponents of the whole state: it walks both ways; shown is layer0 on its way forward")
        more = {"states": self.states, "layer": layer}
        out = {"exponents": self.tried("exponents", lambda: exponents(network, batch, **more))}
        if not self.quick:
            out["spectrum"] = self.tried("spectrum", lambda: spectrum(network, batch, **more))
        return out


# ---- facts -----------------------------------------------------------------------------------------------------------


def _facts_of(ledger: Ledger, residual: bool = True) -> dict[str, Any]:
    """What a ledger says of where it came from."""
    meta, known = ledger.meta, ("source", "network", "loss", "dtype", "engine", "plan", "gradient")
    facts = {key: meta.get(key) for key in known} | {"T": ledger.T, "B": _sequences(ledger)}
    facts |= {"cell": cell_of_ledger(ledger), "version": meta.get("version", VERSION), "loss value": ledger.loss}
    if residual:
        with np.errstate(all="ignore"):
            facts["residual"] = ledger.residual if ledger.uses or ledger.recorded_residuals else None
    return {key: value if not isinstance(value, float) or np.isfinite(value) else None for key, value in facts.items()}


def _sequences(ledger: Ledger) -> int | None:
    if "B" in ledger.meta:
        return int(ledger.meta["B"])
    return next((norms.shape[1] for norms in ledger.states.values()), None)


def _require_finite_parameters(network: Network) -> None:
    """Raise NotFiniteError for a weight that is NaN or infinite, where else its first product would be named."""
    for name, value in network.params.items():
        if not np.isfinite(value).all():
            raise NotFiniteError(f"parameter {name}", got=str(value[~np.isfinite(value)][0]), expected="finite numbers")


def _facts_of_network(network: Network, batch: Batch, loss: Loss, plan: Plan) -> dict[str, Any]:
    T, B = (*np.shape(batch.x), 0, 0)[:2]
    cell = next((name for name, kind in CELLS.items() if type(network.cell) is kind), network.cell.name)
    return {
        "network": network.describe(), "cell": cell, "loss": f"{loss.kind}, {loss.reduction}, {loss.steps} steps",
        "T": T, "B": B, "dtype": str(network.dtype), "plan": repr(plan), "version": VERSION,
        "units": getattr(network.cell, "nonlinearity", "tanh"),
    }  # fmt: skip


def _error(network: Network, batch: Batch, loss: Loss, states: States | None, engine: str) -> float | None:
    """‖∂ℓ/∂y‖ at the counted steps, in the mean, relative to what an answer without any knowledge leaves.

    That is the mean of the targets, or even odds for all classes.
    """
    y, _ = predict(network, batch.x, batch.lengths, states, engine=engine)
    w = loss.weights(batch, network.width)
    targets = np.asarray(batch.targets)
    mean = np.zeros(y.shape[-1])
    if loss.kind != "cross_entropy":
        mean = (w[..., None] * np.where(w[..., None] != 0, targets, 0)).sum((0, 1)) / w.sum()
    blank = np.broadcast_to(mean, y.shape).astype(y.dtype)
    with np.errstate(all="ignore"):
        ours, theirs = (_mean_error(loss, out, targets, w) for out in (y, blank))
    return ours / theirs if theirs > 0 and np.isfinite(ours) and np.isfinite(theirs) else None


def _mean_error(loss: Loss, y: Array, targets: Array, w: Array) -> float:
    safe = np.where(w != 0, targets, 0) if targets.ndim == 2 else np.where(w[..., None] != 0, targets, 0)
    dy = loss.evaluate(y, safe, w).dy
    return float(np.sqrt(np.square(dy).sum(-1)).sum())

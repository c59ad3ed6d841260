"""A look at the gradient while a network learns: a ledger of a small fixed batch, every so many iterations.

The probe walks back in full, whatever the plan of the training is: so it also says what a truncation leaves out.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from bptt.diagnose import truncation
from bptt.engine import check_gradient, record
from bptt.ledger import Ledger, delta_width
from bptt.ledger.norms import norm
from bptt.model import Batch, Network
from bptt.train.config import Config
from bptt.train.problem import Problem
from bptt.typing import Params

FULL_BYTES = 256 << 20  # of a ledger that holds δ for every pair of loss and step
MAP_STEPS = 256  # a map walks back once for every loss
TOLERANCE = 0.01  # truncation bias up to which the gradient counts as the same
CHECK = {"float32": 1e-4, "float64": 1e-9}  # largest relative error of a right gradient


class Probed(NamedTuple):
    """ledger: to be saved, without the factors of every loss.  facts: the numbers of its line in metrics.jsonl."""

    ledger: Ledger
    facts: dict[str, Any]


class Probe:
    """A fixed batch and what is asked of the network on it."""

    def __init__(self, problem: Problem, config: Config):
        self.problem, self.config = problem, config
        self.batch = probe_batch(problem, config)

    def look(self, network: Network, iteration: int) -> Probed:
        """Record a ledger of the network as it is now."""
        keep, map = self._keep(network)
        ledger = record(
            network, self.batch, self.problem.loss, keep=keep, map=map, source="bptt train", engine=self.config.engine
        )
        facts: dict[str, Any] = {
            "loss": ledger.loss,
            "residual": ledger.residual,
            "gradient_norms": {name: norm(ledger.gradients[name]) for name in ledger.names},
            "coherence": {name: ledger.coherence(name) for name in ledger.names},
            "state_gain": {prefix[:-1]: _gain(ledger, prefix) for prefix in ledger.states},
        }
        if keep == "full":
            facts |= _reach(ledger)
        ledger.meta.update(
            iteration=iteration, **{k: facts[k] for k in ("horizon", "decay_per_lag", "truncation_bias") if k in facts}
        )
        if ledger.loss_uses:  # tens of megabytes, whose answers stand in the facts
            meta = ledger.meta | {"keep": "factors"}
            ledger = dataclasses.replace(ledger, loss_uses={}, meta=meta, recorded_residuals=dict(ledger.residuals))
        return Probed(ledger, facts)

    def check(self, network: Network, gradients: Params) -> float:
        """Relative error of these gradients against a complex step, another way to the same number."""
        return float(check_gradient(network, self.batch, self.problem.loss, gradients, seed=self.config.seed))

    def _keep(self, network: Network) -> tuple[str, bool]:
        T, B = self.batch.x.shape[:2]
        if T * T * B * delta_width(network.shapes()) * network.dtype.itemsize <= FULL_BYTES:
            return "full", True
        return "factors", T <= MAP_STEPS


def probe_batch(problem: Problem, config: Config) -> Batch:
    """The batch that a run looks at: the first of the data, or of a task drawn apart from the training's."""
    drawn = problem.batch(0, np.random.default_rng([config.seed, 2]), config.probe_batch)
    return _first(drawn, config.probe_batch)


def _first(batch: Batch, B: int) -> Batch:
    return Batch(batch.x[:, :B], batch.targets[:, :B], mask=None if batch.mask is None else batch.mask[:, :B])


def _gain(ledger: Ledger, prefix: str) -> float:
    """Geometric mean of ‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖, what a step back leaves; 0 if nothing comes back.

    Over the steps where the dtype still has digits for it: what has underflowed says nothing of the steps before.
    """
    norms = ledger.state_norms(prefix)
    digits = np.finfo(norms.dtype)
    steps = np.flatnonzero(norms >= digits.tiny / digits.eps)
    if len(steps) < 2:
        return 0.0
    logs = np.log(norms[steps].astype(np.float64))
    return float(np.exp((logs[0] - logs[-1]) / (steps[-1] - steps[0])))


def _reach(ledger: Ledger) -> dict[str, Any]:
    """Of every recurrent weight: the horizon, the bias b(K) for K = 1…T, and what one more step of lag leaves."""
    found = {name: truncation(ledger, name) for name in ledger.names if name.endswith(".W_hh")}
    horizons = {name: one.horizon(TOLERANCE).steps for name, one in found.items()}
    return {
        "horizon": horizons,
        "decay_per_lag": {name: _decay(ledger, name, steps - 1) for name, steps in horizons.items()},
        "truncation_bias": {name: one.bias.tolist() for name, one in found.items()},
    }


def _decay(ledger: Ledger, name: str, lag: int) -> float | None:
    """(‖C‖ at this lag / ‖C‖ at lag 0)^(1/lag), ‖C‖ being the mean over the losses that reach so far; None at lag 0."""
    if lag < 1:
        return None
    lags = ledger.lag_profile(name).lags
    by_lag = ledger.map_by_lag(name).astype(np.float64)
    means = by_lag.sum(0) / np.maximum((by_lag > 0).sum(0), 1)
    near, far = means[lags == 0][0], means[lags == lag][0]
    return float((far / near) ** (1 / lag)) if near > 0 else None

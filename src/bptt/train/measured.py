"""What a trained network is measured by, so that several can be held against each other: the same batches for all."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.diagnose import Gain, error_gain, sample_truncation
from bptt.engine import predict
from bptt.errors import BpttError
from bptt.model import Batch, Loss, Network, States
from bptt.model.losses import KINDS
from bptt.train.config import Config
from bptt.train.probe import Probe
from bptt.train.problem import Problem, open_problem
from bptt.typing import Array

CHANCE = 2.0  # standard errors of the paired difference within which two losses are the same
RELATIVE = 0.02  # and so much of the loss
FURTHER = 0.1  # of the reach: less is the same reach, which is measured on a few sequences
WHOLE, STILL = 0.95, 0.9  # of all steps: what reached so far before cannot reach further, and must still reach so far
SAMPLES = 8  # losses that are walked back where not all can be


@dataclass(frozen=True, eq=False)
class Measured:
    """One network.

    horizon: steps back after which a cut changes the gradient of the recurrent weight by less than 1 %, the largest
        of all layers; None where it could not be measured.  horizons: of each recurrent weight.
    slope: of log ‖∂L/∂s‖ per step of lag, of the layer that loses least; None where no gradient goes back at all.
    half_life: steps back after which half of ‖∂L/∂s‖ is left; None where it does not shrink.
    loss: mean on the validation part.  losses: (n,) of its sequences.
    """

    horizon: int | None
    horizons: dict[str, int]
    slope: float | None
    half_life: float | None
    loss: float
    losses: Array

    def lower_than(self, other: "Measured") -> bool:
        """Whether the loss is lower by more than chance: 2 standard errors over the sequences, and 2 %."""
        difference = other.losses - self.losses
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
        gained = float(difference.mean())
        return bool(gained > CHANCE * error and gained > RELATIVE * abs(other.loss))

    def to_dict(self) -> dict[str, Any]:
        """Its numbers."""
        return {
            "horizon": self.horizon, "horizons": self.horizons, "slope": self.slope, "half_life": self.half_life,
            "loss": self.loss,
        }  # fmt: skip

    @staticmethod
    def nothing() -> dict[str, Any]:
        """The same where nothing was measured."""
        return dict.fromkeys(("horizon", "slope", "half_life", "loss")) | {"horizons": {}}


class Measuring:
    """The batches that every network is measured on, and how two are compared.

    T: steps of the batch that the reach is measured on.  baseline: what the best-known guess costs.
    """

    def __init__(self, problem: Problem, config: Config, steps: int):
        self.problem, self.config, self.T = problem, config, steps
        self.baseline = next(iter(problem.baselines.values()), None)
        longer = problem
        if steps != config.steps:
            longer = open_problem(config.replace(steps=steps, batch=min(config.batch, config.probe_batch)))
        self.probe = Probe(longer, config)

    def measure(self, network: Network) -> Measured:
        """Ask one network."""
        horizons = self._horizons(network)
        gain = self._gain(network)
        losses = sequence_losses(network, self.problem, self.config.engine)
        return Measured(
            max(horizons.values(), default=None), horizons, None if gain is None else gain.slope,
            None if gain is None or gain.slope >= 0 else gain.half_life, float(losses.mean()), losses,
        )  # fmt: skip

    def _horizons(self, network: Network) -> dict[str, int]:
        facts = self.probe.look(network, 0).facts
        if "horizon" in facts:
            return facts["horizon"]
        try:
            found = sample_truncation(
                network, self.probe.batch, self.problem.loss, schemes=("windowed",), samples=SAMPLES,
                engine=self.config.engine,
            )  # fmt: skip
        except BpttError:
            return {}
        return {name: parts[0].horizon().steps for name, parts in found.items() if name.endswith(".W_hh")}

    def _gain(self, network: Network) -> Gain | None:
        """Of the layer that loses least of its gradient on the way back."""
        try:
            gains = error_gain(
                network, self.probe.batch, self.problem.loss, samples=SAMPLES, seed=self.config.seed,
                engine=self.config.engine,
            )  # fmt: skip
        except BpttError:
            return None
        known = [gain for gain in gains.values() if np.isfinite(gain.slope) and len(gain.lags) > 1]
        return max(known, key=lambda gain: gain.slope, default=None)

    def longer(self, now: Measured, before: Measured) -> bool:
        """Whether the gradient reaches further, by a tenth and two steps; or nearly all before, and still does."""
        if now.horizon is None or before.horizon is None:
            return False
        if before.horizon >= WHOLE * self.T:
            return now.horizon >= STILL * self.T
        return now.horizon >= min(before.horizon * (1 + FURTHER), self.T) and now.horizon - before.horizon >= 2

    def beats_a_guess(self, now: Measured) -> bool:
        """Whether the loss is below that of a guess without the network, by more than 2 %."""
        return self.baseline is None or now.loss < (1 - RELATIVE) * self.baseline


def sequence_losses(network: Network, problem: Problem, engine: str = "auto") -> Array:
    """The mean loss of every sequence of every validation batch, (n,); their mean is the validation loss."""
    states: States | None = None
    out = []
    for i in range(len(problem.validation)):
        batch = problem.validation.batch(i)
        losses, states = _losses(network, batch, problem.loss, states, engine)
        states = states if problem.validation.stream is not None else None
        out.append(losses)
    return np.concatenate(out)


def _losses(network: Network, batch: Batch, loss: Loss, states: States | None, engine: str) -> tuple[Array, States]:
    y, states = predict(network, batch.x, batch.lengths, states, engine=engine)
    weights = loss.weights(batch, network.width)
    each, _ = KINDS[loss.kind](y.astype(np.float64), batch.targets)
    return (weights * each).sum(0) * weights.shape[1], states


__all__ = ["Measured", "Measuring", "sequence_losses"]

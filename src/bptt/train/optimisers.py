"""Optimisers: from a gradient to an update of the weights, with what of it came from where.

    g    dJ/dW, times the clip's factor (element by element where values are clipped)

    SGD     v ← μ v + g                                             ΔW = −η v
    Adam    m ← β₁ m + (1 − β₁) g      v ← β₂ v + (1 − β₂) g²       ΔW = −η m̂ / (√v̂ + ε) − η λ W
            m̂ = m / (1 − β₁ⁿ)          v̂ = v / (1 − β₂ⁿ)            in iteration n

Every ΔW is linear in g once the factors are known, so that it splits exactly:

    ΔW = S ∘ dW  +  carried  +  decay         and since dW = Σ_t dW_t, step t moved the weights by S ∘ dW_t

Sources: Polyak 1964 (momentum); Kingma & Ba 2015, arXiv 1412.6980 (Adam); Loshchilov & Hutter 2019, arXiv 1711.05101
(decay apart from the gradient). The numbers are those of torch.optim.SGD, Adam and AdamW.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from bptt.errors import InputError, ShapeError, unknown
from bptt.train.clip import Clip, Clipped
from bptt.typing import Array, Params

Scale = Array | float


@dataclass(frozen=True, eq=False)
class ParameterUpdate:
    """What moves one parameter W: ΔW = rate ∘ (weight ∘ dW + before) + decay, dW being the gradient before clipping.

    delta: ΔW.
    rate: what the optimiser multiplies with: −η, or −η / (√v̂ + ε) and the like, one number or an array like W.
    weight: what dW itself counts for: the clip's factor, for Adam times 1 − β₁.
    before: momentum from earlier iterations; 0 where there is none.
    decay: −η λ W; 0 without weight decay.
    """

    delta: Array
    rate: Scale
    weight: Scale
    before: Scale = 0.0
    decay: Scale = 0.0

    @property
    def scale(self) -> Scale:
        """S with ΔW = S ∘ dW + carried + decay."""
        return self.rate * self.weight

    @property
    def carried(self) -> Scale:
        """What momentum brings from earlier iterations; 0 where there is none."""
        return self.rate * self.before


@dataclass(frozen=True, eq=False)
class Update:
    """One update of all parameters: name → `ParameterUpdate`, and what clipping did."""

    parameters: dict[str, ParameterUpdate]
    clipped: Clipped

    def __getitem__(self, name: str) -> ParameterUpdate:
        return self.parameters[name]

    @property
    def deltas(self) -> Params:
        """Name → ΔW."""
        return {name: part.delta for name, part in self.parameters.items()}

    def apply(self, params: Params) -> None:
        """W ← W + ΔW, in place."""
        for name, part in self.parameters.items():
            params[name] += part.delta


class Optimiser(Protocol):
    """What turns gradients into updates. Its state is plain arrays by name, so that a checkpoint can hold it."""

    state: dict[str, Array]

    def update(self, params: Params, gradients: Params, clip: Clip | None = None) -> Update:
        """The update of one iteration; moves the optimiser's own state on, and leaves `params` alone."""
        ...


def _check(params: Params, gradients: Params) -> None:
    """Raise InputError or ShapeError if there is not one gradient for every parameter, of its shape."""
    if params.keys() != gradients.keys():
        missing = sorted(params.keys() ^ gradients.keys())
        expected = "one for every parameter, and no other"
        raise InputError("gradients", got=f"{', '.join(missing)} on one side only", expected=expected)
    for name, g in gradients.items():
        if g.shape != params[name].shape:
            raise ShapeError(f"gradient of {name}", got=f"shape {g.shape}", expected=f"shape {params[name].shape}")


@dataclass
class SGD:
    """Gradient descent, with momentum μ if asked.

    Args:
        learning_rate: η, above 0.
        momentum: μ, from 0 to below 1.
        state: "velocity/…", v of each parameter.

    Raises:
        InputError: a value out of range.

    >>> update = SGD(0.1).update({"w": np.ones(2)}, {"w": np.array([1.0, -2.0])})
    >>> update["w"].delta.tolist()
    [-0.1, 0.2]
    """

    learning_rate: float
    momentum: float = 0.0
    state: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self):
        _above_zero("learning rate", self.learning_rate)
        _below_one("momentum", self.momentum)

    def update(self, params: Params, gradients: Params, clip: Clip | None = None) -> Update:
        """ΔW = −η (μ v + c dW), with c the clip's factor."""
        _check(params, gradients)
        clipped, eta, mu = (clip or Clip()).measure(gradients), self.learning_rate, self.momentum
        parts = {}
        for name, g in clipped.apply(gradients).items():
            before = mu * self.state["velocity/" + name] if "velocity/" + name in self.state else 0.0
            velocity = g + before
            if mu:
                self.state["velocity/" + name] = velocity
            parts[name] = ParameterUpdate(-eta * velocity, -eta, clipped.factor_of(name), before)
        return Update(parts, clipped)


@dataclass
class Adam:
    """Adam; with `weight_decay` λ it is AdamW.

    Args:
        learning_rate: η, above 0.
        betas: β₁, β₂, from 0 to below 1.
        epsilon: ε, above 0, so that a parameter without a gradient stays where it is.
        weight_decay: λ, at least 0; decays the weights themselves, not through the gradient.
        state: "m/…", "v/…", and "iteration", the number n of updates so far.

    Raises:
        InputError: a value out of range.

    >>> Adam(0.1).update({"w": np.ones(1)}, {"w": np.array([5.0])})["w"].delta.round(6).tolist()
    [-0.1]
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    state: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self):
        _above_zero("learning rate", self.learning_rate)
        for name, beta in zip(("beta 1", "beta 2"), self.betas, strict=True):
            _below_one(name, beta)
        _above_zero("epsilon", self.epsilon)
        if not (np.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError("weight decay", got=self.weight_decay, expected="at least 0")

    def update(self, params: Params, gradients: Params, clip: Clip | None = None) -> Update:
        """ΔW = −η m̂ / (√v̂ + ε) − η λ W."""
        _check(params, gradients)
        clipped = (clip or Clip()).measure(gradients)
        n = int(self.state.get("iteration", 0)) + 1
        self.state["iteration"] = np.array(n)
        parts = {name: self._one(name, params[name], g, clipped, n) for name, g in clipped.apply(gradients).items()}
        return Update(parts, clipped)

    def _one(self, name: str, W: Array, g: Array, clipped: Clipped, n: int) -> ParameterUpdate:
        (b1, b2), eta, state = self.betas, self.learning_rate, self.state
        m, v = state.get("m/" + name), state.get("v/" + name)
        if m is None or v is None:
            m, v = np.zeros_like(W), np.zeros_like(W)
        v = b2 * v + (1 - b2) * (g * g)
        root = np.sqrt(v)
        root *= 1 / (1 - b2**n) ** 0.5
        root += self.epsilon
        rate = np.divide(-eta / (1 - b1**n), root, out=root)
        old = b1 * m
        m = old + (1 - b1) * g
        delta = rate * m
        decay = -eta * self.weight_decay * W if self.weight_decay else 0.0
        if self.weight_decay:
            delta += decay
        state["m/" + name], state["v/" + name] = m, v
        return ParameterUpdate(delta, rate, (1 - b1) * clipped.factor_of(name), old, decay)


OPTIMISERS = ("adam", "sgd")


def make_optimiser(
    name: str, learning_rate: float, *, momentum: float = 0.0, weight_decay: float = 0.0, **options: Any
) -> SGD | Adam:
    """An optimiser by its name, "sgd" or "adam".

    Raises:
        UnknownName: no such optimiser.
        InputError: a value out of range, or momentum for Adam, or weight decay for SGD.

    >>> make_optimiser("adam", 0.01).betas
    (0.9, 0.999)
    """
    if name not in OPTIMISERS:
        raise unknown("optimiser", name, OPTIMISERS)
    if name == "sgd" and weight_decay:
        raise InputError("weight decay", got="sgd", expected="adam, which decays the weights apart from the gradient")
    if name == "adam" and momentum:
        raise InputError("momentum", got="adam, which has its own", expected="sgd")
    return SGD(learning_rate, momentum) if name == "sgd" else Adam(learning_rate, weight_decay=weight_decay, **options)


def _above_zero(what: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(what, got=value, expected="a number above 0")


def _below_one(what: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(what, got=value, expected="from 0 to below 1")


__all__ = [
    "OPTIMISERS",
    "SGD",
    "Adam",
    "Clip",
    "Clipped",
    "Optimiser",
    "ParameterUpdate",
    "Update",
    "make_optimiser",
]

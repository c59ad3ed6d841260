"""What a run says of itself over its iterations, as the diagnosis and the report read it."""

from dataclasses import dataclass, field
from typing import Any

from bptt.typing import Array


@dataclass(frozen=True, eq=False)
class History:
    """A run over its iterations. Filled by whoever reads runs (`bptt.train.examine`).

    train: (n, 2) iteration, loss of its batch.  validation: (m, 2) iteration, loss.
    norms: (n,) gradient norm before clipping, at the iterations of `train`.  clipped: (n,) bool.
    clip_norm: the limit, None without.  plan: of the training, as `bptt.engine.parse_plan` reads it.
    probes: (p,) iterations of the ledgers.  lags: (L,).  profiles: parameter → (p, L) Σ ‖C[k, t]‖ by lag, 0 where
        no map was kept.
    horizons: parameter → (p, 2) iteration, horizon.
    exponents: (q, 3) iteration, largest exponent, its standard error; empty where the run sampled none.
    updates: parameter → {"iteration", "moved", "carried", "decay", "shares"} of the newest update that was attributed.
    carries: whether the state is carried from one batch to the next; a task starts every batch anew.
    baseline: what a guess costs, None where not known.
    """

    train: Array
    validation: Array
    norms: Array
    clipped: Array
    clip_norm: float | None
    plan: str
    probes: Array
    lags: Array
    profiles: dict[str, Array] = field(default_factory=dict)
    horizons: dict[str, Array] = field(default_factory=dict)
    exponents: Array | None = None
    updates: dict[str, dict[str, Any]] = field(default_factory=dict)
    carries: bool = False
    baseline: float | None = None

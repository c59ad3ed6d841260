"""Ω, which asks every step back to leave the error signal its size (Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063).

    Ω = Σ_t ( ‖∂J/∂s_t · ∂s_t/∂s_{t−1}‖ / ‖∂J/∂s_t‖ − 1 )²        equation 9, the mean over the sequences

Only the immediate partial by W_hh counts (equation 10): the states, the gates and the direction of ∂J/∂s_t are held
fixed, and W_hh moves only where the step hands the adjoint back through it. With û = ∂J/∂s_t / ‖∂J/∂s_t‖, which is all
that the ratio depends on, one step back gives v = û ∂s_t/∂s_{t−1} and the factor δ of W_hh, so that

    g = ∂Ω/∂v = 2 (‖v‖ − 1) v / ‖v‖         ∂⁺Ω/∂W_hh = Σ_t gᵀ δ,     since v is δ W_hhᵀ, and what W_hh has no part in

The state is the whole one, h and c of an LSTM. The step from s_1 to the initial state does not count, nor does one at
which no gradient arrives.
"""

from typing import Any, NamedTuple

import numpy as np

from bptt.cells import GRU, Cell, pick
from bptt.engine import Plan, record
from bptt.engine.given import valid_steps
from bptt.engine.reference.walk import forward
from bptt.ledger import Ledger
from bptt.model import Batch, Loss, Network, Scan, States
from bptt.typing import Array, Params
from bptt.uses import Columns, Matmul, Use


class Omega(NamedTuple):
    """value: Ω, the mean over the sequences and the sum over layers.  gradients: name of each W_hh → ∂⁺Ω/∂W_hh."""

    value: float
    gradients: Params


def omega(
    network: Network, batch: Batch, loss: Loss, *, plan: Plan | str | None = None, states: States | None = None,
    engine: str = "auto",
) -> Omega:  # fmt: skip
    """Ω and its immediate partial by every recurrent weight.

    Args:
        network, batch, loss, plan, states, engine: as `bptt.gradient`.

    Raises:
        ShapeError, InputError, NotFiniteError, UnknownName, MissingExtra: as `bptt.gradient`.

    >>> network = Network.create("rnn", inputs=1, hidden=4, outputs=1, init="identity", nonlinearity="relu")
    >>> batch = Batch(np.ones((5, 1, 1)), np.ones((5, 1, 1)))
    >>> network.params["layer0.b"] += 0.1       # every unit is on, so that a step back leaves the error as it is
    >>> omega(network, batch, Loss("squared_error")).value < 1e-20
    True
    """
    ledger = record(network, batch, loss, plan=plan, states=states, engine=engine)
    tapes = _tapes(network, batch, states)
    value, gradients = 0.0, Params()
    for scan in network.scans():
        part, dW = _of_scan(network, scan, ledger, tapes[scan.prefix], valid_steps(batch))
        value += part
        gradients[scan.prefix + "W_hh"] = dW
    return Omega(value, gradients)


def _tapes(network: Network, batch: Batch, states: States | None) -> dict[str, Any]:
    """Prefix → the tapes of all steps as one, each part (T·B, …)."""
    x = np.asarray(batch.x)
    x = x if x.dtype.kind in "iu" else x.astype(network.dtype, copy=False)
    stretch = forward(network, x, network.check_states(states, x.shape[1]), valid_steps(batch))
    return {
        prefix: type(steps[0])(*(np.concatenate(parts) for parts in zip(*steps, strict=True)))
        for prefix, steps in stretch.tapes.items()
    }


def _of_scan(network: Network, scan: Scan, ledger: Ledger, tape: Any, valid: Array | None) -> tuple[float, Array]:
    cell, p = network.cell, pick(network.cell, network.params, scan.prefix)
    counted = ledger.states[scan.prefix][1:] > 0  # step t of the walk, from 1; 0: no gradient arrives
    counted[0] = False
    adjoints = [part[1:] for part in ledger.state_parts[scan.prefix]]
    if scan.reverse:  # its first step is the last of the sequence
        counted, adjoints = counted[::-1], [part[::-1] for part in adjoints]
    if valid is not None:
        counted = counted & valid
    unit = _unit(cell, adjoints, counted)
    before, _, uses = cell.step_back(p, tape, unit)
    sizes = np.sqrt(sum(np.square(part).sum(-1) for part in before))
    off = np.where(counted.ravel(), sizes - 1, 0)
    scale = np.divide(2 * off, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    g = scale[:, None] * before.h
    B = counted.shape[1]
    value = float(np.square(off, dtype=np.float64).sum() / B)
    return value, (_partial(cell, p, tape, g, uses["W_hh"]) / B).astype(p.W_hh.dtype, copy=False)


def _unit(cell: Cell, adjoints: list[Array], counted: Array) -> Any:
    """∂J/∂s_t / ‖∂J/∂s_t‖, parts (T·B, S); 0 where nothing counts. Scaled twice, so that no square leaves the range."""
    largest = np.max([np.abs(part).max(-1) for part in adjoints], axis=0)
    safe = np.where(counted & (largest > 0), largest, np.inf)[..., None]
    parts = [part / safe for part in adjoints]
    size = np.sqrt(sum(np.square(part).sum(-1) for part in parts))[..., None]
    parts = [np.divide(part, size, out=np.zeros_like(part), where=size > 0) for part in parts]
    return cell.State(*(part.reshape(-1, part.shape[-1]) for part in parts))


def _partial(cell: Cell, p: Any, tape: Any, g: Array, use: Use) -> Array:
    """∂⁺Ω/∂W_hh = Σ gᵀ δ; by blocks of columns where the reset of a GRU comes before the product."""
    if isinstance(use, Matmul):
        return g.T @ use.delta
    assert isinstance(use, Columns)
    assert isinstance(cell, GRU)
    gates, candidate = use.parts
    H, W = cell.hidden, p.W_hh
    r = tape.r
    # v = … + dq ∘ r + da_r W_hrᵀ + …, da_r = dq ∘ h_prev ∘ r (1 − r), dq = δ_n W_hnᵀ: W_hn acts in two places
    dq = g * r + (g @ W[:, :H]) * tape.h_prev * r * (1 - r)
    return np.hstack([g.T @ gates.delta, dq.T @ candidate.delta])


__all__ = ["Omega", "omega"]

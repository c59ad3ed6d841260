"""Gradient flossing: push the leading Lyapunov exponents to 0 before training (Engelken 2023, arXiv 2312.17306).

    Q_t R_t = J_t Q_{t−1}             λ_i = 1/T Σ_t log R_t[i, i]             minimised: Σ_i λ_i²

J_t is the Jacobian of one step of a layer, along real data; a whole stack's exponents are those of its layers. An
exponent of 0 is a direction in which the gradient neither vanishes nor explodes.

The gradient is exact, through states, Jacobians and QR, and no second derivative is written by hand. Complex steps
turn the cell's own two functions into it, s + i·h·q in place of s:

    J_t q = Im(step) / h                       Re(step_back of dA) = J_tᵀ dA, and
    Im(step_back of dA) / h = ∂⟨dA, J_t q⟩ by the state, the input and (as Im(zᵀδ) / h) by the weights

QR is reversed by M = R dRᵀ − dQᵀ Q, dA = (dQ + Q (tril M + tril(M, −1)ᵀ)) R⁻ᵀ (Walter & Lehmann 2010; tall Q). Of M
only the diagonal is needed: to add some of q_i to a later q_j changes no R[i, i] of any later step, so that dq_j is
orthogonal to q_i, and M is 0 below its diagonal.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bptt.cells import pick
from bptt.engine.given import clean_inputs
from bptt.errors import InputError
from bptt.ledger import total
from bptt.model import Batch, Network, Scan
from bptt.train.clip import Clip
from bptt.train.optimisers import Adam
from bptt.typing import Array, Params

STEP = 1e-20  # of the complex step: small enough to be exact
STRETCH, SEQUENCES = 50, 4  # of each batch that are looked at
SMALLEST = 1e-12  # of R[i, i]: a direction that one step wipes out has no logarithm, and does not count


def floss(
    network: Network, draw: Callable[[int], Batch], *, updates: int, count: int | None = None,
    learning_rate: float = 1e-3, seed: int = 0, each: Callable[[int, float], None] | None = None,
) -> Network:  # fmt: skip
    """A network whose leading exponents were moved towards 0 by so many updates of Adam; the given one stays as it is.

    Args:
        network: where it begins.
        draw: number of the update, from 0 → its batch; the first 4 sequences and 50 steps are used, all of which must
            have that length, and no target is looked at.
        updates: how many.
        count: k, how many exponents of each layer; None for a quarter of its state, at least 1.
        learning_rate: of Adam; the gradient is clipped at norm 1.
        seed: of the first directions Q_0.
        each: called after every update with its number, from 1, and Σ λ².

    Raises:
        InputError: updates below 0, or a count that is not from 1 to the size of the state.
    """
    if updates < 0:
        raise InputError("updates of gradient flossing", got=updates, expected="at least 0")
    wide = network.astype(np.float64)
    optimiser = Adam(learning_rate)
    for n in range(updates):
        value, gradients = squared_exponents(wide, draw(n), count=count, seed=seed)
        optimiser.update(wide.params, gradients, Clip(norm=1.0)).apply(wide.params)
        if each is not None:
            each(n + 1, value)
    return wide.astype(network.dtype)


def squared_exponents(
    network: Network, batch: Batch, *, count: int | None = None, seed: int = 0
) -> tuple[float, Params]:
    """Σ λ_i² of the leading exponents of every layer, mean over the sequences, and its gradient by every parameter.

    Args:
        network: in float64.
        batch: its first 4 sequences and 50 steps are used, from the initial state 0.
        count, seed: as `floss`.

    Raises:
        InputError: a count that is not from 1 to the size of the state.  ShapeError, NotFiniteError: of the batch.
    """
    network.check_batch(batch)
    x = clean_inputs(np.asarray(batch.x)[:STRETCH, :SEQUENCES], None, network.dtype)
    walks: list[_Walk] = []
    outputs: list[Array] = []
    for scan in network.scans():
        if scan.layer and not scan.reverse:
            x, outputs = np.concatenate(outputs, axis=-1), []
        walks.append(_Walk(network, scan, x, count, seed))
        outputs.append(walks[-1].h)
    gradients = {name: np.zeros_like(value) for name, value in network.params.items()}
    width, dtop, dx = network.cell.width, None, 0
    for walk in reversed(walks):  # a layer's inputs are the states of the layer below
        last = walk.scan.reverse or not network.bidirectional
        dx = (0 if last else dx) + walk.back(_half(dtop, width, walk.scan.reverse), gradients)
        dtop = dtop if walk.scan.reverse else dx
    return float(sum(walk.value for walk in walks)), gradients


def _half(dtop: Any, width: int, reverse: bool) -> Any:
    return None if dtop is None else dtop[..., width:] if reverse else dtop[..., :width]


class _Walk:
    """One layer in one direction: B trajectories, each with k directions beside it, rows (k + 1, B) of one step.

    Row 0 of the k + 1 is the trajectory itself, the others are moved by i·h·q_1 … i·h·q_k.
    """

    def __init__(self, network: Network, scan: Scan, x: Array, count: int | None, seed: int):
        self.cell, self.scan, self.x = network.cell, scan, x[::-1] if scan.reverse else x
        self.p = pick(network.cell, network.params, scan.prefix)
        self.T, self.B = x.shape[:2]
        S = sum(self.cell.state_widths())
        self.k = max(1, S // 4) if count is None else count
        if not 1 <= self.k <= S:
            raise InputError("number of exponents", got=self.k, expected=f"1 to {S}, the units of the state")
        self.splits = np.cumsum(self.cell.state_widths())[:-1]
        start = np.linalg.qr(np.random.default_rng([seed, scan.layer]).standard_normal((S, self.k)))[0]
        self._forward(np.broadcast_to(start, (self.B, S, self.k)))

    def _forward(self, Q: Array) -> None:
        """States, Jacobians along the directions, QR; keeps what `back` reads."""
        s, logs = np.zeros((self.B, Q.shape[1])), np.zeros((self.B, self.k))
        alive = np.ones((self.B, self.k), bool)
        self.tapes, self.factors, h = [], [], np.zeros((self.T, self.B, self.cell.width))
        for t in range(self.T):
            moved = np.concatenate([s[None] + 0j, s + 1j * STEP * Q.transpose(2, 0, 1)])
            after, tape = self.cell.step(self.p, self._input(t), self._state(moved))
            rows = np.concatenate(after, axis=-1).reshape(self.k + 1, self.B, -1)
            s = rows[0].real
            Q, R = _qr((rows[1:].imag / STEP).transpose(1, 2, 0))
            alive &= np.diagonal(R, axis1=1, axis2=2) >= SMALLEST
            logs += np.log(_diagonal(R))
            self.tapes.append(tape)
            self.factors.append((Q, R))
            h[t] = s[:, : self.cell.width]
        self.exponents = np.where(
            alive, logs / self.T, 0
        )  # what was wiped out once has no exponent, and counts nothing
        self.value = float(np.square(self.exponents).sum(1).mean())
        self.h = h[::-1] if self.scan.reverse else h

    def _input(self, t: int) -> Array:
        return np.concatenate([self.x[t]] * (self.k + 1))

    def _state(self, rows: Array) -> Any:
        """(k + 1, B, S) as a state of (k + 1)·B sequences."""
        return self.cell.State(*np.split(rows.reshape(-1, rows.shape[-1]), self.splits, axis=-1))

    def back(self, dh: Array | None, gradients: Params) -> Array | float:
        """Add the gradient of the value, and of what dh (T, B, H) brings from above; returns dx, 0 for ids."""
        dh = dh[::-1] if self.scan.reverse and dh is not None else dh
        dlog = 2 * self.exponents / (self.T * self.B)
        dQ = np.zeros_like(self.factors[0][0])
        ds = np.zeros(dQ.shape[:2])
        dx = []
        for t in reversed(range(self.T)):
            if dh is not None:
                ds[:, : self.cell.width] += dh[t]
            Q, R = self.factors[t]
            dA = _qr_back(Q, R, dQ, dlog)
            rows = np.concatenate([1j * STEP * ds[None], dA.transpose(2, 0, 1)])
            before, dx_t, uses = self.cell.step_back(self.p, self.tapes[t], self._state(rows))
            back = np.concatenate(before, axis=-1).reshape(self.k + 1, self.B, -1)
            ds, dQ = back.imag.sum(0) / STEP, back[1:].real.transpose(1, 2, 0)
            for name, use in uses.items():
                shape = gradients[self.scan.prefix + name].shape
                gradients[self.scan.prefix + name] += total(use, shape).imag / STEP
            if dx_t is not None:
                dx.append(dx_t.imag.reshape(self.k + 1, self.B, -1).sum(0) / STEP)
        if not dx:
            return 0.0
        return np.array(dx if self.scan.reverse else dx[::-1])


def _qr(A: Array) -> tuple[Array, Array]:
    """Q (B, S, k), R (B, k, k) of A, with a diagonal of R that is not negative."""
    Q, R = np.linalg.qr(A)
    sign = np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return Q * sign[:, None, :], R * sign[:, :, None]


def _diagonal(R: Array) -> Array:
    """R[i, i] (B, k); 1 where the step wiped the direction out (as relu does where too few units are on)."""
    diagonal = np.diagonal(R, axis1=1, axis2=2)
    return np.where(diagonal < SMALLEST, 1, diagonal)


def _qr_back(Q: Array, R: Array, dQ: Array, dlog: Array) -> Array:
    """The adjoint of A = Q R, from that of Q and of log R[i, i].

    Both are 0 for a direction that is wiped out: it comes after all others, of which none depends on it.
    """
    at = np.arange(R.shape[-1])
    diagonal = dlog - (dQ * Q).sum(1)  # of M
    safe = R.copy()
    safe[:, at, at] = _diagonal(R)
    return np.linalg.solve(safe, (dQ + Q * diagonal[:, None, :]).transpose(0, 2, 1)).transpose(0, 2, 1)


__all__ = ["floss", "squared_exponents"]

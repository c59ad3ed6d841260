"""The ledger: what every use of every shared parameter adds to its gradient.

The table behind it is C[k, t], the part of dJ/dW that comes from loss L_k through the use of W at step t. Its column
sums are the step gradients dW_t, its row sums the loss gradients, its grand total the gradient. Steps are counted from
1. A parameter is named in full ("layer0.W_hh"), or by its end where only one fits ("W_hh"); ".f" behind it asks for
one gate ("W_hh.f").
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bptt.errors import InputError, NotKeptError, unknown
from bptt.ledger import norms as size
from bptt.ledger import reductions as of
from bptt.ledger.norms import norm, pythagoras, residual
from bptt.ledger.reductions import share_scale
from bptt.typing import Array, Params
from bptt.uses import Use, Uses


class LagProfile(NamedTuple):
    """lags: how many steps back, along the direction of the parameter.  values: Σ ‖C[k, t]‖ over k − t = lag."""

    lags: Array
    values: Array


@dataclass(frozen=True, eq=False)
class Ledger:
    """The record of all uses, with its totals. Made by `bptt.record`, `bptt.explain` or `Ledger.load`.

    What is asked of it raises UnknownName or InputError for a parameter, gate, layer or step that it does not have, and
    NotKeptError for what was not kept; the message says how to record it.

    >>> import bptt
    >>> ledger = bptt.explain("the cat sat down")
    >>> ledger.norms("W_hh").round(3).tolist(), ledger.coherence("W_hh") < 1
    ([0.589, 0.863, 0.59, 0.735], True)

    meta: where it came from: source, version, network, engine, dtype, gradient, loss, plan, keep, schema.
    losses: (T,) L_k.
    gradients: name → dJ/dW, as the engine summed it, not as the ledger does.
    gates: names of the column blocks of the cell's parameters.
    reverse: prefix of each layer and direction → whether it walks from the last step to the first.
    uses: name → factors z (T, B, M) and δ (T, B, N); empty if only norms were kept.
    loss_uses: name → the same with δ (K, T, B, N); empty unless "full".
    maps: name → (K, T) ‖C[k, t]‖; empty unless a map was asked for.
    step_norms: name → (T,) ‖dW_t‖, and per sequence (T, B); filled where they were measured while recording.
    step_shares: name → (T,) shares; filled where they were asked for while recording.
    states: prefix → (T+1, B) ‖∂J/∂s_t‖ of each sequence.
    recorded_residuals: name → residual, where the factors it was measured with are gone.
    memo: what has been worked out so far.
    state_parts: prefix → the parts (T+1, B, S) of ∂J/∂s_t; empty if only norms were kept.
    """

    meta: dict[str, Any]
    losses: Array
    gradients: Params
    gates: tuple[str, ...]
    reverse: dict[str, bool]
    states: dict[str, Array]
    state_parts: dict[str, tuple[Array, ...]] = field(default_factory=dict)
    uses: Uses = field(default_factory=dict)
    loss_uses: Uses = field(default_factory=dict)
    maps: dict[str, Array] = field(default_factory=dict)
    step_norms: dict[str, Array] = field(default_factory=dict)
    step_sequence_norms: dict[str, Array] = field(default_factory=dict)
    step_shares: dict[str, Array] = field(default_factory=dict)
    recorded_residuals: dict[str, float] = field(default_factory=dict)
    memo: size.Memo = field(default_factory=dict, init=False, repr=False)

    @property
    def names(self) -> list[str]:
        """All parameters, in the order of the network."""
        return list(self.gradients)

    @property
    def T(self) -> int:
        """Steps."""
        return len(self.losses)

    @property
    def loss(self) -> float:
        """J = Σ_k L_k."""
        return float(self.losses.sum())

    def name(self, name: str) -> str:
        """The full name of a parameter given by its end.

        Raises:
            UnknownName: none ends so, or several do.
        """
        return self._find(name)[0]

    # ---- gradients, as arrays ----------------------------------------------------------------------------------

    def gradient(self, name: str) -> Array:
        """dJ/dW, with the shape of W (or of the gate's block)."""
        full, columns = self._find(name)
        return self.gradients[full] if columns is None else self.gradients[full][..., columns]

    def step_gradient(self, name: str, step: int) -> Array:
        """dW_t = Σ_k C[k, t], the column of the table at `step`; an array with the shape of W."""
        at = self._step(step, "step")
        return of.matrices(of.steps_of(self._use(name), slice(at, at + 1)), self._shape(name))[0]

    def step_gradients(self, name: str) -> Array:
        """dW_t of every step, (T, *shape of W): T full arrays."""
        return of.matrices(self._use(name), self._shape(name))

    def loss_gradient(self, name: str, loss_step: int) -> Array:
        """dL_k/dW = Σ_t C[k, t], the row of the table at `loss_step`; needs keep="full"."""
        k = self._step(loss_step, "loss step")
        return of.total(of.loss_of(self._use(name, self.loss_uses, "full"), k), self._shape(name))

    def contribution(self, name: str, loss_step: int, step: int) -> Array:
        """C[k, t], what loss L_k says to the use of W at step t; needs keep="full"."""
        k, at = self._step(loss_step, "loss step"), self._step(step, "step")
        use = of.loss_of(self._use(name, self.loss_uses, "full"), k)
        return of.matrices(of.steps_of(use, slice(at, at + 1)), self._shape(name))[0]

    def lag_gradient(self, name: str, lag: int) -> Array:
        """Σ C[k, t] over k − t = lag (t − k in a reverse direction), from `lag` steps back; needs keep="full"."""
        if lag not in self._lags():
            raise InputError("lag", got=lag, expected=f"{self._lags()[0]} to {self.T - 1}")
        sign = -1 if self._is_reverse(name) else 1
        return of.total(of.diagonal(self._use(name, self.loss_uses, "full"), sign * lag), self._shape(name))

    def contributions(self, name: str) -> Array:
        """C, (K, T, *shape of W): T² full arrays, for small networks; needs keep="full"."""
        return of.matrices(self._use(name, self.loss_uses, "full"), self._shape(name))

    def factors(self, name: str, step: int) -> Use:
        """The factors z (B, M) and δ (B, N) of the use at `step`."""
        at = self._step(step, "step")
        return of.step_of(self._use(name), at)

    def loss_factors(self, name: str, loss_step: int, step: int) -> Use:
        """The factors z (B, M) and δ (B, N) of C[k, t]; needs keep="full"."""
        k, at = self._step(loss_step, "loss step"), self._step(step, "step")
        return of.step_of(of.loss_of(self._use(name, self.loss_uses, "full"), k), at)

    # ---- norms -------------------------------------------------------------------------------------------------

    def norms(self, name: str) -> Array:
        """‖dW_t‖ of every step, (T,), Frobenius."""
        full, columns = self._find(name)
        if columns is None and full in self.step_norms:
            return self.step_norms[full]
        if columns is not None:
            return size.norms(self._use(name), self._shape(name))
        if ("norms", full) not in self.memo:
            found = size.norms(self._use(name), self._shape(name), self.memo)
            found.flags.writeable = False  # it is handed out again
            self.memo["norms", full] = found
        return self.memo["norms", full]

    def sequence_norms(self, name: str) -> Array:
        """‖dW_{t,b}‖ of every step and sequence, (T, B)."""
        full, columns = self._find(name)
        if columns is None and full in self.step_sequence_norms:
            return self.step_sequence_norms[full]
        return size.sequence_norms(self._use(name), self.memo if columns is None else None)

    def shares(self, name: str) -> Array:
        """⟨dW_t, dW⟩ / ‖dW‖² of every step, (T,): signed, sums to 1; negative pulls against the total.

        All zero where the gradient is.
        """
        full, columns = self._find(name)
        if columns is None and full in self.step_shares:
            return self.step_shares[full]
        unit, scale = share_scale(self.gradient(name))
        return of.inner(self._use(name), unit) / scale

    def coherence(self, name: str) -> float:
        """‖Σ dW_t‖ / Σ ‖dW_t‖: 1 where all uses agree, near 0 where they cancel, 0 where there is no gradient."""
        norms = self.norms(name).sum()
        return float(norm(self.gradient(name)) / norms) if norms > 0 else 0.0

    def cosines(self, name: str) -> Array:
        """Cosine of the angle between dW_s and dW_t, (T, T); 0 where either is zero."""
        use, norms = self._use(name), self.norms(name)
        safe = np.where(norms > 0, norms, 1)
        unit = of.divided(use, safe)
        return np.clip(of.step_products(unit, self._shape(name)), -1, 1)

    # ---- the map -----------------------------------------------------------------------------------------------

    def map(self, name: str) -> Array:
        """‖C[k, t]‖, (K, T): rows are losses, columns are uses. Needs map=True or keep="full".

        In a causal network the entries above the diagonal are exactly zero: the future cannot use the past.
        """
        full, columns = self._find(name)
        if columns is None and full in self.maps:
            return self.maps[full]
        if full not in self.maps:
            raise NotKeptError("the map", got="a ledger without one", do="Record with map=True or keep='full'.")
        return size.norms(self._use(name, self.loss_uses, "full"), self._shape(name))

    def map_by_lag(self, name: str) -> Array:
        """The map by how far back: (K, lags), 0 where no step stands at that lag; see `lag_profile` for the lags."""
        table, lags = self.map(name), self._lags()
        k = np.arange(self.T)[:, None]
        steps = k + lags if self._is_reverse(name) else k - lags
        inside = (steps >= 0) & (steps < self.T)
        return np.where(inside, np.take_along_axis(table, np.where(inside, steps, 0), 1), 0)

    def lag_profile(self, name: str) -> LagProfile:
        """Σ ‖C[k, t]‖ along the diagonals of the map: how much comes from how far back.

        Lags run from 0 to T − 1; with both directions also below 0, since a path may go ahead in one layer and back in
        another.
        """
        return LagProfile(self._lags(), self.map_by_lag(name).sum(0))

    # ---- what the state carries --------------------------------------------------------------------------------

    def layer(self, layer: str | int = 0) -> str:
        """The prefix of a layer: "layer0.", or "layer0.reverse." for its other direction."""
        prefix = f"layer{layer}." if isinstance(layer, int) else layer.rstrip(".") + "."
        if prefix not in self.states:
            raise unknown("layer", str(layer), [known.rstrip(".") for known in self.states])
        return prefix

    def state_gradient(self, step: int, layer: str | int = 0) -> tuple[Array, ...]:
        """∂J/∂s_t of the whole state, its parts (B, S), h first; step 0 is the initial state.

        In a reverse direction steps are counted as it walks: step 1 is the last of the sequence.
        """
        if not self.state_parts:
            raise NotKeptError("∂J/∂s_t", got="norms only", do="Record with keep='factors' or 'full'.")
        if not 0 <= step <= self.T:
            raise InputError("step", got=step, expected=f"0 to {self.T}")
        return tuple(part[step] for part in self.state_parts[self.layer(layer)])

    def state_norms(self, layer: str | int = 0) -> Array:
        """‖∂J/∂s_t‖ for t = 0…T, (T+1,): what the state carries back; t counted as in `state_gradient`."""
        return pythagoras(self.states[self.layer(layer)])

    def gains(self, layer: str | int = 0) -> Array:
        """‖∂J/∂s_{t−1}‖ / ‖∂J/∂s_t‖ for t = 1…T, (T,): below 1 vanishing, above 1 exploding.

        t is counted as in `state_gradient`. 0 where nothing comes, and where so little comes that it has no digits left
        (below 1e-31 in float32, 1e-292 in float64).
        """
        norms = self.state_norms(layer)
        digits = np.finfo(norms.dtype)
        seen = (norms >= digits.tiny / digits.eps)[:-1] & (norms >= digits.tiny / digits.eps)[1:]
        return np.divide(norms[:-1], norms[1:], out=np.zeros_like(norms[:-1]), where=seen)

    # ---- the check ---------------------------------------------------------------------------------------------

    @cached_property
    def residuals(self) -> dict[str, float]:
        """‖Σ_t dW_t − dW‖ / ‖dW‖ of every parameter, dW as the engine summed it; with "full" also Σ_{k,t} C[k, t]."""
        if self.recorded_residuals:
            return self.recorded_residuals
        out = {}
        for name, use in self.uses.items():
            dW = self.gradients[name]
            sums = [of.total_by_steps(use, dW.shape)]
            if name in self.loss_uses:
                sums.append(of.total(of.over_losses(self.loss_uses[name]), dW.shape))
            out[name] = max(residual(found, dW) for found in sums)
        return out

    @property
    def residual(self) -> float:
        """The largest of `residuals`: the ledger against the gradient."""
        return max(self.residuals.values())

    # ---- files -------------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write one `.safetensors` file, whole or not at all; docs/ledger-format.md says what stands in it."""
        from bptt.ledger.files import save

        save(self, path)

    @classmethod
    def load(cls, path: Any) -> "Ledger":
        """Read a file written by `save`.

        Raises:
            FileError: not there.  DamagedFile: truncated, altered or not a ledger.  NewerFile: of a later schema.
        """
        from bptt.ledger.files import load

        return load(path)

    def to_csv(self, path: Any) -> None:
        """One row per parameter and step: norm, share, ‖∂J/∂s_t‖, gain; and per loss and step where there is a map."""
        from bptt.ledger.export import to_csv

        to_csv(self, path)

    def to_npz(self, path: Any) -> None:
        """The same as arrays, one `.npz`."""
        from bptt.ledger.export import to_npz

        to_npz(self, path)

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with labelled dimensions; needs the extra `xarray`."""
        from bptt.ledger.export import to_xarray

        return to_xarray(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"memo": {}}  # its keys are ids, which mean nothing elsewhere

    def __repr__(self) -> str:
        return f"Ledger({self.meta.get('network')}; T={self.T}, loss {self.loss:.6g}, residual {self.residual:.1e})"

    # ---- names and steps ---------------------------------------------------------------------------------------

    def _find(self, name: str) -> tuple[str, slice | None]:
        """Full name, and the columns of the gate if one is asked for."""
        hits = [full for full in self.gradients if full == name or full.endswith("." + name)]
        if name in self.gradients:
            hits = [name]
        if len(hits) == 1:
            return hits[0], None
        base, _, gate = name.rpartition(".")
        if not hits and gate in self.gates and base:
            full, inner = self._find(base)
            width, blocks = self.gradients[full].shape[-1], len(self.gates)
            if inner is None and width % blocks == 0 and full.rsplit(".", 1)[1] in ("W_xh", "W_hh", "b"):
                at = self.gates.index(gate) * (width // blocks)
                return full, slice(at, at + width // blocks)
        if hits:
            raise InputError("parameter", got=f"{name!r}, which fits {', '.join(hits)}", expected="one of them")
        raise unknown("parameter", name, self._short_names())

    def _short_names(self) -> list[str]:
        """Every parameter by its end, or in full where the end fits several."""
        ends = [full.rsplit(".", 1)[-1] for full in self.gradients]
        return [end if ends.count(end) == 1 else full for full, end in zip(self.gradients, ends, strict=True)]

    def _use(self, name: str, among: Uses | None = None, keep: str = "factors") -> Use:
        full, columns = self._find(name)
        among = self.uses if among is None else among
        if full not in among:
            got = f"a ledger that kept {self.meta.get('keep')!r}"
            raise NotKeptError(f"what is asked of {full}", got=got, do=f"Record with keep={keep!r}.")
        return among[full] if columns is None else of.columns_of(among[full], columns)

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.gradient(name).shape

    def _step(self, step: int, what: str) -> int:
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 1 <= step <= self.T:
            raise InputError(what, got=repr(step), expected=f"1 to {self.T}")
        return step - 1

    def _lags(self) -> Array:
        return np.arange(1 - self.T if any(self.reverse.values()) else 0, self.T)

    def _is_reverse(self, name: str) -> bool:
        return self.reverse.get(self.name(name).rsplit(".", 1)[0] + ".", False)

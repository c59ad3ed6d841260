"""The ledger: what every use of every shared parameter adds to its gradient.

The table behind it is C[k, t], the part of dJ/dW that comes from loss L_k through the use of W at step t. Its column
sums are the step gradients dW_t, its row sums the loss gradients, its grand total the gradient. Steps are counted from
1. A parameter is named in full ("layer0.W_hh"), or by its end where only one fits ("W_hh"); ".f" behind it asks for
one gate ("W_hh.f").

A network of ours has one loss and one use of every parameter at each step. A model that was traced may have K losses,
and uses of a parameter more or less often than there are steps: `steps` says how often.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from bptt.errors import InputError, NotKeptError
from bptt.ledger import lags as lag_of
from bptt.ledger import norms as size
from bptt.ledger import reductions as of
from bptt.ledger.lags import LagProfile
from bptt.ledger.names import Found, find, state_key
from bptt.ledger.norms import norm, pythagoras, residual
from bptt.ledger.places import Place
from bptt.ledger.reductions import share_scale
from bptt.typing import Array, Params
from bptt.uses import Use, Uses


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
    losses: (K,) L_k.
    gradients: name → dJ/dW, as the engine summed it, not as the ledger does.
    places: name → where it stands: whose state, which direction, which gates.
    reverse: prefix of each layer and direction → whether it walks from the last step to the first.
    uses: name → factors z (T, B, M) and δ (T, B, N), or dW_t (T, *shape of W) where its operation is not known; empty
        if only norms were kept.
    loss_uses: name → the same with δ (K, T, B, N), or dW_t (K, T, *shape of W); empty unless "full".
    maps: name → (K, T) ‖C[k, t]‖; empty unless a map was asked for.
    step_norms: name → (T,) ‖dW_t‖, and per sequence (T, B); filled where they were measured while recording.
    step_shares: name → (T,) shares; filled where they were asked for while recording.
    states: prefix → (T+1, B) ‖∂J/∂s_t‖ of each sequence, T the steps of that state; empty where nothing carries one.
    recorded_residuals: name → residual, where the factors it was measured with are gone.
    loss_steps: (K,) the step, from 1, at which each loss stands; None for 1…K.
    memo: what has been worked out so far.
    state_parts: prefix → the parts (T+1, B, S) of ∂J/∂s_t; empty if only norms were kept.
    """

    meta: dict[str, Any]
    losses: Array
    gradients: Params
    places: dict[str, Place]
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
    loss_steps: Array | None = None
    memo: size.Memo = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.loss_steps is not None:
            lag_of.check_positions(self.loss_steps, self.K)

    @property
    def names(self) -> list[str]:
        """All parameters, in the order of the network."""
        return list(self.gradients)

    @property
    def T(self) -> int:
        """Steps: the most uses that a parameter has."""
        return max((self._count(full) for full in self.gradients), default=0)

    @property
    def K(self) -> int:
        """Losses."""
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
        return self._find(name).full

    def steps(self, name: str) -> int:
        """How many uses of a parameter there are: its own T."""
        return self._count(self.name(name))

    def place(self, name: str) -> Place:
        """Where a parameter stands."""
        return self.places.get(self.name(name), Place())

    # ---- gradients, as arrays ----------------------------------------------------------------------------------

    def gradient(self, name: str) -> Array:
        """dJ/dW, with the shape of W (or of the gate's block)."""
        full, block, axis = self._find(name)
        return self.gradients[full] if block is None else of.cut(self.gradients[full], block, axis)

    def step_gradient(self, name: str, step: int) -> Array:
        """dW_t = Σ_k C[k, t], the column of the table at `step`; an array with the shape of W."""
        at = _from_zero(step, "step", self.steps(name))
        return of.matrices(of.steps_of(self._use(name), slice(at, at + 1)), self._shape(name))[0]

    def step_gradients(self, name: str) -> Array:
        """dW_t of every step, (T, *shape of W): T full arrays."""
        return of.matrices(self._use(name), self._shape(name))

    def loss_gradient(self, name: str, loss_step: int) -> Array:
        """dL_k/dW = Σ_t C[k, t], row `loss_step` = 1…K of the table; needs keep="full"."""
        k = _from_zero(loss_step, "loss step", self.K)
        return of.total(of.loss_of(self._use(name, self.loss_uses, "full"), k), self._shape(name))

    def contribution(self, name: str, loss_step: int, step: int) -> Array:
        """C[k, t], what loss L_k says to the use of W at step t; needs keep="full"."""
        k, at = _from_zero(loss_step, "loss step", self.K), _from_zero(step, "step", self.steps(name))
        use = of.loss_of(self._use(name, self.loss_uses, "full"), k)
        return of.matrices(of.steps_of(use, slice(at, at + 1)), self._shape(name))[0]

    def lag_gradient(self, name: str, lag: int) -> Array:
        """Σ C[k, t] over k − t = lag (t − k in a reverse direction), from `lag` steps back; needs keep="full"."""
        lags, use = self.lags(name), self._use(name, self.loss_uses, "full")
        if lag not in lags:
            raise InputError("lag", got=lag, expected=f"{lags[0]} to {lags[-1]}")
        at = self.loss_positions(name) - 1
        losses, steps = lag_of.pairs(at, self.steps(name), lag, self.place(name).reverse)
        if len(losses) == 0:
            return np.zeros_like(self.gradient(name))
        return of.total(of.diagonal(use, losses, steps), self._shape(name))

    def contributions(self, name: str) -> Array:
        """C, (K, T, *shape of W): T² full arrays, for small networks; needs keep="full"."""
        return of.matrices(self._use(name, self.loss_uses, "full"), self._shape(name))

    def factors(self, name: str, step: int) -> Use:
        """The factors z (B, M) and δ (B, N) of the use at `step`; of a use that has none, dW_t."""
        at = _from_zero(step, "step", self.steps(name))
        return of.step_of(self._use(name), at)

    def loss_factors(self, name: str, loss_step: int, step: int) -> Use:
        """The factors z (B, M) and δ (B, N) of C[k, t]; needs keep="full"."""
        k, at = _from_zero(loss_step, "loss step", self.K), _from_zero(step, "step", self.steps(name))
        return of.step_of(of.loss_of(self._use(name, self.loss_uses, "full"), k), at)

    # ---- norms -------------------------------------------------------------------------------------------------

    def norms(self, name: str) -> Array:
        """‖dW_t‖ of every step, (T,), Frobenius."""
        full, block, _ = self._find(name)
        if block is None and full in self.step_norms:
            return self.step_norms[full]
        if block is not None:
            return size.norms(self._use(name), self._shape(name))
        if ("norms", full) not in self.memo:
            found = size.norms(self._use(name), self._shape(name), self.memo)
            found.flags.writeable = False  # it is handed out again
            self.memo["norms", full] = found
        return self.memo["norms", full]

    def sequence_norms(self, name: str) -> Array:
        """‖dW_{t,b}‖ of every step and sequence, (T, B)."""
        full, block, _ = self._find(name)
        if block is None and full in self.step_sequence_norms:
            return self.step_sequence_norms[full]
        return size.sequence_norms(self._use(name), self.memo if block is None else None)

    def shares(self, name: str) -> Array:
        """⟨dW_t, dW⟩ / ‖dW‖² of every step, (T,): signed, sums to 1; negative pulls against the total.

        All zero where the gradient is.
        """
        full, block, _ = self._find(name)
        if block is None and full in self.step_shares:
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
        full, block, _ = self._find(name)
        if block is None and full in self.maps:
            return self.maps[full]
        if full not in self.maps:
            raise NotKeptError("the map", got="a ledger without one", do="Record with map=True or keep='full'.")
        return size.norms(self._use(name, self.loss_uses, "full"), self._shape(name))

    def map_by_lag(self, name: str) -> Array:
        """The map by how far back: (K, lags), 0 where no step stands at that lag; see `lag_profile` for the lags."""
        table, at = self.map(name), self.loss_positions(name) - 1
        return lag_of.by_lag(table, at, self.lags(name), self.place(name).reverse)

    def lag_profile(self, name: str) -> LagProfile:
        """Σ ‖C[k, t]‖ along the diagonals of the map: how much comes from how far back.

        Raises:
            InputError: nothing says at which of the parameter's uses each loss stands.
        """
        return LagProfile(self.lags(name), self.map_by_lag(name).sum(0))

    def lags(self, name: str) -> Array:
        """The lags that a parameter may have: 0 to T − 1, T its uses.

        With both directions also below 0, since a path may go ahead in one layer and back in another.
        """
        T, both = self.steps(name), any(self.reverse.values()) or any(place.reverse for place in self.places.values())
        return np.arange(1 - T if both else 0, T)

    def has_lags(self, name: str) -> bool:
        """Whether losses and uses are aligned, so that it is known how far back a use lies."""
        return lag_of.positions(self.loss_steps, self.K, self.steps(name)) is not None

    def loss_positions(self, name: str) -> Array:
        """The use of a parameter, from 1, beside which each loss stands, (K,).

        Raises:
            InputError: losses and uses are not aligned.
        """
        T = self.steps(name)
        found = lag_of.positions(self.loss_steps, self.K, T)
        if found is None:
            raise lag_of.not_aligned(self.name(name), self.K, T, self.loss_steps)
        return found

    # ---- what the state carries --------------------------------------------------------------------------------

    def layer(self, layer: str | int = 0) -> str:
        """The key of a layer's state: "layer0.", or "layer0.reverse." for its other direction.

        A number is that of the layer; in a ledger of another model, which state, from 0.

        Raises:
            UnknownName: none is called so.  InputError: the ledger has no state at all.
        """
        return state_key(layer, self.states)

    def state_gradient(self, step: int, layer: str | int = 0) -> tuple[Array, ...]:
        """∂J/∂s_t of the whole state, its parts (B, S), h first; step 0 is the initial state.

        In a reverse direction steps are counted as it walks: step 1 is the last of the sequence.
        """
        key = self.layer(layer)
        if key not in self.state_parts:
            raise NotKeptError("∂J/∂s_t", got="norms only", do="Record with keep='factors' or 'full'.")
        last = len(self.states[key]) - 1
        if not 0 <= step <= last:
            raise InputError("step", got=step, expected=f"0 to {last}")
        return tuple(part[step] for part in self.state_parts[key])

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
            # where all uses cancel to the last bit, what they add up to is measured against the uses themselves
            scale = norm(dW) or float(size.norms(use, dW.shape).sum())
            out[name] = max(norm(found - dW) / scale if scale else residual(found, dW) for found in sums)
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

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows: a picture and a table, or this line where nothing can draw them."""
        from bptt.ledger.display import mimebundle

        return mimebundle(self, "ledger", include, exclude)

    def __repr__(self) -> str:
        return f"Ledger({self.meta.get('network')}; T={self.T}, loss {self.loss:.6g}, residual {self.residual:.1e})"

    # ---- names and steps ---------------------------------------------------------------------------------------

    def _find(self, name: str) -> Found:
        return find(name, self.gradients, self.places)

    def _count(self, full: str) -> int:
        """The uses of a parameter, from whatever was kept of them."""
        if full in self.uses:
            return of.count(self.uses[full])
        if full in self.step_norms:
            return len(self.step_norms[full])
        if full in self.maps:
            return self.maps[full].shape[1]
        return of.lead(self.loss_uses[full], self.gradients[full].shape)[-1] if full in self.loss_uses else 0

    def _use(self, name: str, among: Uses | None = None, keep: str = "factors") -> Use:
        full, block, axis = self._find(name)
        among = self.uses if among is None else among
        if full not in among:
            got = f"a ledger that kept {self.meta.get('keep')!r}"
            raise NotKeptError(f"what is asked of {full}", got=got, do=f"Record with keep={keep!r}.")
        return among[full] if block is None else of.block_of(among[full], block, axis)

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.gradient(name).shape


def _from_zero(step: int, what: str, last: int) -> int:
    """A step that was counted from 1, counted from 0."""
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 1 <= step <= last:
        raise InputError(what, got=repr(step), expected=f"1 to {last}")
    return step - 1

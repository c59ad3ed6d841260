"""Takes in uses while an engine walks back, keeps of them what was asked for, and hands out the ledger."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt.errors import InputError, unknown
from bptt.ledger import reductions as of
from bptt.ledger.files import SCHEMA
from bptt.ledger.ledger import Ledger
from bptt.ledger.norms import norms, pythagoras, residual, sequence_norms
from bptt.ledger.places import Place
from bptt.typing import Array, Params
from bptt.uses import Columns, Ready, Use, Uses, with_factors
from bptt.version import VERSION

KEEP = ("factors", "norms", "full")
FULL_LIMIT = 4 << 30  # bytes of a "full" ledger: δ for every pair of loss and step


class Recorder:
    """One recording.

    Args:
        shapes: name → shape of every parameter, in the order of the network.
        T: steps.  B: sequences.  dtype: of the adjoints.
        keep: "factors", "norms" or "full".
        map: whether ‖C[k, t]‖ is wanted; "full" implies it.

    Raises:
        UnknownName: `keep` is none of the three.
        InputError: a "full" ledger would take more than 4 GiB.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], T: int, B: int, dtype: Any, keep: str, map: bool):
        if keep not in KEEP:
            raise unknown("keep", keep, KEEP)
        self.shapes, self.T, self.B, self.dtype, self.keep = shapes, T, B, np.dtype(dtype), keep
        self.wants_losses = map or keep == "full"
        if keep == "full":
            size = T * T * B * delta_width(shapes) * self.dtype.itemsize
            if size > FULL_LIMIT:
                do = "Use keep='factors' with map=True, fewer steps, or fewer sequences."
                raise InputError("keep='full'", got=f"{size / 2**30:.1f} GiB", expected="at most 4 GiB", do=do)
        self.kept: dict[str, list[tuple[int, Use]]] = {}
        self.norms: dict[str, Array] = {}
        self.sequence_norms: dict[str, Array] = {}
        self.shares: dict[str, Array] = {}
        self.units: dict[str, tuple[Array, float]] = {}  # what shares are measured with, once the gradient is known
        self.by_steps: Params = {}
        self.maps = {name: np.zeros((T, T), self.dtype) for name in shapes} if self.wants_losses else {}
        self.loss_uses: dict[str, list[tuple[int, Use]]] = {}
        self.states: dict[str, Array] = {}
        self.state_sums: dict[tuple[str, int], list[Array]] = {}
        self.state_parts: dict[str, tuple[Array, ...]] = {}
        self.residuals: dict[str, float] = {}

    def add(self, start: int, uses: Uses, measured: Mapping[str, tuple[Array, Array]] | None = None) -> None:
        """Uses of a stretch of steps, z (n, B, M) and δ (n, B, N), the first at `start` (from 0).

        measured: name → ‖dW_t‖ (n,) and ‖dW_tb‖ (n, B), from an engine that has them; its `residuals` are then its own.
        """
        for name, use in uses.items():
            shape, steps = self.shapes[name], slice(start, start + of.count(use))
            if self.keep != "norms":
                self.kept.setdefault(name, []).append((start, use))
            if measured is None and self.keep == "norms":
                alone = None if isinstance(use, Ready) else sequence_norms(use)
                self._note_norms(name, steps, norms(use, shape), alone)
                self.by_steps[name] = self.by_steps.get(name, 0) + of.total_by_steps(use, shape)
            elif measured is not None:
                self._note_norms(name, steps, *measured[name])

    def _note_norms(self, name: str, steps: slice, of_steps: Array, of_sequences: Array | None) -> None:
        self.norms.setdefault(name, np.zeros(self.T, self.dtype))[steps] = of_steps
        if of_sequences is not None:
            room = self.sequence_norms.setdefault(name, np.zeros((self.T, self.B), self.dtype))
            room[steps] = of_sequences

    def add_shares(self, start: int, uses: Uses, gradients: Params, inner: Callable[[Use, Array], Array]) -> None:
        """⟨dW_t, dW⟩ / ‖dW‖² of a stretch of steps, once the gradient is known; `inner` gives ⟨dW_t, V⟩ (n,)."""
        for name, use in uses.items():
            if name not in self.units:
                self.units[name] = of.share_scale(gradients[name])
            unit, scale = self.units[name]
            steps = slice(start, start + of.count(use))
            self.shares.setdefault(name, np.zeros(self.T, self.dtype))[steps] = inner(use, unit) / scale

    def state(self, prefix: str, step: int, ds: Any) -> None:
        """∂J/∂s after `step` steps of a scan; parts (B, S)."""
        self._make_room(prefix, [part.shape for part in ds])
        self.states[prefix][step] = pythagoras(np.concatenate(ds, axis=-1))
        if self.keep != "norms":
            for kept, part in zip(self.state_parts[prefix], ds, strict=True):
                kept[step] = part

    def _make_room(self, prefix: str, shapes: list[tuple[int, ...]]) -> None:
        """For ∂J/∂s of a scan, with parts of these shapes (B, S)."""
        if prefix not in self.states:
            self.states[prefix] = np.zeros((self.T + 1, self.B), self.dtype)
            if self.keep != "norms":
                self.state_parts[prefix] = tuple(np.zeros((self.T + 1, *shape), self.dtype) for shape in shapes)

    def add_states(self, prefix: str, first: int, sizes: Array, parts: tuple[Array, ...]) -> None:
        """∂J/∂s after the steps of a scan from the `first` on: its norms (m, B), and its parts (m, B, S)."""
        steps = slice(first, first + len(sizes))
        self._make_room(prefix, [part.shape[1:] for part in parts])
        self.states[prefix][steps] = sizes
        if self.keep != "norms":
            for kept, part in zip(self.state_parts[prefix], parts, strict=True):
                kept[steps] = part

    def add_state(self, prefix: str, step: int, ds: Any) -> None:
        """∂J/∂s after `step` steps of a scan, for some of the losses, parts (K, B, S); adds to what was there."""
        rows = [part.sum(0) for part in ds]
        key = (prefix, step)
        known = self.state_sums.get(key)
        self.state_sums[key] = rows if known is None else [a + b for a, b in zip(known, rows, strict=True)]

    def losses_visitor(self, stack: Any, measure: Callable[..., dict[str, Array]] | None = None) -> Callable[..., None]:
        """What an engine calls at each step (scan, t, ds, uses, first) with δ (K, B, N) of losses first…first + K − 1.

        stack: takes in the same calls where full factors are wanted.
        measure: name → (K,) norms of the uses of one step, given their parameters' shapes; `step_norms` by default.
        """

        def visit(scan: Any, t: int, ds: Any, uses: Uses, first: int) -> None:
            if self.keep == "full":
                stack.visit(scan, t, ds, uses, first)
            shapes = {name: self.shapes[scan.prefix + name] for name in uses}
            for name, column in (measure or step_norms)(uses, shapes).items():
                self.maps[scan.prefix + name][first : first + len(column), t] = column

        return visit

    def add_losses(self, start: int, uses: Uses, own: Uses) -> None:
        """After a stretch: the uses of every loss, δ (K, n, B, N), and `own`, which only their own step's loss sees."""
        for name, use in own.items():
            n = of.count(use)
            steps = np.arange(start, start + n)
            self.maps[name][steps, steps] = norms(use, self.shapes[name])
        if self.keep == "full":
            known: dict[int, Array] = {}
            spread = {name: _spread(use, self.T, start, known) for name, use in own.items()}
            for name, use in (uses | spread).items():
                self.loss_uses.setdefault(name, []).append((start, use))

    def ledger(
        self, losses: Array, gradients: Params, meta: dict[str, Any], places: dict[str, Place], reverse: dict[str, bool]
    ) -> Ledger:
        """The finished ledger, held against the gradient that the engine added up by itself."""
        for (prefix, step), rows in self.state_sums.items():
            self.state(prefix, step, rows)
        meta = meta | {
            "version": VERSION,
            "schema": SCHEMA,
            "keep": self.keep,
            "dtype": str(self.dtype),
            "T": self.T,
            "B": self.B,
        }
        joined: dict[tuple[int, ...], Array] = {}
        uses, loss_uses = (
            {name: _along_time(found[name], shape, joined) for name, shape in self.shapes.items() if name in found}
            for found in (self.kept, self.loss_uses)
        )
        residuals = {name: residual(found, gradients[name]) for name, found in self.by_steps.items()}
        residuals |= self.residuals
        for found in (self.norms, self.sequence_norms, self.shares, self.maps):
            for array in found.values():
                array.flags.writeable = False  # they are handed out as they are
        ordered = [{n: found[n] for n in self.shapes if n in found}
                   for found in (self.norms, self.sequence_norms, self.shares)]  # fmt: skip
        states = {prefix: self.states[prefix] for prefix in reverse}
        state_parts = {prefix: self.state_parts[prefix] for prefix in reverse if prefix in self.state_parts}
        return Ledger(
            meta, losses, gradients, places, reverse, states, state_parts, uses, loss_uses, self.maps,
            step_norms=ordered[0], step_sequence_norms=ordered[1], step_shares=ordered[2], recorded_residuals=residuals,
        )  # fmt: skip


def step_norms(uses: Uses, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Name → (K,) norms of the uses of one step, z (B, M) or ids (B,), δ (K, B, N)."""
    one_step = {name: with_factors(u, lambda z: z[None], lambda d: d[..., None, :, :]) for name, u in uses.items()}
    return {name: norms(use, shapes[name])[:, 0] for name, use in one_step.items()}


def delta_width(shapes: dict[str, tuple[int, ...]]) -> int:
    """Numbers of δ per step and sequence: parameters of one layer with the same width share theirs."""
    return sum(width for _, width in {(name.rpartition(".")[0], shape[-1]) for name, shape in shapes.items()})


def _spread(use: Use, T: int, start: int, known: dict[int, Array]) -> Use:
    """A readout's use, which only its own step's loss sees: δ (n, B, N) as δ (K, n, B, N); W and b share it."""

    def by_loss(own: Array) -> Array:
        if id(own) not in known:
            n = len(own)
            known[id(own)] = delta = np.zeros((T, *own.shape), own.dtype)
            delta[np.arange(start, start + n), np.arange(n)] = own
        return known[id(own)]

    return with_factors(use, delta=by_loss)


def _along_time(stretches: list[tuple[int, Use]], shape: tuple[int, ...], joined: dict[tuple[int, ...], Array]) -> Use:
    """Stretches of one use, each with its first step, put together along T in their order.

    Arrays that parameters share are joined once, and stay shared.
    """
    parts = [use for _, use in sorted(stretches, key=lambda stretch: stretch[0])]
    if len(parts) == 1:
        return parts[0]

    def join(arrays: list[Array], axis: int) -> Array:
        key = tuple(map(id, arrays))
        if key not in joined:
            joined[key] = np.concatenate(arrays, axis)
        return joined[key]

    ready = [part.gradients for part in parts if isinstance(part, Ready)]
    if ready:
        return Ready(join(ready, -1 - len(shape)))
    flat = [part.parts if isinstance(part, Columns) else (part,) for part in parts]
    uses: list[Any] = []
    for blocks in zip(*flat, strict=True):
        z = [block.z for block in blocks if block.z is not None]
        uses.append(type(blocks[0])(join(z, 0) if z else None, join([block.delta for block in blocks], -3)))
    return Columns(tuple(uses)) if isinstance(parts[0], Columns) else uses[0]

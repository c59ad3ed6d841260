"""What a tracer has seen, as a ledger: the uses of each parameter in the order of their calls, put together."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bptt.ledger import Ledger, Place
from bptt.ledger.files import SCHEMA
from bptt.ledger.norms import norm
from bptt.ledger.reductions import count, first, matrices
from bptt.trace.torch.measured import measure
from bptt.trace.torch.returned import gradient, loss_values, reused
from bptt.trace.torch.uses import Record, check_version, to_array, use_of
from bptt.trace.torch.walks import Walk, Walked
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Linear, Matmul, Ready, Use, with_factors
from bptt.version import VERSION

GATES = {"rnn": (), "gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}


def entries(tracer: Any) -> dict[str, list[Walked]]:
    """Parameter → its uses, one entry for a call or for all steps of a walk, in the order of the calls."""
    found: dict[str, list[Walked]] = {}
    walked, known = {name for walk in tracer.walks for name in walk.uses}, {}
    for name, records in tracer.records.items():
        shape = tuple(tracer.parameters[name].shape)
        use = None if tracer.handles or name in walked else _at_once(name, records, known)
        if use is not None:
            found[name] = [Walked(records[0].order, use)]
        else:
            found[name] = [Walked(r.order, _one(name, r, shape)) for r in records]
    for walk in tracer.walks:
        for name, uses in walk.uses.items():
            found.setdefault(name, []).extend(uses)
    scaled = found if tracer.scale == 1 else {n: [_scaled(w, 1 / tracer.scale) for w in ws] for n, ws in found.items()}
    return {name: sorted(scaled[name], key=lambda entry: entry.order) for name in tracer.parameters if name in scaled}


def _at_once(name: str, records: list[Record], known: dict[Any, Array]) -> Use | None:
    """All uses of a parameter that is used in the same way at every step; None where it is not so.

    known: what was stacked for other parameters, by what of.
    """
    head = records[0]
    if head.kind not in ("linear", "matmul", "bias") or len(records) == 1:
        return None
    deltas, inputs, last = [], [], ()
    for record in records:
        delta, z = record.signal.delta, record.z
        if (
            record.kind != head.kind or record.turned or delta is None or delta.dim() != 2 or record.order <= last
            or (z is not None and z.shape[:-1] != delta.shape[:1])
        ):  # fmt: skip
            return None
        last = record.order
        check_version(name, z, record.version)
        deltas.append(delta)
        inputs.append(z)
    if head.z is None:
        stacked = _stack(deltas, known)
        return None if stacked is None else Elementwise(None, stacked)
    delta, z = _stack(deltas, known), _stack(inputs, known)
    if delta is None or z is None:
        return None
    return Linear(z, delta) if head.kind == "linear" else Matmul(z, delta)


def _stack(tensors: list[Any], known: dict[Any, Array]) -> Array | None:
    """(n, R, N) of tensors (R, N); None where their shapes differ."""
    key = tuple(map(id, tensors))
    if key not in known:
        if any(tensor.shape != tensors[0].shape or tensor.dtype != tensors[0].dtype for tensor in tensors):
            return None
        known[key] = to_array(torch.stack(tensors))
    return known[key]


def _one(name: str, record: Record, shape: tuple[int, ...]) -> Use:
    check_version(name, record.z, record.version)
    delta = record.signal.delta
    return use_of(record, _nothing(record, shape) if delta is None else delta)


def _scaled(walked: Walked, by: float) -> Walked:
    """The same use of a loss that was scaled."""
    norms, by_sequence = (None if a is None else a * by for a in (walked.norms, walked.sequence_norms))
    use = with_factors(walked.use, delta=lambda d: d * by)
    return walked._replace(use=use, norms=norms, sequence_norms=by_sequence)


def _nothing(record: Record, shape: tuple[int, ...]) -> torch.Tensor:
    """The adjoint of a call that nothing came back to."""
    if record.kind == "ready":
        return torch.zeros(shape)
    width = shape[-1] if record.kind in ("matmul", "ids") else shape[0]
    lead = (1,) if record.z is None else record.z.shape if record.kind == "ids" else record.z.shape[:-1]
    dtype = None if record.z is None or record.kind == "ids" else record.z.dtype
    return torch.zeros((width, *lead) if record.turned else (*lead, width), dtype=dtype)


Known = dict[Any, Array]  # arrays that were put together, by what of


def joined(uses: list[Use], shape: tuple[int, ...], losses: int = 0, known: Known | None = None) -> Use:
    """Uses one after the other: factors where all are of one kind, dW_t of each where they are not.

    losses: 1 where δ has an axis of losses before that of the steps.
    known: of other parameters, which may share their factors.
    """
    known = {} if known is None else known
    if len(uses) == 1:
        return uses[0]
    kind = type(uses[0])
    if kind in (Ready, Columns) or any(type(use) is not kind for use in uses) or not _fit(uses):
        return Ready(np.concatenate([matrices(use, shape) for use in uses], losses))
    delta = _stacked([first(use).delta for use in uses], losses, known)  # type: ignore[arg-type]
    if kind is Elementwise:
        return Elementwise(None, delta)
    return kind(_stacked([use.z for use in uses], 0, known), delta)  # type: ignore[union-attr, call-arg]


def of_losses(uses: list[Use], shape: tuple[int, ...]) -> Use:
    """The same uses as some losses and as the next losses see them: δ (K, n, B, N) put together along K."""
    if len(uses) == 1:
        return uses[0]
    if any(isinstance(use, Ready) for use in uses):
        return Ready(np.concatenate([matrices(use, shape) for use in uses]))
    delta = np.concatenate([first(use).delta for use in uses])  # type: ignore[arg-type]
    return with_factors(uses[0], delta=lambda _: delta)


def _fit(uses: list[Use]) -> bool:
    """Whether the inputs are all ids, or all rows."""
    return len({use.z.dtype.kind for use in uses if isinstance(use, Matmul | Linear)}) <= 1


def _stacked(parts: list[Array], along: int, known: Known) -> Array:
    """Put together along an axis; the next one is that of the rows: with rows of zeros where a step has fewer."""
    axis = along + 1
    key = (along, *((part.__array_interface__["data"][0], part.shape, part.strides) for part in parts))
    if key not in known:
        most = max(part.shape[axis] for part in parts)
        known[key] = np.concatenate([
            part if part.shape[axis] == most
            else np.pad(part, [(0, most - n if i == axis else 0) for i, n in enumerate(part.shape)])
            for part in parts
        ], along)  # fmt: skip
    return known[key]


def states(walks: list[Walk], scale: float) -> tuple[dict[str, Array], dict[str, tuple[Array, ...]], dict[str, bool]]:
    """‖∂J/∂s‖ (T + 1, B), its parts, and the direction, by prefix; walks that go on from each other are one."""
    chains: dict[str, list[Walk]] = {}
    for walk in walks:
        if walk.sizes is None:
            continue
        prefix, n = walk.scan.prefix, 1
        while prefix in chains and not chains[prefix][-1].goes_on(walk):
            n += 1
            prefix = f"{walk.scan.prefix.rstrip('.')}#{n}."
        chains.setdefault(prefix, []).append(walk)
    sizes = {prefix: _unscaled(_chained([w.sizes for w in chain]), scale) for prefix, chain in chains.items()}
    parts = {
        prefix: tuple(_unscaled(_chained(list(column)), scale) for column in zip(*(w.states for w in ws), strict=True))
        for prefix, ws in chains.items()
        if all(w.states for w in ws)
    }
    return sizes, parts, {prefix: chain[0].scan.reverse for prefix, chain in chains.items()}


def _chained(pieces: list[Any]) -> Array:
    """Each from the state before to the state after, which is where the next begins and has its own output in it."""
    return pieces[0] if len(pieces) == 1 else np.concatenate([pieces[0]] + [piece[1:] for piece in pieces[1:]])


def _unscaled(a: Array, scale: float) -> Array:
    return a if scale == 1 else a / scale


def place_of(walk: Walk, slot: str) -> Place:
    """Where a parameter of a fused layer stands."""
    gates = () if slot == "w_hr" else GATES[walk.scan.kind]
    return Place(walk.scan.prefix, walk.scan.reverse, gates, 0)


def ledger(tracer: Any, meta: dict[str, Any], losses: Any = None) -> Ledger:
    """The ledger of all uses of every parameter that was used more than once, or in a fused layer."""
    several = set(reused(tracer))
    found = {name: uses for name, uses in entries(tracer).items() if name in several}
    shapes = {name: tuple(tracer.parameters[name].shape) for name in found}
    known: Known = {}
    uses = {name: joined([entry.use for entry in found[name]], shapes[name], known=known) for name in found}
    gradients = {name: gradient(tracer, name) for name in found}
    places = {name: tracer.places.get(name, Place(axis=0)) for name in found}
    for walk in tracer.walks:
        places |= {s.name: place_of(walk, slot) for slot, s in walk.sources.items() if s.name in found}
    sizes, parts, reverse = states(tracer.walks, tracer.scale)
    by_step, by_sequence = _measured(found)
    tracer.measured = measure({name: use for name, use in uses.items() if name not in by_step}, gradients)
    by_step |= {name: one.norms for name, one in tracer.measured.items()}
    by_sequence |= {name: one.sequence_norms for name, one in tracer.measured.items()}
    dtype = str(next(iter(gradients.values())).dtype)
    meta |= {"version": VERSION, "schema": SCHEMA, "keep": tracer.keep, "dtype": dtype}
    meta |= {"T": max(count(use) for use in uses.values())} | _sequences(tracer.walks)
    own = {} if losses is None else losses.contributions({n: [e.order for e in found[n]] for n in found})
    made = Ledger(
        meta, loss_values(tracer) if losses is None else losses.values, gradients, places, reverse, sizes, parts,
        uses=uses, step_norms=by_step, step_sequence_norms=by_sequence, **own,
    )  # fmt: skip
    return _norms_only(made, _residuals(made, found, tracer)) if tracer.keep == "norms" else made


def adds_up(ledger: Ledger, name: str, limit: float, gap: float | None = None) -> bool:
    """Whether the uses of a parameter add up to its gradient, as seen along one direction: much less work than all.

    gap: ‖Σ_t dW_t − dW‖ if that is known.
    limit: of the difference, relative to the largest of what is added, well above rounding.
    Of numbers that are not finite nothing can be said.
    """
    use, dW = ledger.uses.get(name), ledger.gradient(name)
    if not np.isfinite(dW).all():
        return True
    if gap is not None:
        return gap <= limit * max(norm(dW), ledger.norms(name).max(initial=0))
    if use is None:
        return ledger.residuals[name] <= limit
    along = np.cos(np.arange(1, dW.shape[-1] + 1)).astype(dW.dtype)
    wanted = dW @ along
    found, scale = np.zeros_like(wanted), np.abs(wanted).max(initial=0)
    for part in _along(use, along, wanted):
        found, scale = found + part, max(scale, np.abs(part).max(initial=0))
    return bool(np.abs(found - wanted).max(initial=0) <= limit * scale)


def _along(use: Use, v: Array, like: Array) -> Iterator[Array]:
    """dW_t v of every step, one after the other, each of the shape of `like`."""
    if isinstance(use, Ready):
        yield from (g @ v for g in use.gradients)
    elif isinstance(use, Elementwise):
        yield from (d.sum(0) @ v for d in use.delta)
    elif isinstance(use, Linear):
        yield from ((z @ v) @ d for z, d in zip(use.z, use.delta, strict=True))
    elif isinstance(use, Matmul):
        for z, d in zip(use.z, use.delta, strict=True):
            if z.ndim > 1:
                yield z.T @ (d @ v)
            else:
                out = np.zeros_like(like)
                np.add.at(out, z, d @ v)
                yield out


def _sequences(walks: list[Walk]) -> dict[str, int]:
    """B, where all walks agree on it."""
    found = {walk.B for walk in walks}
    return {"B": found.pop()} if len(found) == 1 else {}


def _norms_only(full: Ledger, residuals: dict[str, float]) -> Ledger:
    """T numbers for each parameter, and nothing that is large."""
    by_step = {name: full.norms(name) for name in full.names}
    return dataclasses.replace(full, uses={}, step_norms=by_step, recorded_residuals=residuals)


def _residuals(full: Ledger, found: dict[str, list[Walked]], tracer: Any) -> dict[str, float]:
    """Of every parameter; as its engine measured it where torch was left with the very sum that it handed over."""
    out = {
        name: walked[0].residual for name, walked in found.items()
        if len(walked) == 1 and walked[0].residual is not None and name in tracer.untouched
    }  # fmt: skip
    sizes = {name: norm(full.gradients[name]) for name in tracer.measured}
    out |= {name: one.gap / sizes[name] for name, one in tracer.measured.items() if sizes[name] > 0}
    rest = dataclasses.replace(full, uses={name: use for name, use in full.uses.items() if name not in out})
    ordered = out | (rest.residuals if rest.uses else {})
    return {name: ordered[name] for name in full.names}


def _measured(found: dict[str, list[Walked]]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Norms by step and by sequence, of what was measured on the way back."""
    by_step, by_sequence = {}, {}
    for name, walked in found.items():
        if all(entry.norms is not None for entry in walked):
            by_step[name] = np.concatenate([entry.norms for entry in walked])  # type: ignore[misc]
            if len({entry.sequence_norms.shape[1] for entry in walked}) == 1:  # type: ignore[union-attr]
                by_sequence[name] = np.concatenate([entry.sequence_norms for entry in walked])  # type: ignore[misc]
    return by_step, by_sequence

"""Every loss on its own: the adjoints of many losses walk back at once, as more rows of the same products.

autograd takes a batch of adjoints from the losses to all tensors that uses listen to (`is_grads_batched`). A walk on
the compiled engine hands nothing on while that happens: it is walked back by itself, with the adjoints that came to its
outputs, and autograd goes on from its inputs.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bptt.errors import InputError, ShapeError
from bptt.ledger.norms import norms
from bptt.ledger.reductions import matrices
from bptt.trace.torch.uses import to_array, use_of
from bptt.typing import Array
from bptt.uses import Elementwise, Linear, Ready, Use, Uses

BYTES = 256 << 20  # of adjoints on their way at once


class Column(NamedTuple):
    """The uses of a parameter in one call or walk: norms (K, n), and with keep="full" the use with δ (K, n, B, N)."""

    norms: Array
    use: Use | None


class Losses:
    """K losses, and what each says of every use.

    Raises:
        InputError, ShapeError: they are no vector, depend on nothing, or `at` does not fit.
    """

    def __init__(self, tracer: Any, losses: Tensor, at: Any):
        if not isinstance(losses, Tensor) or losses.dim() != 1 or not len(losses):
            got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ShapeError("losses", got=got, expected="(K,), one loss per step", do="Add up over the batch first.")
        if losses.grad_fn is None:
            raise InputError("losses", got="numbers without a graph", expected="losses of the model's outputs")
        self.tracer, self.losses, self.K, self.steps = tracer, losses, len(losses), _positions(at, len(losses))
        self.values = losses.detach().double().cpu().numpy()
        self.columns: dict[tuple[str, tuple[int, ...]], list[Column]] = {}

    def sweep(self) -> None:
        """All losses, as many at a time as fit."""
        tracer = self.tracer
        before = tracer.quiet, tracer.cutting
        tracer.quiet = tracer.cutting = True
        try:
            targets = self._targets()
            self.owned = Owners(self.losses).of([walk.outputs[0] for walk in tracer.walks if walk.listener is None])
            self.direct = self._reached([t for t in targets if id(t) not in self.owned])
            dense = self.direct if len(tracer.walks) < 2 else targets
            sizes = [t.numel() * t.element_size() for t in dense if isinstance(t, Tensor)]
            many = max(1, BYTES // max(1, sum(sizes)))
            for low in range(0, self.K, many):
                self._sweep(low, min(low + many, self.K), targets)
        finally:
            tracer.quiet, tracer.cutting = before
            for walk in tracer.walks:
                walk.node = None

    def _reached(self, targets: list[Tensor]) -> list[Tensor]:
        """Those that the losses reach otherwise than through a walk, found by one pass for all."""
        if not targets:
            return []
        ones = torch.ones_like(self.losses)
        found = torch.autograd.grad(self.losses, targets, ones, retain_graph=True, allow_unused=True)
        return [target for target, adjoint in zip(targets, found, strict=True) if adjoint is not None]

    def _targets(self) -> list[Tensor]:
        """Every tensor that an adjoint is wanted of."""
        found = [r.handle for records in self.tracer.records.values() for r in records]
        for walk in self.tracer.walks:
            found += walk.outputs
            if walk.listener is not None:
                for heard in walk.listener.heard.values():
                    found += [heard.handles] if isinstance(heard.handles, Tensor) else heard.handles
        return list({id(t): t for t in found if t is not None and getattr(t, "requires_grad", True)}.values())

    def _sweep(self, low: int, high: int, targets: list[Tensor]) -> None:
        adjoints: dict[int, Tensor] = {}
        if self.direct:
            eye = torch.eye(self.K, dtype=self.losses.dtype, device=self.losses.device)[low:high]
            _add(adjoints, [self.losses], [eye], self.direct)
        for walk in reversed(self.tracer.walks):
            if walk.listener is None:
                self._walk(walk, adjoints, targets, range(low, high))
            else:
                self._unrolled(walk, adjoints, high - low)
        for name, records in self.tracer.records.items():
            for record in records:
                delta = adjoints.get(id(record.handle))
                if record.source is not None and record.source.name is None and delta is not None:
                    delta = self.tracer.pull(record.source, delta, [name], batched=True)[name]
                elif record.source is not None and record.source.flipped and delta is not None:
                    delta = delta.mT
                self._take(name, record.order, None if delta is None else use_of(record, delta, 1), high - low, 1)

    def _take(self, name: str, order: tuple[int, ...], use: Use | None, K: int, n: int) -> None:
        """What some losses say of the uses of one call."""
        shape, keep = tuple(self.tracer.parameters[name].shape), self.tracer.keep == "full"
        sizes = np.zeros((K, n)) if use is None else norms(use, shape)
        if keep and use is None:
            use = Ready(np.zeros((K, n, *shape), np.float32))
        self.columns.setdefault((name, order), []).append(Column(sizes, use if keep else None))

    # ---- fused layers ------------------------------------------------------------------------------------------

    def _unrolled(self, walk: Any, adjoints: dict[int, Tensor], K: int) -> None:
        uses: Uses = {}
        for slot, heard in walk.listener.heard.items():
            uses[slot] = Linear(*heard.arrays(adjoints, K))
        for bias, product in (("b_ih", "w_ih"), ("b_hh", "w_hh")):
            if product in uses:
                uses[bias] = Elementwise(None, uses[product].delta)  # type: ignore[union-attr]
        for slot, use in uses.items():
            if walk.places.get(slot) is not None:
                self._take(walk.sources[slot].name, walk.places[slot], use, K, walk.T)

    def _walk(self, walk: Any, adjoints: dict[int, Tensor], targets: list[Tensor], losses: range) -> None:
        outs, *ends = [adjoints.get(id(t)) for t in walk.outputs]
        own = self.owned.get(id(walk.outputs[0]))
        if own is None and outs is None and all(end is None for end in ends):
            self._nothing(walk, len(losses))
            return
        wants = [t.requires_grad for t in walk.inputs]
        came = _adjoints(outs, own, losses)
        dx, ds, said = walk.back_losses(walk.node, came, ends, len(losses), wants[0], self.tracer.keep == "full")
        for slot, (sizes, use) in said.items():
            self._slot(walk, slot, sizes, use)
        onward = [(t, d) for t, d in zip(walk.inputs, [dx, *ds], strict=True) if t.requires_grad and d is not None]
        if onward:
            _add(adjoints, [t for t, _ in onward], [d for _, d in onward], targets)

    def _nothing(self, walk: Any, K: int) -> None:
        for slot, source in walk.sources.items():
            if walk.places[slot] is not None:
                for name in source.names:
                    self._take(name, walk.places[slot], None, K, walk.T)

    def _slot(self, walk: Any, slot: str, sizes: Array, use: Use | None) -> None:
        """One weight of a walk; of what was worked out from parameters, as gradients by these."""
        source, place = walk.sources.get(slot), walk.places.get(slot)
        if source is None or place is None:
            return
        keep = self.tracer.keep == "full"
        if use is None and (keep or source.name is None or source.flipped):  # no loss said anything
            for name in source.names:
                self._take(name, place, None, *sizes.shape)
            return
        if source.name is not None and not source.flipped:
            self.columns.setdefault((source.name, place), []).append(Column(sizes, use if keep else None))
            return
        assert use is not None
        made = matrices(use, tuple(source.tensor.shape))
        rows = torch.from_numpy(made.reshape(-1, *made.shape[2:])).to(source.tensor)
        found = (
            {source.name: rows.mT} if source.name else self.tracer.pull(source, rows, list(source.names), batched=True)
        )
        for name, g in found.items():
            ready = Ready(g.reshape(*made.shape[:2], *g.shape[1:]).cpu().numpy())
            self._take(name, place, ready, *made.shape[:2])

    # ---- for the ledger ----------------------------------------------------------------------------------------

    def contributions(self, orders: dict[str, list[Any]]) -> dict[str, Any]:
        """maps, and with keep="full" loss_uses, of parameters whose calls came in these orders; and loss_steps."""
        from bptt.trace.torch.assemble import joined, of_losses

        maps, uses = {}, {}
        for name, places in orders.items():
            if any((name, order) not in self.columns for order in places):
                got = "a checkpoint with reentry, which builds its graph only when all go back together"
                raise InputError("each loss on its own", got=got, expected="a graph", do="Say use_reentrant=False.")
            parts = [self.columns[name, order] for order in places]
            maps[name] = np.concatenate([np.concatenate([c.norms for c in some]) for some in parts], axis=1)
            if self.tracer.keep == "full":
                shape = tuple(self.tracer.parameters[name].shape)
                each = [of_losses([c.use for c in some], shape) for some in parts]  # type: ignore[misc]
                uses[name] = joined(each, shape, 1)
        steps = {} if self.steps is None else {"loss_steps": self.steps}
        return {"maps": maps, "loss_uses": uses} | steps


def _adjoints(outs: Tensor | None, own: Any, losses: range) -> Any:
    """Of a walk's outputs by some of the losses."""
    from bptt.engine.compiled.layer import Adjoints

    every = None if outs is None else to_array(outs)
    if own is None:
        return Adjoints(len(losses), every)
    total, who = own
    inside = (who >= losses.start) & (who < losses.stop)
    total = np.where(inside[:, None, None], total, total.dtype.type(0)) if not inside.all() else total
    return Adjoints(len(losses), every, total, np.where(inside, who - losses.start, 0))


class Owners:
    """Which of the losses speaks of a step, where it is one alone: as a loss for every step does.

    The losses are sent back together, once as they are and once for each binary digit of their number, in which those
    that have the digit count twice. Doubling is exact in floating point: so where all that comes to a step is just
    doubled, or just the same, in every digit, it came from the loss with this number and from no other.
    """

    def __init__(self, losses: Tensor):
        K = len(losses)
        digits = [(torch.arange(K) >> bit) & 1 for bit in range(max(1, (K - 1).bit_length()))]
        self.losses, self.weights = losses, [torch.ones(K), *(1 + digit for digit in digits)]

    def of(self, outputs: list[Tensor]) -> dict[int, tuple[Array, Array]]:
        """id of an output (T, B, W) → its adjoint by all losses, and the loss (T,) that each step of it belongs to.

        Outputs that some step of belongs to several losses are left out.
        """
        if not outputs:
            return {}
        came = [
            torch.autograd.grad(self.losses, outputs, w.to(self.losses), retain_graph=True, allow_unused=True)
            for w in self.weights
        ]
        found = {}
        for output, *each in zip(outputs, *came, strict=True):
            if each[0] is not None:
                owner = _owner([to_array(part) for part in each])
                if owner is not None:
                    found[id(output)] = (np.ascontiguousarray(to_array(each[0])), owner)
        return found


def _owner(came: list[Array]) -> Array | None:
    """(T,) the number whose digits say which of the adjoints were doubled; None where at some step that is none."""
    whole, T = came[0], len(came[0])
    owner = np.zeros(T, int)
    for bit, part in enumerate(came[1:]):
        same, twice = ((part == times * whole).reshape(T, -1).all(1) for times in (1, 2))
        if not (same | twice).all():
            return None
        owner += np.where(same, 0, 1 << bit)
    return owner


def _positions(at: Any, K: int) -> Array | None:
    if at is None:
        return None
    at = np.asarray(at)
    if at.shape != (K,) or at.dtype.kind not in "iu" or (K and at.min() < 1):
        raise ShapeError("at", got=f"{at.tolist()}", expected=f"{K} steps, counted from 1: one for each loss")
    return at


def _add(adjoints: dict[int, Tensor], outputs: list[Tensor], given: list[Tensor], targets: list[Tensor]) -> None:
    """A batch of adjoints taken from outputs to targets, added to what came there before."""
    found = _batched(outputs, targets, given)
    for target, adjoint in zip(targets, found, strict=True):
        if adjoint is not None:
            known = adjoints.get(id(target))
            adjoints[id(target)] = adjoint if known is None else known + adjoint


def _batched(outputs: list[Tensor], targets: list[Tensor], given: list[Tensor]) -> list[Tensor | None]:
    """Gradients of a batch of adjoints, all at once; one by one where the graph has a part that takes no batch.

    Such are functions of the program's own that go by NumPy, and checkpoints with random numbers in them.
    """
    try:
        found = torch.autograd.grad(
            outputs, targets, given, retain_graph=True, is_grads_batched=True, allow_unused=True
        )  # fmt: skip
        return list(found)
    except RuntimeError as error:
        if not any(word in str(error) for word in ("vmap", "atching rule", "storage")):
            raise
    rows = [
        torch.autograd.grad(outputs, targets, [g[k] for g in given], retain_graph=True, allow_unused=True)
        for k in range(len(given[0]))
    ]
    return [None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True)]

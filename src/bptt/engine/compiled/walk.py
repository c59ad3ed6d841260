"""One layer in one direction over a stretch of steps, forward and back, and the layers of a network one on the other.

It divides the work between threads and hands whole sequences to the kernels of a cell; plans and losses are not its
business. A walk may be kept in blocks of a few steps, whose tapes are made again from the state before them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bptt.cells import GRU, LSTM, RNN, pick
from bptt.engine.compiled.emit import panel
from bptt.engine.compiled.gru import GRUKernel
from bptt.engine.compiled.lstm import LSTMKernel
from bptt.engine.compiled.memory import aligned
from bptt.engine.compiled.product import multiply_rows, packed
from bptt.engine.compiled.rnn import RNNKernel
from bptt.engine.compiled.threads import CROWD, WORTH, Part, parts, run, spread
from bptt.model import Network, Scan, States
from bptt.typing import Array
from bptt.uses import Uses, with_factors

KERNELS: dict[type, Any] = {RNN: RNNKernel, GRU: GRUKernel, LSTM: LSTMKernel}
NO_IDS, NO_FLAGS, NO_CUT = np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.int8)
ALL = (-1, 0, 0)  # all losses added up
_COMPILED: set[Any] = set()  # what has been called once in this process, in the types of its walk


class Block(NamedTuple):
    """What came of a walk back over the steps low…high − 1 of a stretch.

    uses: short name → z (m, B, M), δ (m, B, N).
    sizes, states: ‖∂J/∂s‖ (m, B) after each step, or its parts (m, B, S); None and empty if not wanted.
    """

    low: int
    high: int
    uses: Uses
    sizes: Array | None
    states: tuple[Array, ...]


class Layers:
    """The kernels and packed weights of a network, for as long as its parameters stay as they are."""

    def __init__(self, network: Network, threads: int):
        self.network, self.threads, self.dtype = network, threads, network.dtype
        self.kernel = KERNELS[type(network.cell)](network.cell)
        self.params = {name: np.asarray(value, self.dtype) for name, value in network.params.items()}
        self.known: dict[tuple[str, str], Any] = {}

    def of(self, scan: Scan, way: str, ids: bool = False) -> Any:
        """Weights of a scan packed for the way "forward", "back" or "inputs" (W_xhᵀ)."""
        key = (scan.prefix, way)
        if key not in self.known:
            p = pick(self.network.cell, self.params, scan.prefix)
            if way == "forward":
                self.known[key] = self.kernel.weights(p, ids)
            else:
                self.known[key] = self.kernel.weights_back(p) if way == "back" else packed(p.W_xh, transposed=True)
        return self.known[key]

    def readout(self, top: Array) -> Array:
        """y = h W + b at every step; h itself where there is no readout."""
        if self.network.outputs is None:
            return top
        y = np.empty((*top.shape[:-1], self.network.width), top.dtype)
        y[:] = self.params["readout.b"]
        self.add_product(top, packed(self.params["readout.W"]), y)
        return y

    def readout_back(self, dy: Array) -> Array:
        """The adjoint of the last layer's output, dy Wᵀ."""
        W = self.params["readout.W"]
        out = np.zeros((*dy.shape[:-1], W.shape[0]), dy.dtype)
        self.add_product(dy, packed(W, transposed=True), out)
        return out

    def add_product(self, A: Array, P: Array, into: Array) -> None:
        """into (…, N) += A (…, K) B for P = packed(B)."""
        K, N, width = A.shape[-1], into.shape[-1], panel(A.itemsize)
        rows, source, out = A.size // K, np.ascontiguousarray(A).reshape(-1), into.reshape(-1)
        threads = self.threads if rows * K * N >= WORTH else 1
        run(lambda part: multiply_rows(source, *part, K, P, width, out, N), spread(rows, threads, 8))


class Walk:
    """One scan over x (n, B, D) or ids (n, B), from the state s.

    valid: (n, B) or None.  every: steps of a block whose tape is kept at a time; None for all.
    """

    def __init__(self, layers: Layers, scan: Scan, x: Array, s: Any, valid: Array | None, every: int | None):
        self.layers, self.scan, self.x, self.valid = layers, scan, x, valid
        self.n, self.B = x.shape[:2]
        self.ids = x.dtype.kind in "iu"
        self.flags = NO_FLAGS if valid is None else np.ascontiguousarray(valid).reshape(-1)
        every = every or self.n
        edges = [(low, min(low + every, self.n)) for low in range(0, self.n, every)]
        if scan.reverse:  # the first block walked is the last in time; short blocks come last, as walked
            edges = [(self.n - high, self.n - low) for low, high in edges]
        self.blocks, self.kept, self.current = edges, [], -1
        self.tape: Any = None
        self.output, self.state = self._forward(s)

    def _forward(self, s: Any) -> tuple[Array, Any]:
        """Outputs (n, B, W), 0 where a sequence has ended, and the state after."""
        out = np.empty(0)
        for i, (low, high) in enumerate(self.blocks):
            self.kept.append(s)
            self._walk(i)
            parts = self.layers.kernel.states(self.tape)
            last = 0 if self.scan.reverse else -1
            s = type(s)(*(part[last].copy() for part in parts))
            h = parts[0][:-1] if self.scan.reverse else parts[0][1:]
            if len(self.blocks) > 1:
                out = np.empty((self.n, *h.shape[1:]), h.dtype) if not out.size else out
                out[low:high] = h
            else:
                out = h
        if self.valid is not None:
            out = np.where(self.valid[..., None], out, out.dtype.type(0))
        return out, s

    def _walk(self, i: int) -> None:
        """Make the tape of a block."""
        (low, high), s, kernel = self.blocks[i], self.kept[i], self.layers.kernel
        self.current, self.tape = i, kernel.tape(high - low, self.B, self.layers.dtype)
        for part, value in zip(kernel.states(self.tape), s, strict=True):
            part[-1 if self.scan.reverse else 0] = value
        x = self.x[low:high].reshape(-1)
        x, ids = (np.empty(0, self.tape.h.dtype), x) if self.ids else (x, NO_IDS)
        w, flags = self.layers.of(self.scan, "forward", self.ids), self._flags(low, high)
        self._run("forward", self._parts(self.B, high - low), self.B, high - low, lambda how: kernel.forward(
            w, self.tape, x, ids, flags, self.scan.reverse, how))  # fmt: skip

    def _flags(self, low: int, high: int) -> Array:
        return self.flags[low * self.B : high * self.B] if self.flags.size else self.flags

    def _parts(self, rows: int, steps: int) -> list[Part]:
        """All rows and units, in as many parts as is worth it."""
        cell, dtype = self.layers.network.cell, self.layers.dtype
        H, N = cell.hidden, len(cell.gates) * cell.hidden
        work, weights = rows * steps * N * (cell.width + self.scan.inputs), N * cell.width * dtype.itemsize
        threads, divisible = self.layers.threads, self.layers.kernel.divisible
        return parts(rows, H, panel(dtype.itemsize), work, weights, threads, divisible)

    def _run(self, way: str, divided: list[Part], rows: int, steps: int, do: Callable[[Any], None]) -> None:
        """Run a kernel for all parts; do(how), as the cells' kernels take it."""
        key = (type(self.layers.kernel), way, self.layers.dtype, self.ids, self.valid is None)
        H, sizes = self.layers.network.cell.hidden, (steps, self.B, self.scan.inputs)
        width, counter = panel(self.layers.dtype.itemsize), np.zeros(3, np.int64)
        meeting = divided[0].units != (0, H)

        def fail() -> None:
            counter[2] = 1

        def work_on(part: Part) -> None:
            do((width, sizes, part.rows, part.units, counter, len(divided) if part.units != (0, H) else 1))

        if meeting and key not in _COMPILED:  # whoever compiles keeps the others waiting
            do((width, sizes, (0, 0), (0, H), counter, 1))
            _COMPILED.add(key)
        together = run(work_on, divided, [Part((0, rows), (0, H))] if meeting else None, fail if meeting else None)
        if meeting and together:
            CROWD.heard(int(counter[1]), steps)

    def back(self, dtop: Array, ds: Any, cut: Array, wants: str | None) -> Iterator[Block]:
        """Walk back, block by block; ds, the adjoint of the state after, becomes that of the state before.

        dtop: (n, B, W) adjoint of the outputs.  cut: (n,) steps behind which the adjoint ends, or empty.
        wants: "norms" or "parts" of the adjoint of the state at every step, or None.
        """
        kernel, dtype, flat = self.layers.kernel, self.layers.dtype, dtop.reshape(self.n, -1)
        for i in reversed(range(len(self.blocks))):
            if i != self.current:
                self._walk(i)
            low, high = self.blocks[i]
            m, w = high - low, self.layers.of(self.scan, "back")
            divided = self._parts(self.B, m)
            by_units = divided[0].units != (0, self.layers.network.cell.hidden)
            norms = wants == "norms" and not by_units  # whoever has some of the units has no norm
            sizes = np.empty((m + 1, self.B) if norms else (0, 0), dtype)
            shape = (m + 1, self.B) if wants and not norms else (0, 0)
            states = tuple(aligned((*shape, part.shape[-1]), dtype) for part in ds)
            deltas, scratch = kernel.deltas(m * self.B, dtype), kernel.scratch(self.B, dtype)
            args = (
                w, self.tape, deltas, scratch, flat[low:high].reshape(-1), ds,
                (sizes.reshape(-1), *(s.reshape(-1) for s in states)), self._flags(low, high), cut[low:high],
                self.scan.reverse, ALL, (0, m),
            )  # fmt: skip
            self._run("back", divided, self.B, m, lambda how, args=args: kernel.back(*args, how))
            shaped = [delta.reshape(-1, self.B, delta.shape[-1]) for delta in deltas]
            here = slice(None, -1) if self.scan.reverse else slice(1, None)
            seen = tuple(s[here] for s in states) if states[0].size else ()
            uses = kernel.uses(self.x[low:high], self.tape, shaped, self.scan.reverse)
            yield Block(low, high, uses, sizes[here] if norms else None, seen)

    def back_step(
        self, t: int, ds: Any, deltas: Any, scratch: Any, cut: Array, lead: Any, first_row: int
    ) -> Uses:  # fmt: skip
        """One step back for many losses at once: ds parts (K·B, S) in place, rows before `first_row` left alone.

        lead: first loss of the rows, how far each reaches, first step of the stretch.
        """
        i = next(i for i, (low, high) in enumerate(self.blocks) if low <= t < high)
        if i != self.current:
            self._walk(i)
        (low, high), kernel, rows = self.blocks[i], self.layers.kernel, len(ds[0])
        at, none = t - low, np.empty(0, deltas[0].dtype)
        args = (
            self.layers.of(self.scan, "back"), self.tape, deltas, scratch, none, ds, (none,) * (len(ds) + 1),
            self._flags(low, high), cut[low:high], self.scan.reverse, (lead[0], lead[1], lead[2] + low), (at, at + 1),
        )  # fmt: skip

        def do(how: Any) -> None:
            width, size, (a, b), units, counter, parties = how
            kernel.back(*args, (width, size, (a + first_row, b + first_row), units, counter, parties))

        self._run("back", self._parts(rows - first_row, 1), rows - first_row, high - low, do)
        shaped = [delta.reshape(-1, self.B, delta.shape[-1]) for delta in deltas]
        tape = type(self.tape)(*(_at(part, at, high - low) for part in self.tape))
        uses = kernel.uses(self.x[t : t + 1], tape, shaped, self.scan.reverse)
        return _first_step(uses)

    def add_inputs(self, da: Array, into: Array) -> None:
        """into (…, B, D) += da W_xhᵀ."""
        self.layers.add_product(da, self.layers.of(self.scan, "inputs"), into)


def contiguous(x: Array) -> Array:
    """Inputs as the kernels want them: ids as int64."""
    return np.require(x, np.int64 if x.dtype.kind in "iu" else None, ["C", "W"])


def forward(
    layers: Layers, x: Array, states: States, valid: Array | None, every: int | None
) -> tuple[dict[str, Walk], Array]:
    """All layers over x (n, B, D) or ids (n, B): the walks by prefix, and the last layer's output (n, B, W)."""
    walks: dict[str, Walk] = {}
    outputs: list[Array] = []
    for scan in layers.network.scans():
        if not scan.reverse and scan.layer:
            x, outputs = joined(outputs), []
        walks[scan.prefix] = walk = Walk(layers, scan, x, states[scan.prefix], valid, every)
        outputs.append(walk.output)
    return walks, joined(outputs)


def outputs(
    network: Network, x: Array, states: States, valid: Array | None, every: int, threads: int
) -> tuple[Array, States]:
    """y (T, B, O) and the states after the last step, in the memory of `every` tapes."""
    layers = Layers(network, threads)
    walks, top = forward(layers, contiguous(x), states, valid, every)
    return layers.readout(top), {prefix: walk.state for prefix, walk in walks.items()}


def joined(outputs: list[Array]) -> Array:
    """The outputs of both directions side by side."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)


def _at(part: Array, t: int, n: int) -> Array:
    """A tape's array at one step, (1, …), or at the states on both sides of it, (2, …)."""
    return part[t : t + 1] if len(part) <= n else part[t : t + 2]


def _first_step(uses: Uses) -> Uses:
    """z (1, B, M) as (B, M); δ (K, B, N) as it is."""
    return {name: with_factors(use, z=lambda z: z[0]) for name, use in uses.items()}

"""A recurrent network: layers of one cell, one or both directions, and a linear readout used at every step.

    h⁰ = x;   hˡ = cell(hˡ⁻¹) forward through time, and backward through time beside it;   y = hᴸ W + b

Parameters are one flat mapping, name → array: `layer0.W_xh`, `layer0.W_hh`, `layer0.b`, …, with `layer0.reverse.W_xh`
for the other direction, and `readout.W`, `readout.b`.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bptt.cells import Cell, initial_state, initialise, make_cell
from bptt.cells.base import check_units
from bptt.cells.init import glorot
from bptt.errors import InputError, NotFiniteError, ShapeError, unknown
from bptt.model.batch import Batch
from bptt.typing import Array, Params

READOUT = "readout."


class Scan(NamedTuple):
    """One layer walked in one direction.

    layer: 0 is next to the input.  reverse: walks from the last step to the first.
    prefix: of its parameters' names.  inputs: D of this layer.
    """

    layer: int
    reverse: bool
    prefix: str
    inputs: int


States = dict[str, Any]  # prefix of the scan → state of its cell


@dataclass(eq=False)
class Network:
    """The network and its parameters.

    Args:
        cell: the cell of every layer.
        inputs: D, width of x, or number of ids where x holds ids.
        outputs: O, width of the readout; None for no readout, y = h of the last layer.
        layers: how many layers.
        bidirectional: whether each layer also walks from the last step to the first; outputs are then concatenated.
        params: name → array; see `Network.create` for fresh ones.

    Raises:
        ShapeError: a parameter is missing, is not known, or has the wrong shape.
    """

    cell: Cell
    inputs: int
    outputs: int | None
    layers: int
    bidirectional: bool
    params: Params

    def __post_init__(self):
        self.check_params()
        if list(self.params) != list(self.shapes()):  # files come back sorted by name
            self.params = {name: self.params[name] for name in self.shapes()}

    def check_params(self) -> None:
        """Raise ShapeError or UnknownName if a parameter is missing, is not known, or has the wrong shape."""
        shapes = self.shapes()
        for name in self.params:
            if name not in shapes:
                raise unknown("parameter", name, shapes)
        for name, shape in shapes.items():
            got = self.params[name].shape if name in self.params else "none"
            if got != shape:
                raise ShapeError(f"parameter {name}", got=got, expected=f"shape {shape} for {self.describe()}")

    @classmethod
    def create(
        cls,
        kind: str = "lstm",
        *,
        inputs: int,
        hidden: int,
        outputs: int | None = None,
        layers: int = 1,
        bidirectional: bool = False,
        seed: int = 0,
        init: str = "orthogonal",
        forget_bias: float = 1.0,
        chrono: int | None = None,
        dtype: Any = np.float64,
        **options: Any,
    ) -> "Network":
        """A network with fresh parameters.

        Args:
            kind: "rnn", "gru" or "lstm"; `options` are that cell's own (nonlinearity, reset, peepholes, projection).
            inputs: D.
            hidden: H.
            outputs: O, or None for no readout.
            layers: number of layers.
            bidirectional: both directions.
            seed: the same seed gives the same parameters.
            init: "glorot", "orthogonal" or "identity", for the recurrent weights (`bptt.cells.init`).
            forget_bias: b_f of an LSTM.
            chrono: T_max for the chrono initialisation, in steps.
            dtype: float64 or float32.

        Raises:
            UnknownName: a kind, option or initialisation that there is not.
            InputError: a size below 1.

        >>> Network.create("lstm", inputs=3, hidden=4, outputs=2).describe()
        'LSTM, D=3, H=4, O=2, 138 parameters'
        """
        for what, size in [("inputs", inputs), ("layers", layers), ("outputs", 1 if outputs is None else outputs)]:
            check_units(what, size)
        if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise InputError("dtype", got=np.dtype(dtype), expected="float32 or float64")
        if isinstance(seed, int | np.integer) and seed < 0:
            raise InputError("seed", got=seed, expected="a whole number, at least 0")
        cell, rng = make_cell(kind, hidden, **options), np.random.default_rng(seed)
        blank = cls.__new__(cls)
        blank.cell, blank.inputs, blank.outputs, blank.layers = cell, inputs, outputs, layers
        blank.bidirectional = bidirectional
        params: Params = {}
        for scan in blank.scans():
            fresh = initialise(cell, scan.inputs, rng, recurrent=init, forget_bias=forget_bias, chrono=chrono)
            params |= {scan.prefix + name: value for name, value in fresh.items()}
        if outputs is not None:
            width = cell.width * blank.directions
            params |= {READOUT + "W": glorot(rng, (width, outputs)), READOUT + "b": np.zeros(outputs)}
        params = {name: value.astype(dtype) for name, value in params.items()}
        return cls(cell, inputs, outputs, layers, bidirectional, params)

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def dtype(self) -> np.dtype:
        """Of the parameters; the network computes in it."""
        return next(iter(self.params.values())).dtype

    @property
    def width(self) -> int:
        """Width of y: O, or that of the last layer's h where there is no readout."""
        return self.cell.width * self.directions if self.outputs is None else self.outputs

    def scans(self) -> list[Scan]:
        """Every layer in every direction, in the order of the forward pass."""
        return list(_scans(self.inputs, self.cell.width, self.layers, self.bidirectional))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every parameter."""
        shapes = {
            scan.prefix + name: shape for scan in self.scans() for name, shape in self.cell.shapes(scan.inputs).items()
        }
        if self.outputs is not None:
            width = self.cell.width * self.directions
            shapes |= {READOUT + "W": (width, self.outputs), READOUT + "b": (self.outputs,)}
        return shapes

    def describe(self) -> str:
        """One line: cell, sizes, number of parameters."""
        sizes = [f"D={self.inputs}", f"H={self.cell.hidden}"]
        sizes += [f"O={self.outputs}"] * (self.outputs is not None)
        sizes += [f"{self.layers} layers"] * (self.layers > 1) + ["both directions"] * self.bidirectional
        count = sum(int(np.prod(shape)) for shape in self.shapes().values())
        return f"{self.cell.name}, {', '.join(sizes)}, {count:,} parameters"

    def initial_states(self, batch: int) -> States:
        """Zeros for every scan: prefix → state with parts (B, S)."""
        return {scan.prefix: initial_state(self.cell, batch, self.dtype) for scan in self.scans()}

    def astype(self, dtype: Any) -> "Network":
        """The same network with its parameters in another dtype."""
        params = {name: value.astype(dtype) for name, value in self.params.items()}
        return Network(self.cell, self.inputs, self.outputs, self.layers, self.bidirectional, params)

    def check_batch(self, batch: Batch) -> None:
        """Raise ShapeError, InputError or NotFiniteError if the batch does not fit; padding may hold anything."""
        self.check_params()
        x = batch.x
        if x.dtype.kind not in "iufc" or (x.dtype.kind == "c" and self.dtype.kind != "c"):
            raise InputError("inputs x", got=f"values of {x.dtype}", expected="real numbers, or integer ids")
        ids = x.dtype.kind in "iu"
        if (ids and x.ndim != 2) or (not ids and (x.ndim != 3 or x.shape[2] != self.inputs)) or 0 in x.shape[:2]:
            expected = f"(T, B, D) = (T, B, {self.inputs}), T and B at least 1, or integer ids (T, B)"
            raise ShapeError("inputs x", got=f"shape {x.shape} of {x.dtype}", expected=expected)
        T, B = x.shape[:2]
        inside = None
        if batch.lengths is not None:
            lengths = np.asarray(batch.lengths)
            whole = lengths.dtype.kind in "iu"
            if lengths.shape != (B,) or not whole or lengths.min() < 1 or lengths.max() > T:
                raise ShapeError("lengths", got=lengths.tolist(), expected=f"{B} whole numbers from 1 to T = {T}")
            inside = np.arange(T)[:, None] < lengths
        if batch.mask is not None and batch.mask.shape != (T, B):
            raise ShapeError("mask", got=f"shape {batch.mask.shape}", expected=f"(T, B) = {(T, B)}")
        if ids:
            used = x if inside is None else x[inside]
            low, high = int(used.min()), int(used.max())
            if low < 0 or high >= self.inputs:
                got = f"id {low if low < 0 else high}"
                raise InputError("inputs x", got=got, expected=f"0 to {self.inputs - 1}")
        require_finite(x, "inputs x", inside)

    def check_states(self, states: States | None, batch: int) -> States:
        """Initial states for B = `batch` sequences, in the network's dtype; zeros for None.

        Raises:
            ShapeError: a part does not have the shape (B, S).  UnknownName: a layer has none.
            InputError: not a state of this cell.
        """
        if states is None:
            return self.initial_states(batch)
        out: States = {}
        for scan in self.scans():
            if scan.prefix not in states:
                raise unknown("initial state", ", ".join(states) or "none", [scan.prefix])
            state, kind, parts = states[scan.prefix], self.cell.State, []
            if not isinstance(state, tuple) or len(state) != len(kind._fields):
                expected = f"{kind.__name__}({', '.join(kind._fields)})"
                what = f"initial state of {scan.prefix[:-1]}"
                raise InputError(what, got=type(state).__name__, expected=expected)
            for part, value, width in zip(kind._fields, state, self.cell.state_widths(), strict=True):
                value = np.asarray(value)
                if value.shape != (batch, width):
                    do = f"If it came from torch, drop its layer axis: {part}[0]." if value.ndim == 3 else None
                    expected = f"{part} of {self.cell.name}: (B, {part.upper()}) = {(batch, width)}"
                    what = f"initial state of {scan.prefix[:-1]}"
                    raise ShapeError(what, got=f"shape {value.shape}", expected=expected, do=do)
                parts.append(value.astype(self.dtype, copy=False))
            out[scan.prefix] = kind(*parts)
        return out


@functools.cache
def _scans(inputs: int, width: int, layers: int, bidirectional: bool) -> tuple[Scan, ...]:
    names = [(False, "")] + [(True, "reverse.")] * bidirectional
    return tuple(
        Scan(layer, rev, f"layer{layer}.{name}", width * len(names) if layer else inputs)
        for layer in range(layers)
        for rev, name in names
    )


def _all_finite(values: Array) -> bool:
    """A finite sum has finite terms, and is had without a temporary; an infinite one may have overflowed."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())


def require_finite(values: Array, name: str, counted: Array | None = None) -> None:
    """Raise NotFiniteError for NaN or infinity in `values` (T, B, …), where `counted` (T, B), naming the first step."""
    if values.dtype.kind not in "fc" or _all_finite(values):
        return
    wrong = ~np.isfinite(values).reshape(*values.shape[:2], -1).all(-1)
    wrong = wrong if counted is None else wrong & counted
    if wrong.any():
        step, sequence = np.argwhere(wrong)[0]
        bad = values[step, sequence]
        bad = bad if np.ndim(bad) == 0 else bad[~np.isfinite(bad)][0]
        raise NotFiniteError(
            f"{name} at step {step + 1}, sequence {sequence + 1}", got=str(bad), expected="finite numbers"
        )

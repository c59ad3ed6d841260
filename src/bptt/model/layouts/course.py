"""The NumPy exercise "Building a Recurrent Neural Network step by step" of the well-known deep learning course.

Column vectors, one example per column; one layer, one direction:

    RNN     a = tanh(Wax x + Waa a_prev + ba)
    LSTM    Γ_f = σ(Wf [a_prev; x] + bf)     Γ_i = σ(Wi [a_prev; x] + bi)     c̃ = tanh(Wc [a_prev; x] + bc)
            c = Γ_f ∘ c_prev + Γ_i ∘ c̃      Γ_o = σ(Wo [a_prev; x] + bo)     a = Γ_o ∘ tanh(c)
    both    ŷ = softmax(Wy a + by), with the name Wya in the RNN
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bptt.errors import ShapeError, unknown
from bptt.model.layouts.gates import ORDERS, gated, kind_of
from bptt.model.layouts.index import Index, as_arrays, export, export_gradients, load, positions
from bptt.model.layouts.sizes import beside, shape_of, skeleton
from bptt.model.network import Network
from bptt.typing import Array, Params

LAYOUT = "the course"
LETTERS = {"f": "f", "i": "i", "g": "c", "o": "o"}  # our gate → theirs, as in Wf, Wi, Wc, Wo


def from_course(parameters: Mapping[str, Any], kind: str) -> Network:
    """The network of the exercise's `parameters`, with its readout before the softmax, where Wya or Wy is there.

    Args:
        parameters: RNN: Wax (n_a, n_x), Waa (n_a, n_a), ba (n_a, 1), Wya (n_y, n_a), by (n_y, 1). LSTM: Wf, Wi, Wc, Wo
            (n_a, n_a + n_x), bf, bi, bc, bo (n_a, 1), Wy (n_y, n_a), by (n_y, 1).
        kind: "rnn" or "lstm".

    Raises:
        UnknownName: an array is missing, or is not of the exercise.
        ShapeError: an array has the wrong shape.

    >>> from_course({"Wax": np.ones((5, 3)), "Waa": np.eye(5), "ba": np.zeros((5, 1))}, "rnn").describe()
    'RNN (tanh), D=3, H=5, 45 parameters'
    """
    if kind not in ORDERS[LAYOUT]:
        raise unknown("cell of the course", kind, ORDERS[LAYOUT])
    given = as_arrays(parameters)
    network = _skeleton(given, kind)
    return load(
        LAYOUT, _index(network), given, network, shapes_hint="Vectors are columns (n, 1), matrices act from the left."
    )


def to_course(network: Network) -> dict[str, Array]:
    """The network's weights as the exercise's `parameters`.

    Raises:
        InputError: the network has what the exercise has not: a GRU, layers, directions, peepholes, …

    >>> network = Network.create("lstm", inputs=2, hidden=3)
    >>> {name: array.shape for name, array in to_course(network).items() if name in ("Wf", "bf")}
    {'Wf': (3, 5), 'bf': (3, 1)}
    """
    return export(LAYOUT, _index(network), network)


def gradients_to_course(network: Network, gradients: Mapping[str, Any]) -> dict[str, Array]:
    """Gradients by the network's parameters under the exercise's names: dWax, dWaa, dba, or dWf, dbf, …

    Args:
        network: whose gradients they are.
        gradients: name → (..., *shape), of some or all parameters: gradients, step gradients, contributions.

    Raises:
        UnknownName, ShapeError: a gradient is of no parameter, or does not fit it.
        InputError: W_xh without W_hh or the other way round, for an LSTM: both stand in Wf.
    """
    theirs = export_gradients(LAYOUT, _index(network), network, gradients)
    return {f"d{name}": array for name, array in theirs.items()}


def x_from_course(x: Any) -> Array:
    """(n, m, T) → (T, m, n): inputs, states or outputs of the exercise, time-major as here.

    >>> x_from_course(np.zeros((3, 10, 4))).shape
    (4, 10, 3)
    """
    return _turned(x, "(n, m, T)")


def x_to_course(x: Any) -> Array:
    """(T, B, n) → (n, B, T): inputs, states, outputs or their gradients, as the exercise has them."""
    return _turned(x, "(T, B, n)")


def _turned(x: Any, axes: str) -> Array:
    array = np.asarray(x)
    if array.ndim != 3:
        raise ShapeError("sequences", got=f"shape {array.shape}", expected=f"three axes {axes}")
    return np.ascontiguousarray(array.transpose(2, 1, 0))


def _index(network: Network) -> Index:
    at = positions(network)
    [(_, W, R, b, _, _)] = gated(LAYOUT, network, at)
    if kind_of(network.cell) == "rnn":
        index, readout = {"Wax": W.T, "Waa": R.T, "ba": b[:, None]}, "Wya"
    else:
        index, readout = {}, "Wy"
        order = ORDERS[LAYOUT]["lstm"]
        for gate, x, h, bias in zip(order, *(np.split(a, 4, axis=-1) for a in (W, R, b)), strict=True):
            letter = LETTERS[gate]
            index |= {f"W{letter}": np.concatenate([h.T, x.T], axis=1), f"b{letter}": bias[:, None]}
    if network.outputs is not None:
        index |= {readout: at["readout.W"].T, "by": at["readout.b"][:, None]}
    return index


def _skeleton(given: Params, kind: str) -> Network:
    if kind == "rnn":
        hidden = max(shape_of(LAYOUT, given, "Waa"))
        inputs, readout = beside(shape_of(LAYOUT, given, "Wax"), 1, hidden), "Wya"
    else:
        hidden, both = sorted(shape_of(LAYOUT, given, "Wf"))
        inputs, readout = both - hidden, "Wy"
    outputs = beside(shape_of(LAYOUT, given, readout), 0, hidden) if readout in given else None
    return skeleton(kind, hidden, inputs=inputs, outputs=outputs)

"""Keras 3: `get_weights()` of SimpleRNN, GRU, LSTM, in Bidirectional, stacked, with a Dense. Never imports keras."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bptt.errors import InputError
from bptt.model.layouts.gates import count, gated
from bptt.model.layouts.index import Index, as_arrays, export, export_gradients, load, positions
from bptt.model.layouts.sizes import beside, hidden_units, shape_of, skeleton
from bptt.model.network import Network
from bptt.typing import Array, Params

LAYOUT = "Keras"
HINT = "use_bias, reset_after and bidirectional must be those of the layer."


def from_keras(
    arrays: Sequence[Any],
    kind: str,
    *,
    bidirectional: bool = False,
    reset_after: bool = True,
    use_bias: bool = True,
    nonlinearity: str = "tanh",
) -> Network:
    """The network of Keras weights.

    Layers, sizes and a Dense readout are read off the shapes; all that follows could not be told from them.
    dtype: that of the arrays, float32 or wider.

    Args:
        arrays: `layer.get_weights()`, or of several layers one after another, as `model.get_weights()` gives them.
        kind: "rnn" for SimpleRNN, "gru" or "lstm".
        bidirectional: whether each layer stands in Bidirectional (with merge_mode="concat").
        reset_after: of a GRU.
        use_bias: of the recurrent layers; the Dense may have one or not.
        nonlinearity: of a SimpleRNN, "tanh" or "relu".

    Raises:
        ShapeError: an array has the wrong shape.
        InputError: too few or too many arrays for whole layers.

    >>> arrays = [np.ones((3, 4)), np.eye(4), np.zeros(4), np.ones((4, 2)), np.zeros(2)]
    >>> from_keras(arrays, "rnn").describe()
    'RNN (tanh), D=3, H=4, O=2, 42 parameters'
    """
    numbered = list(as_arrays({f"{place}": value for place, value in enumerate(arrays)}).values())
    step = (2 + use_bias) * (1 + bidirectional)
    layers, rest = _layers(numbered, step)
    names = [name for layer in range(layers) for name in _names(layer, bidirectional, use_bias)]
    names += ["readout.kernel", "readout.bias"][:rest]
    given = {f"{name} (array {place})": a for place, (name, a) in enumerate(zip(names, numbered, strict=True))}
    options: dict[str, Any] = {"layers": layers, "bidirectional": bidirectional, "nonlinearity": nonlinearity}
    if kind == "gru" or not reset_after:
        options["reset"] = "after" if reset_after else "before"
    network = _skeleton(given, kind, rest, **options)
    index = _index(network, use_bias)
    index = dict(zip(given, (index[name] for name in names), strict=True))
    return load(LAYOUT, index, given, network, shapes_hint=HINT)


def to_keras(network: Network, *, use_bias: bool = True) -> list[Array]:
    """The network's weights in the order of `get_weights()`, for `set_weights`: layer by layer, the Dense last.

    The bias of a GRU with reset_after goes to the input row, and the recurrent row is 0, save for the candidate.

    Args:
        network: the network.
        use_bias: False for recurrent layers with use_bias=False.

    Raises:
        InputError: the network has what Keras layers have not, or biases other than 0 where use_bias is False.

    >>> [array.shape for array in to_keras(Network.create("gru", inputs=2, hidden=3, outputs=1))]
    [(2, 9), (3, 9), (2, 9), (3, 1), (1,)]
    """
    return list(export(LAYOUT, _index(network, use_bias), network).values())


def gradients_to_keras(network: Network, gradients: Mapping[str, Any], *, use_bias: bool = True) -> dict[str, Array]:
    """Gradients by the network's parameters as gradients by Keras's: name → array, in the order of `get_weights()`.

    Names: `layer0.kernel`, `layer0.recurrent_kernel`, `layer0.bias`, `layer0.reverse.kernel`, …, `readout.kernel`.

    Args:
        network: whose gradients they are.
        gradients: name → (..., *shape), of some or all parameters: gradients, step gradients, contributions.
        use_bias: as in `to_keras`.

    Raises:
        UnknownName, ShapeError: a gradient is of no parameter, or does not fit it.
        InputError: one of two parameters that share an array (b and b_hn of a GRU) is not given.
    """
    return export_gradients(LAYOUT, _index(network, use_bias), network, gradients)


def _index(network: Network, use_bias: bool) -> Index:
    at = positions(network)
    index = {}
    for scan, W, R, b_x, b_h, own in gated(LAYOUT, network, at):
        index |= {f"{scan.prefix}kernel": W, f"{scan.prefix}recurrent_kernel": R}
        if use_bias:
            index[f"{scan.prefix}bias"] = np.stack([b_x, b_h]) if "b_hn" in own else b_x
    if network.outputs is not None:
        index |= {"readout.kernel": at["readout.W"], "readout.bias": at["readout.b"]}
    return index


def _names(layer: int, bidirectional: bool, use_bias: bool) -> list[str]:
    prefixes = [f"layer{layer}."] + [f"layer{layer}.reverse."] * bidirectional
    parts = ["kernel", "recurrent_kernel"] + ["bias"] * use_bias
    return [prefix + part for prefix in prefixes for part in parts]


def _layers(arrays: list[Array], step: int) -> tuple[int, int]:
    """How many recurrent layers of so many arrays, and how many arrays are left for the Dense.

    A recurrent layer begins with two matrices, a Dense with one.
    """
    start = 0
    while start + 1 < len(arrays) and arrays[start + 1].ndim == 2:
        start += step
    rest = len(arrays) - start
    if start == 0 or rest not in (0, 1, 2):
        shapes = [array.shape for array in arrays]
        expected = f"{step} arrays for each recurrent layer, then at most 2 for a Dense"
        raise InputError("arrays for Keras", got=f"{len(arrays)} of shapes {shapes}", expected=expected, do=HINT)
    return start // step, rest


def _skeleton(given: Params, kind: str, rest: int, *, bidirectional: bool, **options: Any) -> Network:
    names = list(given)
    kernel, recurrent = (shape_of(LAYOUT, given, name) for name in names[:2])
    hidden = hidden_units(kind, names[1], recurrent)
    dense = shape_of(LAYOUT, given, names[-rest]) if rest else None
    return skeleton(
        kind,
        hidden,
        inputs=beside(kernel, 0, count(kind) * hidden),
        outputs=None if dense is None else beside(dense, 1, hidden * (1 + bidirectional)),
        bidirectional=bidirectional,
        **options,
    )

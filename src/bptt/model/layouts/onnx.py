"""ONNX: the inputs W, R, B, P of RNN, GRU and LSTM nodes, one per layer, and B, C of a Gemm. Never imports onnx."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bptt.errors import InputError
from bptt.model.layouts.gates import count, gated
from bptt.model.layouts.index import Index, as_arrays, export, export_gradients, load, positions
from bptt.model.layouts.sizes import beside, hidden_units, shape_of, skeleton
from bptt.model.network import Network
from bptt.typing import Array, Params

LAYOUT = "ONNX"
Node = Mapping[str, Any]


def from_onnx(
    nodes: Node | Sequence[Node], kind: str, *, linear_before_reset: int = 0, nonlinearity: str = "tanh"
) -> Network:
    """The network of ONNX nodes with their default activations, without `clip` and `input_forget`.

    Sizes, directions and peepholes are read off the shapes. A node with direction="reverse" has the arrays of a forward
    one: give its network x[::-1], and turn its outputs round again. dtype: that of the arrays, float32 or wider.

    Args:
        nodes: one mapping per layer, "W" (dirs, G·H, D), "R" (dirs, G·H, H), "B" (dirs, 2·G·H) or none, "P" (dirs, 3·H)
            or none; then a Gemm's "B" (W, O) and "C" (O,), if there is a readout. One mapping alone is one layer.
        kind: "rnn", "gru" or "lstm".
        linear_before_reset: attribute of a GRU; its default in ONNX is 0.
        nonlinearity: of an RNN, "tanh" or "relu".

    Raises:
        UnknownName: an array is missing, or is no input of such a node.
        ShapeError: an array has the wrong shape.
        InputError: no node.

    >>> from_onnx({"W": np.ones((1, 4, 3)), "R": np.eye(4)[None]}, "rnn").describe()
    'RNN (tanh), D=3, H=4, 32 parameters'
    """
    nodes = [nodes] if isinstance(nodes, Mapping) else list(nodes)
    layers = sum("W" in node for node in nodes)
    if layers == 0 or layers < len(nodes) - 1 or "W" not in nodes[0]:
        got = [sorted(node) for node in nodes]
        raise InputError("nodes for ONNX", got=got, expected="W and R of each layer, then at most one Gemm's B and C")
    names = [f"node{n}." for n in range(layers)] + ["readout."]
    inputs = [(name + key, a) for name, node in zip(names, nodes, strict=False) for key, a in node.items()]
    given = as_arrays({name: a for name, a in inputs if a is not None})
    options: dict[str, Any] = {"layers": layers, "nonlinearity": nonlinearity}
    if kind == "gru" or linear_before_reset:
        options["reset"] = "after" if linear_before_reset else "before"
    network = _skeleton(given, kind, len(nodes) > layers, **options)
    optional = {f"node{n}.B" for n in range(layers)} | {"readout.C"}
    index = {name: at for name, at in _index(network).items() if name in given or name not in optional}
    return load(LAYOUT, index, given, network, shapes_hint="Check linear_before_reset and the direction of the node.")


def to_onnx(network: Network) -> list[dict[str, Array]]:
    """The network's weights as the inputs of ONNX nodes: one mapping W, R, B (and P) per layer, then a Gemm's B and C.

    A GRU with reset "after" wants linear_before_reset=1, one with "before" 0. Between two layers of both directions,
    Y (T, dirs, B, H) becomes X (T, B, dirs·H). The bias goes to the first half of B.

    Raises:
        InputError: the network has what ONNX nodes have not.

    >>> network = Network.create("lstm", inputs=2, hidden=3, peepholes=True)
    >>> [{name: array.shape for name, array in node.items()} for node in to_onnx(network)]
    [{'W': (1, 12, 2), 'R': (1, 12, 3), 'B': (1, 24), 'P': (1, 9)}]
    """
    return _nodes(export(LAYOUT, _index(network), network))


def gradients_to_onnx(network: Network, gradients: Mapping[str, Any]) -> list[dict[str, Array]]:
    """Gradients by the network's parameters as gradients by the inputs of ONNX nodes, arranged as in `to_onnx`.

    Args:
        network: whose gradients they are.
        gradients: name → (..., *shape), of some or all parameters: gradients, step gradients, contributions.

    Raises:
        UnknownName, ShapeError: a gradient is of no parameter, or does not fit it.
        InputError: not all parameters are given that share an array: of both directions, b and b_hn, the peepholes.
    """
    return _nodes(export_gradients(LAYOUT, _index(network), network, gradients))


def _index(network: Network) -> Index:
    at = positions(network)
    parts: dict[str, list[Array]] = {}
    for scan, W, R, b_x, b_h, own in gated(LAYOUT, network, at):
        node = {"W": W.T, "R": R.T, "B": np.concatenate([b_x, b_h])}
        if "p_i" in own:
            node["P"] = np.concatenate([own["p_i"], own["p_o"], own["p_f"]])
        for name, array in node.items():
            parts.setdefault(f"node{scan.layer}.{name}", []).append(array)
    index = {name: np.stack(directions) for name, directions in parts.items()}
    return index if network.outputs is None else index | {"readout.B": at["readout.W"], "readout.C": at["readout.b"]}


def _nodes(named: Params) -> list[dict[str, Array]]:
    nodes: dict[str, dict[str, Array]] = {}
    for name, array in named.items():
        node, key = name.split(".")
        nodes.setdefault(node, {})[key] = array
    return list(nodes.values())


def _skeleton(given: Params, kind: str, readout: bool, **options: Any) -> Network:
    dirs, *W = shape_of(LAYOUT, given, "node0.W", 3)
    R = shape_of(LAYOUT, given, "node0.R", 3)[1:]
    hidden = hidden_units(kind, "node0.R", R)
    if any(name.endswith(".P") for name in given):
        options["peepholes"] = True
    gemm = shape_of(LAYOUT, given, "readout.B") if readout else None
    return skeleton(
        kind,
        hidden,
        inputs=beside(tuple(W), 1, count(kind) * hidden),
        outputs=None if gemm is None else beside(gemm, 1, hidden * dirs),
        bidirectional=dirs == 2,
        **options,
    )

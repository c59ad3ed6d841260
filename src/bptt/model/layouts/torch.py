"""PyTorch: the state dict of `nn.RNN`, `nn.GRU`, `nn.LSTM`, and of an `nn.Linear` after it. Never imports torch."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from bptt.errors import InputError
from bptt.model.layouts.gates import gated
from bptt.model.layouts.index import Index, as_arrays, export, export_gradients, load, positions
from bptt.model.layouts.sizes import beside, hidden_units, shape_of, skeleton
from bptt.model.network import Network
from bptt.typing import Array, Params

LAYOUT = "PyTorch"


def from_torch(
    arrays: Mapping[str, Any],
    kind: str,
    *,
    nonlinearity: str = "tanh",
    prefix: str | None = None,
    readout: str | None = None,
) -> Network:
    """The network of a PyTorch state dict.

    Layers, directions, projection, sizes and biases are read off the names and shapes. The two biases of a gate are
    added, since only their sum matters; a GRU's candidate keeps both. dtype: that of the arrays, float32 or wider.

    Args:
        arrays: `module.state_dict()`, or any mapping of these names to what `np.asarray` takes.
        kind: "rnn", "gru" or "lstm".
        nonlinearity: of an RNN, "tanh" or "relu": it does not stand in the state dict.
        prefix: of the recurrent layer's names, as in "lstm."; None to find it.
        readout: of the linear layer's names, as in "fc."; None for the one `weight` and `bias` there are, if any.

    Raises:
        UnknownName: an array is missing, or belongs to neither layer.
        ShapeError: an array has the wrong shape.
        InputError: several recurrent layers or readouts to choose from.

    >>> import numpy as np
    >>> arrays = {"rnn.weight_ih_l0": np.ones((4, 3)), "rnn.weight_hh_l0": np.eye(4)}
    >>> from_torch(arrays, "rnn").describe()
    'RNN (tanh), D=3, H=4, 32 parameters'
    """
    given = as_arrays(arrays)
    prefix = _find_prefix(given) if prefix is None else _dotted(prefix)
    readout = _find_readout(given) if readout is None else _dotted(readout)
    network = _skeleton(given, kind, prefix, readout, nonlinearity)
    index = _index(network, prefix, readout or "", any(name.startswith(f"{prefix}bias_") for name in given))
    if readout is not None and f"{readout}bias" not in given:
        del index[f"{readout}bias"]
    hint = "Leave other layers out; if it is the linear readout, name it with readout='…'."
    return load(LAYOUT, index, given, network, names_hint=hint)


def to_torch(network: Network, *, prefix: str = "", readout: str = "readout.", bias: bool = True) -> dict[str, Array]:
    """The network's weights as a PyTorch state dict of NumPy arrays; `torch.from_numpy` makes tensors of them.

    The bias goes to bias_ih, and bias_hh is 0, save for a GRU's candidate.

    Args:
        network: the network.
        prefix: of the recurrent layer's names, as in "lstm.".
        readout: of the linear layer's names, as in "fc.".
        bias: False for a recurrent layer with bias=False.

    Raises:
        InputError: the network has what PyTorch's layers have not, or biases other than 0 where bias is False.

    >>> network = Network.create("gru", inputs=2, hidden=3, outputs=1)
    >>> {name: array.shape for name, array in to_torch(network, readout="fc.", bias=False).items()}
    {'weight_ih_l0': (9, 2), 'weight_hh_l0': (9, 3), 'fc.weight': (1, 3), 'fc.bias': (1,)}
    """
    return export(LAYOUT, _index(network, _dotted(prefix), _dotted(readout), bias), network)


def gradients_to_torch(
    network: Network,
    gradients: Mapping[str, Any],
    *,
    prefix: str = "",
    readout: str = "readout.",
    bias: bool = True,
) -> dict[str, Array]:
    """Gradients by the network's parameters as gradients by PyTorch's, to hold against `.grad`; both biases get db.

    Args:
        network: whose gradients they are.
        gradients: name → (..., *shape), of some or all parameters: gradients, step gradients, contributions.
        prefix, readout, bias: as in `to_torch`.

    Raises:
        UnknownName, ShapeError: a gradient is of no parameter, or does not fit it.
        InputError: one of two parameters that share an array (b and b_hn of a GRU) is not given.
    """
    return export_gradients(LAYOUT, _index(network, _dotted(prefix), _dotted(readout), bias), network, gradients)


def _index(network: Network, prefix: str, readout: str, bias: bool) -> Index:
    at = positions(network)
    index = {}
    for scan, W, R, b_x, b_h, own in gated(LAYOUT, network, at):
        tail = f"_l{scan.layer}" + "_reverse" * scan.reverse
        index |= {f"{prefix}weight_ih{tail}": W.T, f"{prefix}weight_hh{tail}": R.T}
        if bias:
            index |= {f"{prefix}bias_ih{tail}": b_x, f"{prefix}bias_hh{tail}": b_h}
        if "W_hr" in own:
            index[f"{prefix}weight_hr{tail}"] = own["W_hr"].T
    if network.outputs is not None:
        index |= {f"{readout}weight": at["readout.W"].T, f"{readout}bias": at["readout.b"]}
    return index


def _skeleton(given: Params, kind: str, prefix: str, readout: str | None, nonlinearity: str) -> Network:
    name = f"{prefix}weight_hh_l0"
    shape, W_ih = shape_of(LAYOUT, given, name), shape_of(LAYOUT, given, f"{prefix}weight_ih_l0")
    options: dict[str, Any] = {"nonlinearity": nonlinearity}
    if f"{prefix}weight_hr_l0" in given:
        width, hidden = sorted(shape_of(LAYOUT, given, f"{prefix}weight_hr_l0"))
        options["projection"], rows = width, 4 * hidden
    else:
        width = hidden = hidden_units(kind, name, shape)
        rows = max(shape)
    both = any(name.startswith(prefix) and name.endswith("_l0_reverse") for name in given)
    W = None if readout is None else shape_of(LAYOUT, given, f"{readout}weight")
    return skeleton(
        kind,
        hidden,
        inputs=beside(W_ih, 1, rows),
        outputs=None if W is None else beside(W, 0, width * (1 + both)),
        layers=next(n for n in count(1) if f"{prefix}weight_ih_l{n}" not in given),
        bidirectional=both,
        **options,
    )


def _dotted(prefix: str) -> str:
    return prefix if prefix == "" or prefix.endswith(".") else f"{prefix}."


def _find_prefix(given: Params) -> str:
    ending = "weight_ih_l0"
    found = [name.removesuffix(ending) for name in given if name == ending or name.endswith(f".{ending}")]
    if len(found) > 1:
        do = "Choose one with prefix='…', and leave the others' arrays out."
        raise InputError("arrays for PyTorch", got=f"recurrent layers {found}", expected="one", do=do)
    if not found:
        shape_of(LAYOUT, given, ending)  # raises, with the nearest name
    return found[0]


def _find_readout(given: Params) -> str | None:
    found = [name.removesuffix("weight") for name in given if name == "weight" or name.endswith(".weight")]
    found = [prefix for prefix in found if f"{prefix}bias" in given]
    if len(found) > 1:
        do = "Choose one with readout='…', and leave the others' arrays out."
        raise InputError("arrays for PyTorch", got=f"layers {found}", expected="one linear readout", do=do)
    return found[0] if found else None

"""A layout as an index: which number of `Network.params` stands where in someone else's arrays.

    theirs = ours[index]

Each layout is written once, as a rearrangement of our arrays. Run on the positions of our numbers instead of on the
numbers, it gives the index, and all else follows:

    export       theirs = ours[index]; of a number that stands twice (two biases, one sum) the second place is 0
    import       ours = Σ theirs, over the places of each number, so that two biases add up
    gradients    import is linear, so its derivative is its transpose: dJ/dtheirs = (dJ/dours)[index], in every place
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bptt.errors import InputError, ShapeError, UnknownName, unknown
from bptt.model.network import Network
from bptt.typing import Array, Params

Index = dict[str, Array]  # their name → positions in our numbers


def positions(network: Network) -> Params:
    """Our parameters, with every number replaced by its position among all."""
    out, start = {}, 0
    for name, shape in network.shapes().items():
        size = int(np.prod(shape))
        out[name] = np.arange(start, start + size).reshape(shape)
        start += size
    return out


def flatten(network: Network) -> Array:
    """All numbers of the network, at their positions."""
    return np.concatenate([network.params[name].ravel() for name in network.shapes()])


def as_arrays(arrays: Mapping[str, Any]) -> Params:
    """Anything that `np.asarray` takes, as arrays; PyTorch parameters are detached.

    Raises:
        InputError: something that is no array of numbers; the name is given.
    """
    return {name: _as_array(name, value) for name, value in arrays.items()}


def _as_array(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        do = "Bring it to the CPU as float32 or float64 first."
        got = f"a {type(value).__name__} that NumPy does not take"
        raise InputError(f"array {name!r}", got=got, expected="an array of numbers", do=do) from error
    if array.dtype.kind in "OSUMm":
        raise InputError(f"array {name!r}", got=f"{array.dtype}", expected="an array of numbers")
    return array


def load(
    layout: str,
    index: Index,
    arrays: Params,
    skeleton: Network,
    *,
    names_hint: str | None = None,
    shapes_hint: str | None = None,
) -> Network:
    """The network whose arrays in a layout are `arrays`.

    Args:
        layout: its name, for errors.
        index: of the skeleton.
        arrays: their arrays; exactly those of the index.
        skeleton: a network of the right sizes, whose own numbers do not matter.
        names_hint, shapes_hint: what to do about an array too many, or of the wrong shape if not just transposed.

    Raises:
        UnknownName: an array is missing, or is none of this layout.
        ShapeError: an array has the wrong shape.
    """
    _check_names(layout, index, arrays, names_hint)
    for name, places in index.items():
        _check_shape(f"array {name!r}", arrays[name].shape, places.shape, skeleton, shapes_hint)
    flat = np.zeros(
        sum(places.size for places in positions(skeleton).values()), np.result_type(np.float32, *arrays.values())
    )
    for name, places in index.items():
        np.add.at(flat, places, arrays[name])
    params = {name: flat[places] for name, places in positions(skeleton).items()}
    net = skeleton
    return Network(net.cell, net.inputs, net.outputs, net.layers, net.bidirectional, params)


def export(layout: str, index: Index, network: Network) -> Params:
    """The network's numbers as arrays of a layout.

    Raises:
        InputError: a number other than 0 that the index has no place for, such as the bias of a layer without one.
    """
    flat, where = flatten(network), np.concatenate([places.ravel() for places in index.values()])
    _check_left_out(layout, network, flat, where)
    values = np.zeros(where.size, flat.dtype)
    first = np.zeros(flat.size, int)
    first[where[::-1]] = np.arange(where.size)[::-1]  # of repeated places the last assignment stays: the first place
    first = first[where] == np.arange(where.size)
    values[first] = flat[where[first]]
    ends = np.cumsum([places.size for places in index.values()])[:-1]
    parts = np.split(values, ends)
    return {name: part.reshape(index[name].shape).copy() for name, part in zip(index, parts, strict=True)}


def export_gradients(layout: str, index: Index, network: Network, gradients: Mapping[str, Any]) -> Params:
    """Gradients by our parameters as gradients by theirs.

    Args:
        layout: its name, for errors.
        index: of the network.
        network: whose parameters they are.
        gradients: name → array (..., *shape of the parameter); not all parameters need be there, and leading axes
            (steps, losses), the same for all, stay in front.

    Returns:
        Their arrays, as far as all their parts are given.

    Raises:
        UnknownName: a name that is no parameter of the network.
        ShapeError: an array that does not fit its parameter.
        InputError: a parameter shares an array with one that is not given.
    """
    at, given = positions(network), as_arrays(gradients)
    for name, value in given.items():
        if name not in at:
            raise unknown("gradient", name, at)
        _check_shape(f"gradient of {name}", value.shape, at[name].shape, network, None, leading=True)
    lead = _leading(given, at)
    flat = np.concatenate([value.reshape(*lead, -1) for value in given.values()], axis=-1)
    moved = np.full(sum(places.size for places in at.values()), -1)
    moved[np.concatenate([at[name].ravel() for name in given])] = np.arange(flat.shape[-1])
    whole = {name: moved[places] for name, places in index.items() if (moved[places] >= 0).all()}
    used = np.zeros(moved.size, bool)
    for name in whole:
        used[index[name]] = True
    for name in given:
        if not used[at[name]].all():
            _check_alone(layout, name, at, index, moved)
    return {name: flat[..., places] for name, places in whole.items()}


def _leading(given: Params, at: Params) -> tuple[int, ...]:
    leads = {name: value.shape[: value.ndim - at[name].ndim] for name, value in given.items()}
    if not leads:
        raise InputError("gradients", got="none", expected="at least one parameter's")
    first = next(iter(leads))
    for name, lead in leads.items():
        if lead != leads[first]:
            expected = f"{leads[first]}, as that of {first}"
            raise ShapeError(f"gradient of {name}", got=f"leading axes {lead}", expected=expected)
    return leads[first]


def _check_alone(layout: str, name: str, at: Params, index: Index, moved: Array) -> None:
    """Raise if the parameter has an array in the layout, but shares it with others that are not given."""
    homes = [theirs for theirs, places in index.items() if np.isin(at[name], places).any()]
    if not homes:
        return
    lacking = index[homes[0]][moved[index[homes[0]]] < 0]
    beside = [other for other, places in at.items() if np.isin(places, lacking).any()]
    expected = f"{', '.join(beside)} beside it, since {layout} has them in one array {homes[0]!r}"
    raise InputError("gradients", got=f"{name} alone", expected=expected)


def _check_left_out(layout: str, network: Network, flat: Array, where: Array) -> None:
    left = np.ones(flat.size, bool)
    left[where] = False
    for name, places in positions(network).items():
        if flat[places[left[places]]].any():
            got, do = "values other than 0", "Export with biases."
            raise InputError(f"parameter {name}", got=got, expected=f"zeros, to leave it out for {layout}", do=do)


def _check_names(layout: str, index: Index, arrays: Params, hint: str | None) -> None:
    missing = [name for name in index if name not in arrays]
    for name in arrays:
        if name not in index and missing:
            raise unknown(f"array for {layout}", name, missing)
        if name not in index:
            do = hint or "Leave it out."
            raise UnknownName(f"array for {layout}", got=repr(name), expected=f"only {', '.join(index)}", do=do)
    if missing:
        expected = f"an array {missing[0]!r} beside {', '.join(arrays)}"
        raise UnknownName(f"arrays for {layout}", got=f"{len(arrays)} of {len(index)}", expected=expected)


def _check_shape(
    what: str,
    got: tuple[int, ...],
    expected: tuple[int, ...],
    network: Network,
    hint: str | None,
    leading: bool = False,
) -> None:
    if (got[max(0, len(got) - len(expected)) :] if leading else got) == expected:
        return
    turned = len(expected) > 1 and got[-2:] == expected[-2:][::-1] and (leading or got[:-2] == expected[:-2])
    do = "It is transposed: swap its last two axes." if turned else hint
    axes = f"(..., {', '.join(map(str, expected))})" if leading else f"{expected}"
    raise ShapeError(what, got=f"shape {got}", expected=f"{axes} for {network.describe()}", do=do)

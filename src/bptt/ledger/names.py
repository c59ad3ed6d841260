"""How parameters and layers are asked for: in full, or by the end where only one fits; a gate stands behind it."""

from typing import NamedTuple

from bptt.errors import InputError, unknown
from bptt.ledger.places import Place
from bptt.typing import Array, Params


class Found(NamedTuple):
    """full: name of the parameter.  block: of W, where a gate was asked for.  axis: of the block, from the end of W."""

    full: str
    block: slice | None = None
    axis: int = -1


def find(name: str, gradients: Params, places: dict[str, Place]) -> Found:
    """The parameter, and the block of the gate if one is asked for.

    Raises:
        UnknownName: none ends so.  InputError: several do.
    """
    hits = [full for full in gradients if full == name or full.endswith("." + name)]
    if name in gradients:
        hits = [name]
    if len(hits) == 1:
        return Found(hits[0])
    if hits:
        raise InputError("parameter", got=f"{name!r}, which fits {', '.join(hits)}", expected="one of them")
    base, _, gate = name.rpartition(".")
    if base and any(gate in place.gates for place in places.values()):
        found = _gate(find(base, gradients, places), gate, gradients, places)
        if found is not None:
            return found
    raise unknown("parameter", name, _short(gradients))


def state_key(layer: str | int, states: dict[str, Array]) -> str:
    """The key of a layer's state, named with or without its final dot, or by number; see `Ledger.layer`."""
    if not states:
        raise InputError("this ledger has no state", do="Only what walks through time carries one: ask for norms().")
    if not isinstance(layer, int):
        key = layer.rstrip(".") + "."
    elif "layer0." in states:
        key = f"layer{layer}."
    else:
        key = dict(enumerate(states)).get(layer, "")
    if key not in states:
        raise unknown("layer", str(layer), [known.rstrip(".") for known in states])
    return key


def _gate(found: Found, gate: str, gradients: Params, places: dict[str, Place]) -> Found | None:
    """The gate's block of a parameter, None where it has no such gate."""
    place, shape = places.get(found.full, Place()), gradients[found.full].shape
    if found.block is not None or gate not in place.gates or shape[place.axis] % len(place.gates):
        return None
    width, at = shape[place.axis] // len(place.gates), place.gates.index(gate)
    from_end = place.axis if place.axis < 0 else place.axis - len(shape)
    return Found(found.full, slice(at * width, (at + 1) * width), from_end)


def _short(gradients: Params) -> list[str]:
    """Every parameter by its end, or in full where the end fits several."""
    ends = [full.rsplit(".", 1)[-1] for full in gradients]
    return [end if ends.count(end) == 1 else full for full, end in zip(gradients, ends, strict=True)]

"""A ledger as one file. The schema is written down in docs/ledger-format.md; a change of it is a new number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bptt.errors import DamagedFile, InputError
from bptt.ledger.ledger import Ledger
from bptt.ledger.places import Place
from bptt.storage import read_arrays, write_arrays
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Linear, Matmul, Ready, Use, Uses

FORMAT = "bptt.ledger"
SCHEMA = 2
KINDS: dict[str, Any] = {"matmul": Matmul, "linear": Linear, "elementwise": Elementwise, "ready": Ready}
MAPPINGS = ("gradients", "states", "maps", "step_norms", "step_sequence_norms", "step_shares")


def save(ledger: Ledger, path: str | Path) -> None:
    """Write a ledger; arrays that several parameters share are written once."""
    arrays: dict[str, Array] = {"losses": ledger.losses}
    for field in MAPPINGS:
        arrays |= {f"{field}/{name}": array for name, array in getattr(ledger, field).items()}
    if ledger.loss_steps is not None:
        arrays["loss_steps"] = ledger.loss_steps
    for prefix, parts in ledger.state_parts.items():
        arrays |= {f"state_parts/{prefix}/{i}": part for i, part in enumerate(parts)}
    info: dict[str, Any] = {
        "meta": ledger.meta,
        "names": ledger.names,
        "places": {name: place._asdict() for name, place in ledger.places.items()},
        "reverse": ledger.reverse,
        "residuals": ledger.residuals,
        "uses": _write_uses("uses", ledger.uses, arrays),
        "loss_uses": _write_uses("loss_uses", ledger.loss_uses, arrays),
    }
    write_arrays(path, arrays, format=FORMAT, schema=SCHEMA, info=info)


def load(path: str | Path) -> Ledger:
    """Read a ledger; see `Ledger.load`."""
    arrays, info = read_arrays(path, format=FORMAT, schema=SCHEMA)
    try:
        fields = {field: _mapping(arrays, field) for field in MAPPINGS}
        for field, found in fields.items():  # the container sorts its arrays by name
            order = info["reverse"] if field == "states" else info["names"]
            fields[field] = {name: found[name] for name in order if name in found or field == "gradients"}
        parts = {
            prefix: tuple(part for _, part in sorted(_mapping(arrays, f"state_parts/{prefix}").items()))
            for prefix in info["reverse"]
        }
        first_schema = "gates" in info
        return Ledger(
            meta=info["meta"] | ({"schema": SCHEMA} if first_schema else {}),
            losses=arrays["losses"],
            places=_schema_1_places(info) if first_schema else _places(info["places"]),
            reverse=info["reverse"],
            state_parts={prefix: part for prefix, part in parts.items() if part},
            uses=_read_uses(info["uses"], arrays),
            loss_uses=_read_uses(info["loss_uses"], arrays),
            recorded_residuals=info["residuals"],
            loss_steps=arrays.get("loss_steps"),
            **fields,
        )
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise DamagedFile(f"{path}", got=f"a ledger without {error}", expected="a complete ledger") from None


def _places(table: dict[str, Any]) -> dict[str, Place]:
    return {name: Place(**(entry | {"gates": tuple(entry["gates"])})) for name, entry in table.items()}


def _schema_1_places(info: dict[str, Any]) -> dict[str, Place]:
    """Schema 1 held networks of ours only, and left it to the names where a parameter stands."""
    out = {}
    for name in info["names"]:
        prefix, _, own = name.rpartition(".")
        gates = info["gates"] if own in ("W_xh", "W_hh", "b") else ()
        reverse = info["reverse"].get(prefix + ".")
        out[name] = Place() if reverse is None else Place(prefix + ".", reverse, tuple(gates))
    return out


def _mapping(arrays: dict[str, Array], field: str) -> dict[str, Array]:
    return {name.removeprefix(field + "/"): array for name, array in arrays.items() if name.startswith(field + "/")}


def _write_uses(field: str, uses: Uses, arrays: dict[str, Array]) -> dict[str, Any]:
    """Put the factors into `arrays`; returns name → list of [kind, name of z or None, name of δ or dW_t]."""
    known: dict[int, str] = {}

    def put(array: Array | None, name: str) -> str | None:
        if array is None:
            return None
        if id(array) not in known:
            known[id(array)] = name
            arrays[name] = array
        return known[id(array)]

    out = {}
    for name, use in uses.items():
        parts = use.parts if isinstance(use, Columns) else (use,)
        out[name] = [
            [type(part).__name__.lower(), *_factors(part, put, f"{field}/{name}/{i}/")] for i, part in enumerate(parts)
        ]
    return out


def _factors(part: Any, put: Callable[[Array | None, str], str | None], where: str) -> tuple[str | None, str | None]:
    if isinstance(part, Ready):
        return None, put(part.gradients, where + "gradients")
    return put(part.z, where + "z"), put(part.delta, where + "delta")


def _read_uses(table: dict[str, Any], arrays: dict[str, Array]) -> Uses:
    out: dict[str, Use] = {}
    for name, entries in table.items():
        parts: list[Any] = [
            Ready(arrays[last]) if kind == "ready" else KINDS[kind](arrays[z] if z else None, arrays[last])
            for kind, z, last in entries
        ]
        out[name] = parts[0] if len(parts) == 1 else Columns(tuple(parts))
    return out

"""A ledger as one file. The schema is written down in docs/ledger-format.md; a change of it is a new number."""

from pathlib import Path
from typing import Any

from bptt.errors import DamagedFile
from bptt.ledger.ledger import Ledger
from bptt.storage import read_arrays, write_arrays
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Matmul, Use, Uses

FORMAT = "bptt.ledger"
SCHEMA = 1
KINDS: dict[str, Any] = {"matmul": Matmul, "elementwise": Elementwise}
MAPPINGS = ("gradients", "states", "maps", "step_norms", "step_sequence_norms", "step_shares")


def save(ledger: Ledger, path: str | Path) -> None:
    """Write a ledger; arrays that several parameters share are written once."""
    arrays: dict[str, Array] = {"losses": ledger.losses}
    for field in MAPPINGS:
        arrays |= {f"{field}/{name}": array for name, array in getattr(ledger, field).items()}
    for prefix, parts in ledger.state_parts.items():
        arrays |= {f"state_parts/{prefix}/{i}": part for i, part in enumerate(parts)}
    info: dict[str, Any] = {
        "meta": ledger.meta,
        "names": ledger.names,
        "gates": ledger.gates,
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
            if found or field == "gradients":
                fields[field] = {name: found[name] for name in order}
        parts = {
            prefix: tuple(part for _, part in sorted(_mapping(arrays, f"state_parts/{prefix}").items()))
            for prefix in info["reverse"]
        }
        return Ledger(
            meta=info["meta"],
            losses=arrays["losses"],
            gates=tuple(info["gates"]),
            reverse=info["reverse"],
            state_parts={prefix: part for prefix, part in parts.items() if part},
            uses=_read_uses(info["uses"], arrays),
            loss_uses=_read_uses(info["loss_uses"], arrays),
            recorded_residuals=info["residuals"],
            **fields,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"{path}", got=f"a ledger without {error}", expected="a complete ledger") from None


def _mapping(arrays: dict[str, Array], field: str) -> dict[str, Array]:
    return {name.removeprefix(field + "/"): array for name, array in arrays.items() if name.startswith(field + "/")}


def _write_uses(field: str, uses: Uses, arrays: dict[str, Array]) -> dict[str, Any]:
    """Put the factors into `arrays`; returns name → list of [kind, name of z or None, name of δ]."""
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
            [
                type(part).__name__.lower(),
                put(part.z, f"{field}/{name}/{i}/z"),
                put(part.delta, f"{field}/{name}/{i}/delta"),
            ]
            for i, part in enumerate(parts)
        ]
    return out


def _read_uses(table: dict[str, Any], arrays: dict[str, Array]) -> Uses:
    out: dict[str, Use] = {}
    for name, entries in table.items():
        parts: list[Any] = [KINDS[kind](arrays[z] if z else None, arrays[delta]) for kind, z, delta in entries]
        out[name] = parts[0] if len(parts) == 1 else Columns(tuple(parts))
    return out

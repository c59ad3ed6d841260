"""A ledger for other programs: rows with names, or arrays with labels."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from bptt.errors import MissingExtra
from bptt.ledger.ledger import Ledger
from bptt.storage import replacing
from bptt.typing import Array

COLUMNS = ("kind", "parameter", "loss_step", "step", "lag", "norm", "share", "state_gradient_norm", "gain")


def rows(ledger: Ledger) -> list[dict[str, Any]]:
    """One row per parameter and step (kind "use"), and per parameter, loss and step of the map ("contribution").

    Numbers are written with all their digits. The state's columns are those of the parameter's layer and direction;
    a readout belongs to none. Entries of the map that are exactly zero are left out.
    """
    out: list[dict[str, Any]] = []
    for name in ledger.names:
        norms, shares = ledger.norms(name), _shares(ledger, name)
        state = by_position(ledger, name.rpartition(".")[0])
        for t in range(ledger.T):
            row = {"kind": "use", "parameter": name, "step": t + 1, "norm": norms[t]}
            row |= {"share": shares[t]} if shares is not None else {}
            row |= {key: values[t] for key, values in state.items()}
            out.append(row)
    for name, table in ledger.maps.items():
        sign = -1 if ledger._is_reverse(name) else 1
        for k, t in np.argwhere(table > 0):
            row = {"kind": "contribution", "parameter": name, "loss_step": k + 1, "step": t + 1}
            out.append(row | {"lag": sign * (k - t), "norm": table[k, t]})
    return out


def to_csv(ledger: Ledger, path: str | Path) -> None:
    """Write `rows` as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows(ledger))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def to_npz(ledger: Ledger, path: str | Path) -> None:
    """Write gradients, norms, shares, maps, state gradients, residual, meta (JSON), named `norms/layer0.W_hh` etc."""
    with replacing(path) as file:
        np.savez_compressed(file, **arrays(ledger))  # type: ignore[arg-type]


def arrays(ledger: Ledger) -> dict[str, Array]:
    """What `to_npz` writes."""
    out: dict[str, Array] = {"losses": ledger.losses}
    for name in ledger.names:
        out[f"gradient/{name}"] = ledger.gradients[name]
        out[f"norms/{name}"] = ledger.norms(name)
        shares = _shares(ledger, name)
        out |= {f"shares/{name}": shares} if shares is not None else {}
    out |= {f"map/{name}": table for name, table in ledger.maps.items()}
    for prefix in ledger.states:
        for what, values in by_position(ledger, prefix[:-1]).items():
            out[f"{what}/{prefix[:-1]}"] = values
        out[f"initial_state_gradient_norm/{prefix[:-1]}"] = ledger.state_norms(prefix)[0]
    out["residual"] = np.array(ledger.residual)
    out["meta"] = np.array(json.dumps(ledger.meta))
    return out


def to_xarray(ledger: Ledger) -> Any:
    """An `xarray.Dataset`: norm and share (parameter, step), map (parameter, loss_step, step), and the state's numbers.

    Raises:
        MissingExtra: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise MissingExtra("xarray", got="not installed", do="pip install 'bptt[xarray]'") from None
    steps, layers = np.arange(1, ledger.T + 1), [prefix[:-1] for prefix in ledger.states]
    states = [by_position(ledger, layer) for layer in layers]
    data: dict[str, Any] = {
        "loss": ("loss_step", ledger.losses),
        "norm": (("parameter", "step"), np.stack([ledger.norms(name) for name in ledger.names])),
        "state_gradient_norm": (("layer", "step"), np.stack([state["state_gradient_norm"] for state in states])),
        "gain": (("layer", "step"), np.stack([state["gain"] for state in states])),
        "initial_state_gradient_norm": ("layer", np.array([ledger.state_norms(layer)[0] for layer in layers])),
    }
    shares = [_shares(ledger, name) for name in ledger.names]
    if all(share is not None for share in shares):
        data["share"] = (("parameter", "step"), np.stack(shares))  # type: ignore[arg-type]
    if ledger.maps:
        tables = np.stack([ledger.map(name) for name in ledger.names])
        data["map"] = (("parameter", "loss_step", "step"), tables)
    coords = {"parameter": ledger.names, "step": steps, "loss_step": steps, "layer": layers}
    attrs = {key: str(value) for key, value in ledger.meta.items()} | {"residual": ledger.residual}
    return xarray.Dataset(data, coords, attrs)


def _shares(ledger: Ledger, name: str) -> Array | None:
    return ledger.shares(name) if (name in ledger.uses or name in ledger.step_shares) else None


def by_position(ledger: Ledger, layer: str) -> dict[str, Array]:
    """‖∂J/∂s_t‖ after and gain of each use, (T,), by the use's position in the sequence, whichever way the layer walks.

    Empty for what is no layer, such as the readout.
    """
    if layer + "." not in ledger.states:
        return {}
    order = slice(None, None, -1 if ledger.reverse[layer + "."] else 1)
    return {"state_gradient_norm": ledger.state_norms(layer)[1:][order], "gain": ledger.gains(layer)[order]}


def _plain(value: Any) -> Any:
    return repr(value.item()) if isinstance(value, np.generic) else value

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
    a readout belongs to none. Entries of the map that are exactly zero are left out, and lags where nothing says at
    which step a loss stands.
    """
    out: list[dict[str, Any]] = []
    for name in ledger.names:
        columns = {"norm": ledger.norms(name)}
        shares = _shares(ledger, name)
        columns |= {"share": shares} if shares is not None else {}
        columns |= beside(ledger, name)
        for t in range(len(columns["norm"])):
            row = {"kind": "use", "parameter": name, "step": t + 1}
            out.append(row | {key: values[t] for key, values in columns.items()})
    for name, table in ledger.maps.items():
        sign = -1 if ledger.place(name).reverse else 1
        at = ledger.loss_positions(name) - 1 if ledger.has_lags(name) else None
        for k, t in np.argwhere(table > 0):
            row = {"kind": "contribution", "parameter": name, "loss_step": k + 1, "step": t + 1}
            row |= {"lag": sign * (at[k] - t)} if at is not None else {}
            out.append(row | {"norm": table[k, t]})
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
    out |= {"loss_steps": ledger.loss_steps} if ledger.loss_steps is not None else {}
    for name in ledger.names:
        out[f"gradient/{name}"] = ledger.gradients[name]
        out[f"norms/{name}"] = ledger.norms(name)
        shares = _shares(ledger, name)
        out |= {f"shares/{name}": shares} if shares is not None else {}
    out |= {f"map/{name}": table for name, table in ledger.maps.items()}
    for key in ledger.states:
        out |= {f"{what}/{key[:-1]}": values for what, values in by_position(ledger, key).items()}
        out[f"initial_state_gradient_norm/{key[:-1]}"] = ledger.state_norms(key)[0]
    out["residual"] = np.array(ledger.residual)
    out["meta"] = np.array(json.dumps(ledger.meta))
    return out


def to_xarray(ledger: Ledger) -> Any:
    """An `xarray.Dataset`: norm and share (parameter, step), map (parameter, loss_step, step), and the state's numbers.

    NaN stands where a parameter has fewer uses, or a layer fewer steps, than others, and for what was not kept.

    Raises:
        MissingExtra: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise MissingExtra("xarray", got="not installed", do="pip install 'bptt[xarray]'") from None
    states = {key[:-1]: by_position(ledger, key) for key in ledger.states}
    n = max([ledger.T] + [len(state["gain"]) for state in states.values()])
    data: dict[str, Any] = {"loss": ("loss_step", ledger.losses)}
    data["norm"] = (("parameter", "step"), _stacked([ledger.norms(name) for name in ledger.names], n))
    shares = [_shares(ledger, name) for name in ledger.names]
    if any(share is not None for share in shares):
        data["share"] = (("parameter", "step"), _stacked([np.empty(0) if s is None else s for s in shares], n))
    if ledger.maps:
        tables = [ledger.maps.get(name, np.empty((ledger.K, 0))) for name in ledger.names]
        data["map"] = (("parameter", "loss_step", "step"), _stacked(tables, n))
    coords: dict[str, Any] = {
        "parameter": ledger.names, "step": np.arange(1, n + 1), "loss_step": np.arange(1, ledger.K + 1)
    }  # fmt: skip
    if ledger.loss_steps is not None:
        coords["loss_at"] = ("loss_step", ledger.loss_steps)
    if states:
        coords["layer"] = list(states)
        for what in ("state_gradient_norm", "gain"):
            data[what] = (("layer", "step"), _stacked([state[what] for state in states.values()], n))
        initial = np.array([ledger.state_norms(key)[0] for key in ledger.states])
        data["initial_state_gradient_norm"] = ("layer", initial)
    attrs = {key: str(value) for key, value in ledger.meta.items()} | {"residual": ledger.residual}
    return xarray.Dataset(data, coords, attrs)


def _stacked(rows: list[Any], n: int) -> Array:
    """Rows (..., T) of different T, each filled up with NaN to n."""
    return np.stack([np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, n - row.shape[-1])], constant_values=np.nan)
                     for row in rows])  # fmt: skip


def _shares(ledger: Ledger, name: str) -> Array | None:
    return ledger.shares(name) if (name in ledger.uses or name in ledger.step_shares) else None


def by_position(ledger: Ledger, layer: str) -> dict[str, Array]:
    """‖∂J/∂s_t‖ after and gain of each step, (T,), by its position in the sequence, whichever way the layer walks."""
    key = ledger.layer(layer)
    order = slice(None, None, -1 if ledger.reverse[key] else 1)
    return {"state_gradient_norm": ledger.state_norms(key)[1:][order], "gain": ledger.gains(key)[order]}


def beside(ledger: Ledger, name: str) -> dict[str, Array]:
    """`by_position` of the state that a parameter works on; empty without one, or with other steps than its uses."""
    state = ledger.place(name).state
    if not state or len(ledger.states[state]) != ledger.steps(name) + 1:
        return {}
    return by_position(ledger, state)


def _plain(value: Any) -> Any:
    return repr(value.item()) if isinstance(value, np.generic) else value

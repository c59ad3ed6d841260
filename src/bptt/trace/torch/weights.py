"""A file of weights as a model: the state dict of `nn.RNN`, `nn.GRU` or `nn.LSTM`, and of a linear readout after it.

Read are `.safetensors`, and what `torch.load(weights_only=True)` takes; nothing is ever unpickled beyond that.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bptt.errors import DataError, FileError, InputError, NotFiniteError, ShapeError, unknown
from bptt.storage import format_of
from bptt.trace.torch.factory import Given

KINDS = ("rnn", "rnn-relu", "gru", "lstm")
GATES = {1: "rnn", 3: "gru", 4: "lstm"}
LARGEST = 2 << 30  # bytes
STEPS, SEQUENCES = 100, 16  # of the probe where no data is given
RECURRENT = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<own>(?:weight|bias)_(?:ih|hh|hr))(?P<layer>_l\d+)?(?P<way>_reverse)?")
UNUSABLE = "a state dict of torch: name → tensor"


class Recurrent(nn.Module):
    """A recurrent layer, and a readout at every step where the file has one."""

    def __init__(self, layer: nn.RNNBase, readout: nn.Linear | None):
        super().__init__()
        self.layer, self.readout = layer, readout

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, D) → (T, B, outputs)."""
        out, _ = self.layer(x)
        return out if self.readout is None else self.readout(out)


class Weights(NamedTuple):
    """given: model, batch and losses, as from a factory.  probe: what was made up.  left_out: arrays not used."""

    given: Given
    probe: str
    left_out: list[str]


def from_file(path: Path, *, kind: str | None = None, layer: str | None = None, data: Path | None = None) -> Weights:
    """The recurrent layer of a file of weights, and a batch for it.

    Args:
        path: .safetensors, or a checkpoint that torch loads with weights_only=True.
        kind: "rnn", "rnn-relu", "gru" or "lstm"; None to tell by the shapes.
        layer: prefix of its names; None for the only one.
        data: .npy or .npz, (T, B, D) or (T, D); None for numbers drawn from a fixed seed.

    Raises:
        FileError, DataError, InputError, ShapeError: one line for each way in which that fails.
    """
    arrays = read_weights(path)
    model, used = recurrent(arrays, str(path), kind, layer)
    D, dtype = model.layer.input_size, next(model.parameters()).dtype
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, SEQUENCES, D, generator=draw) if data is None else read_data(data, D)
    x = x.to(dtype)
    width = model.layer.proj_size or model.layer.hidden_size
    outputs = width * (1 + model.layer.bidirectional) if model.readout is None else model.readout.out_features
    targets = torch.randn(*x.shape[:2], outputs, generator=draw).to(dtype)
    inputs = "standard normal inputs" if data is None else f"inputs of {data}"
    probe = f"{inputs}, mean squared error against random targets at every step: a probe, not " + (
        "real data" if data is None else "the task it was trained on"
    )
    given = Given(model, x, lambda out: (out - targets).square().mean((1, 2)) / len(out))
    return Weights(given, probe, [name for name in arrays if name not in used])


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name → tensor, on the CPU.

    Raises:
        FileError: no such file, too large, damaged, of ours, or something that only an unpickler could read.
    """
    if not path.is_file():
        raise FileError(f"{path}", got="a folder" if path.is_dir() else "no such file", expected="a file of weights")
    if (size := path.stat().st_size) > LARGEST:
        raise FileError(f"{path}", got=f"{size / 2**30:.1f} GiB", expected=f"at most {LARGEST >> 30} GiB")
    made = _safetensors(path) if path.suffix == ".safetensors" else _checkpoint(path)
    found = _state_dict(made)
    if found is None:
        got = f"{type(made).__name__} without recurrent weights"
        names = [str(name) for name in made][:6] if isinstance(made, Mapping) else []
        got += f" (it has {', '.join(names)})" if names else ""
        raise FileError(f"{path}", got=got, expected="weight_ih_l0, weight_hh_l0, … of nn.RNN, nn.GRU or nn.LSTM")
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    if format_of(path):
        do = "See it with: bptt show."
        raise FileError(f"{path}", got="a file that bptt wrote", expected="a state dict of torch", do=do)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        got = f"a damaged file ({str(error).splitlines()[0][:80]})"
        raise FileError(f"{path}", got=got, expected="safetensors") from None


def _checkpoint(path: Path) -> Any:
    try:
        with warnings.catch_warnings():  # of a scripted module: the error says it all
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its text is a page, and proposes to unpickle whatever the file says
        do = "Save it with torch.save(model.state_dict(), path)."
        got = "a file that torch does not load with weights_only=True"
        raise FileError(f"{path}", got=got, expected=UNUSABLE, do=do) from error


def _state_dict(made: Any, depth: int = 0) -> dict[str, Tensor] | None:
    """The mapping of names to tensors with a recurrent layer in it, at the top or a little below."""
    if not isinstance(made, Mapping):
        return None
    tensors = {str(name): value for name, value in made.items() if isinstance(value, Tensor)}
    if any((m := RECURRENT.fullmatch(name)) and m["own"] == "weight_ih" for name in tensors):
        return tensors
    below = (_state_dict(value, depth + 1) for value in made.values()) if depth < 2 else ()
    return next((found for found in below if found is not None), None)


def read_data(path: Path, D: int) -> Tensor:
    """(T, B, D) of a .npy, or of the array "x" or the only one of a .npz; (T, D) is one sequence.

    Raises:
        FileError: it cannot be read.  DataError, ShapeError: it is no such array.
    """
    try:
        with open(path, "rb") as file:
            made = np.load(file, allow_pickle=False)
            if isinstance(made, np.lib.npyio.NpzFile):
                names = made.files
                if "x" not in names and len(names) != 1:
                    raise DataError(f"{path}", got=f"arrays {', '.join(names) or 'none'}", expected="x, or only one")
                made = made["x" if "x" in names else names[0]]
    except OSError as error:
        raise FileError(f"{path}", got=error.strerror or "no array", expected=".npy or .npz") from None
    except (ValueError, EOFError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise FileError(f"{path}", got="no array of numbers", expected=".npy or .npz of numbers") from None
    if made.dtype.kind not in "biuf":
        raise DataError(f"{path}", got=f"dtype {made.dtype}", expected="real numbers")
    x = made[:, None] if made.ndim == 2 else made
    if x.ndim != 3 or x.shape[2] != D or 0 in x.shape:
        raise ShapeError(f"{path}", got=f"shape {made.shape}", expected=f"(T, B, {D}) or (T, {D})")
    if not np.isfinite(x).all():
        t, b, d = np.argwhere(~np.isfinite(x))[0]
        raise NotFiniteError(f"{path}", got=f"{x[t, b, d]} at step {t + 1}, sequence {b + 1}", expected="numbers")
    return torch.from_numpy(np.ascontiguousarray(x, np.float64))


# ---- building --------------------------------------------------------------------------------------------------------


def recurrent(
    arrays: Mapping[str, Tensor], what: str, kind: str | None, layer: str | None
) -> tuple[Recurrent, set[str]]:
    """The model of the arrays, and which it took.

    Raises:
        InputError: several layers, or none that fits.  ShapeError: it is of no kind, or of another than was said.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("--kind", kind, KINDS)
    prefix = _prefix(arrays, what, layer)
    own = {name: t for name, t in arrays.items() if (m := RECURRENT.fullmatch(name)) and m["prefix"] == prefix}
    names = {name: name.removeprefix(prefix) + ("" if "_l" in name.removeprefix(prefix) else "_l0") for name in own}
    state = {names[name]: _real(tensor, name) for name, tensor in own.items()}
    built = _layer(state, f"{what}: {prefix}weight_hh_l0" if prefix else f"{what}: weight_hh_l0", kind)
    try:
        built.load_state_dict(state)
    except RuntimeError as error:
        said = " ".join(str(error).split("\n\t")[-1].split())
        raise ShapeError(what, got=f"weights that do not fit a layer of torch: {said}"[:240]) from None
    width = (built.proj_size or built.hidden_size) * (1 + built.bidirectional)
    readout, taken = _readout(arrays, width, set(own))
    model = Recurrent(built, readout)
    model.to(next(iter(state.values())).dtype)
    return model, set(own) | taken


def _prefix(arrays: Mapping[str, Tensor], what: str, layer: str | None) -> str:
    found = [m["prefix"] for name in arrays if (m := RECURRENT.fullmatch(name)) and m["own"] == "weight_ih"]
    found = list(dict.fromkeys(found))
    if layer is None:
        if len(found) == 1:
            return found[0]
        got = "recurrent layers " + ", ".join(repr(prefix.rstrip(".")) for prefix in found)
        raise InputError(what, got=got, expected="one", do="Choose it with --layer.")
    wanted = layer if layer in found else f"{layer}."
    if wanted not in found:
        raise unknown("--layer", layer, [prefix.rstrip(".") for prefix in found])
    return wanted


def _real(tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point():
        raise InputError(name, got=f"numbers of {str(tensor.dtype).removeprefix('torch.')}", expected="real weights")
    if not tensor.isfinite().all():
        raise NotFiniteError(name, got="NaN or infinity in it", expected="weights that are numbers")
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _layer(state: dict[str, Tensor], what: str, kind: str | None) -> nn.RNNBase:
    """A layer of the right kind and sizes; its numbers do not matter."""
    hh, ih = state.get("weight_hh_l0"), state.get("weight_ih_l0")
    if hh is None or ih is None or hh.dim() != 2 or ih.dim() != 2 or len(hh) != len(ih) or 0 in (*hh.shape, *ih.shape):
        shapes = " and ".join("none" if t is None else str(tuple(t.shape)) for t in (ih, hh))
        raise ShapeError(what, got=f"weight_ih and weight_hh of shape {shapes}", expected="two matrices of equal rows")
    projected = "weight_hr_l0" in state
    rows, hidden = len(hh), state["weight_hr_l0"].shape[-1] if projected else hh.shape[1]
    looks = GATES.get(rows // hidden) if rows % hidden == 0 else None
    if looks is None or (projected and looks != "lstm"):
        raise ShapeError(what, got=f"{rows} rows and {hidden} units", expected="1, 3 or 4 times as many rows as units")
    if kind is not None and kind.partition("-")[0] != looks:
        raise ShapeError(what, got=f"{rows // hidden} × {hidden} rows, which is {looks}", expected=f"--kind {kind}")
    options: dict[str, Any] = {"proj_size": hh.shape[1]} if projected else {}
    options |= {"nonlinearity": "relu"} if kind == "rnn-relu" else {}
    layers = 1 + max(int(name.split("_l")[1].split("_")[0]) for name in state)
    both, bias = any(name.endswith("_reverse") for name in state), any(name.startswith("bias") for name in state)
    maker = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[looks]
    return maker(ih.shape[1], hidden, layers, bias=bias, bidirectional=both, dtype=hh.dtype, **options)


def _readout(arrays: Mapping[str, Tensor], width: int, used: set[str]) -> tuple[nn.Linear | None, set[str]]:
    """The only linear layer that fits behind the recurrent one, and the names it took."""
    fits = [
        name for name, t in arrays.items()
        if name not in used and (name == "weight" or name.endswith(".weight")) and t.dim() == 2 and t.shape[1] == width
        and t.is_floating_point() and "embed" not in name.lower()
    ]  # fmt: skip
    if len(fits) != 1:
        return None, set()
    weight, name = arrays[fits[0]], fits[0].removesuffix("weight") + "bias"
    bias = arrays.get(name)
    linear = nn.Linear(width, len(weight), bias=bias is not None)
    taken = {fits[0]} | ({name} if bias is not None else set())
    with torch.no_grad():
        linear.weight.copy_(_real(weight, fits[0]))
        if bias is not None:
            linear.bias.copy_(_real(bias, name))
    return linear, taken

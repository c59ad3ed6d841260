"""`bptt check`: one training step of somebody's PyTorch model, taken apart."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter

from bptt.cli.output import out, print_json, program
from bptt.errors import FileError, InputError, unknown

if TYPE_CHECKING:
    from bptt.ledger import Ledger

ENGINES = ("auto", "compiled", "torch")


def check(
    source: str,
    /,
    *,
    parameter: str | None = None,
    map: Annotated[bool | None, Parameter(negative="--no-map")] = None,
    plot: str | None = None,
    save: str | None = None,
    engine: str = "auto",
    kind: str | None = None,
    layer: str | None = None,
    data: str | None = None,
    json: bool = False,
) -> int:
    """Trace one step of a PyTorch model: what every use of its weights adds, and how far back the gradient reaches.

    Examples: bptt check train.py:make --plot reach.svg     bptt check weights.pt

    In train.py, make() returns (model, batch, losses); losses(outputs) gives one loss for each step.

    Parameters
    ----------
    source: str
        module:factory or file.py:factory, a function without arguments that returns (model, batch) or (model, batch,
        losses); or the weights of an nn.RNN, nn.GRU or nn.LSTM in .safetensors or .pt.
    parameter: str
        The weight whose steps and map are shown; the recurrent weight of the last layer by default.
    map: bool
        What each loss says to each use; by default where there is a loss for each of up to 128 steps.
    plot: str
        Also write a picture (.svg, .png or .pdf); needs the extra "plot".
    save: str
        Write the ledger to this file (.safetensors), for bptt show.
    engine: str
        Of nn.RNN, nn.GRU and nn.LSTM: auto, compiled or torch.
    kind: str
        Of a file of weights: rnn, rnn-relu, gru or lstm; by default as the shapes say.
    layer: str
        Of a file of weights: the name of the recurrent layer, where it has several.
    data: str
        Of a file of weights: inputs (T, B, D) in .npy or .npz; by default drawn from a fixed seed.
    json: bool
        Print one JSON document instead of tables.
    """
    if engine not in ENGINES:
        raise unknown("--engine", engine, ENGINES)
    if save and Path(save).exists():
        raise FileError(save, got="a file that is there already", do="Choose another name for --save.")
    given = _source(source, kind, layer, data)
    if given is None:  # a ledger of ours
        from bptt.cli.show import show

        return show(source, parameter=parameter, plot=plot, json=json)
    from bptt.cli.show import default_name
    from bptt.trace.torch.one_step import one_step

    with _busy(f"tracing one step of {source}"):
        found = one_step(given.given, given.what, map=map, engine=engine)
        ledger, reach = _reached(found.ledger)
        if given.probe:
            ledger.meta["loss"] = given.probe
        name = ledger.name(parameter) if parameter else default_name(ledger, reach)
        if plot:  # first: what it refuses is said before anything is printed
            from bptt.report.figures import save_figure

            save_figure(ledger, name, plot, reach.get(name))
        if save:
            ledger.save(save)
    if json:
        _print_document(source, ledger, reach, given, found.note)
        return 0
    from bptt.report.ledger import ledger_report

    screen = out()
    screen.print(source, style="bold", markup=False)
    screen.print(ledger_report(ledger, name, reach, screen.width))
    screen.print()
    for line in _lines(ledger, name, reach, given, found.note):
        screen.print(line, markup=False, highlight=False)
    for path, what in ((plot, "picture"), (save, "ledger")):
        if path:
            more = f": {program()} show {path}" if what == "ledger" else ""
            screen.print(f"{what} written to {path}{more}", markup=False)
    return 0


class _Source:
    """given: model, batch and losses.  what: its name in errors.  probe: what was made up for it.  left_out: names."""

    def __init__(self, given: Any, what: str, probe: str = "", left_out: tuple[str, ...] = ()):
        self.given, self.what, self.probe, self.left_out = given, what, probe, left_out


def _source(source: str, kind: str | None, layer: str | None, data: str | None) -> _Source | None:
    """What is to be traced; None for a file that `bptt show` reads."""
    from bptt.trace import room

    room("torch")  # or what to install
    from bptt.trace.torch.factory import load
    from bptt.trace.torch.weights import SUFFIXES, format_of, from_file

    path = Path(source)
    if path.suffix in SUFFIXES and (path.exists() or ":" not in source):
        if format_of(path) == "bptt.ledger":
            return None
        weights = from_file(path, kind=kind, layer=layer, data=None if data is None else Path(data))
        return _Source(weights.given, source, weights.probe, tuple(weights.left_out))
    for option, value in (("--kind", kind), ("--layer", layer), ("--data", data)):
        if value is not None:
            raise InputError(option, got=f"it beside {source}", expected="it beside a file of weights only")
    if ":" not in source:
        do = "A run of bptt is shown by: bptt show." if path.is_dir() else None
        expected = "module:factory, file.py:factory, or weights in .safetensors or .pt"
        raise InputError("what to check", got=repr(source), expected=expected, do=do)
    return _Source(load(source), source)


def _reached(ledger: "Ledger") -> "tuple[Ledger, dict[str, int]]":
    """The ledger with the horizon noted in it, and without the contributions, which are large."""
    from bptt.cli.show import reach_of

    reach = reach_of(ledger)
    if not ledger.loss_uses:
        return ledger, reach
    meta = ledger.meta | {"keep": "factors", "horizon": reach}
    return replace(ledger, loss_uses={}, meta=meta, recorded_residuals=dict(ledger.residuals)), reach


def _lines(ledger: "Ledger", name: str, reach: dict[str, int], given: _Source, note: str) -> list[str]:
    """What it comes to, in words."""
    lines = []
    if name in reach:
        steps = "1 step" if reach[name] == 1 else f"{reach[name]} steps"
        lines.append(f"{name} reaches back {steps} of {ledger.steps(name)}: the rest is below 1 % of dW.")
    if given.probe:
        lines.append(f"Probe: {given.probe}.")
    if given.left_out:
        more = f" and {len(given.left_out) - 6} more" if len(given.left_out) > 6 else ""
        lines.append(f"Left out: {', '.join(given.left_out[:6])}{more}.")
    if note:
        lines.append(note[0].upper() + note[1:])
    return lines


def _print_document(source: str, ledger: "Ledger", reach: dict[str, int], given: _Source, note: str) -> None:
    from bptt.cli.show import document

    uses = {name: ledger.steps(name) for name in ledger.names}
    totals = {name: float(np.linalg.norm(ledger.gradients[name])) for name in ledger.names}
    print_json(
        {
            "source": source, "probe": given.probe or None, "left_out": list(given.left_out), "note": note or None,
            "uses": uses, "gradient_norms": totals, "ledger": document(ledger, source, reach),
        }
    )  # fmt: skip


@contextlib.contextmanager
def _busy(what: str) -> Iterator[None]:
    """A sign of life on standard error, where a person sees it."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(what) if console.is_terminal else contextlib.nullcontext():
        yield

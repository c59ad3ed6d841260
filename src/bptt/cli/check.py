"""`bptt check`: how far a gradient reaches, what is wrong, and what to try: of a run, a ledger, or somebody's model."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from bptt.cli.options import MaybeWhole, Whole
from bptt.cli.output import Busy, out, print_json, program
from bptt.cli.settings import asked
from bptt.cli.subject import Options, Subject, finite, subject, trainable
from bptt.errors import FileError, InputError

FINE, FOUND, INTERRUPTED = 0, 1, 130
GRAVITY = {"note": 0, "warning": 1, "error": 2, "never": 3}
Flag = Annotated[bool, Parameter(negative="")]


def check(
    source: str | None = None,
    /,
    *,
    select: str | None = None,
    ignore: str | None = None,
    fail_on: str | None = None,
    threshold: list[str] | None = None,
    explain: str | None = None,
    try_: Annotated[bool, Parameter(name="--try", negative="")] = False,
    iterations: MaybeWhole = None,
    samples: Whole = 32,
    seed: Whole = 0,
    parameter: str | None = None,
    map: Annotated[bool | None, Parameter(negative="--no-map")] = None,
    plot: str | None = None,
    save: str | None = None,
    engine: str | None = None,
    kind: str | None = None,
    layer: str | None = None,
    data: str | None = None,
    json: Flag = False,
) -> int:
    """Say how far back a gradient reaches, what is wrong with it, and what to try.

    Examples: bptt check runs/text-1     bptt check runs/text-1 --try     bptt check train.py:make --plot reach.svg

    In train.py, make() returns (model, batch, losses); losses(outputs) gives one
    loss for each step. select, ignore, fail-on and thresholds of a whole project
    stand in its pyproject.toml, under [tool.bptt.check]. Exit code 0: no verdict
    as grave as --fail-on; 1: there is one; 2: bad input.

    Parameters
    ----------
    source: str
        A run folder, a checkpoint or a ledger of bptt (.safetensors);
        module:factory or file.py:factory, a function without arguments
        that returns (model, batch) or (model, batch, losses); or the
        weights of an nn.RNN, nn.GRU or nn.LSTM in .safetensors or .pt.
    select: str
        Show verdicts with these codes alone, parted by commas; BP1 stands for all that begin so.
    ignore: str
        Leave verdicts with these codes out.
    fail_on: str
        The severity from which on the exit code is 1: error (by default), warning, note or never.
    threshold: list[str]
        NAME=NUMBER, what a verdict is held against, as in BP101.share=0.5; may be given several times.
    explain: str
        Say what a verdict means, by its code, and nothing else.
    try_: bool
        Of a run or a checkpoint: train with and without each remedy, and show which one helped.
    iterations: int
        Of --try: updates of each training.
    samples: int
        Losses that are walked back one by one where all would take too long.
    seed: int
        Of everything that is sampled.
    parameter: str
        The weight whose steps and map are shown; the recurrent weight of the last layer by default.
    map: bool
        What each loss says to each use; by default where there is a loss for each of up to 128 steps.
    plot: str
        Also write a picture (.svg, .png or .pdf); needs the extra "plot".
    save: str
        Write the ledger to this file (.safetensors), for bptt show.
    engine: str
        Of a run: auto, reference or compiled. Of nn.RNN, nn.GRU and nn.LSTM: auto, compiled or torch.
    kind: str
        Of a file of weights: rnn, rnn-relu, gru or lstm; by default as the shapes say.
    layer: str
        Of a file of weights: the name of the recurrent layer, where it has several.
    data: str
        Of a file of weights: inputs (T, B, D) in .npy or .npz; by default drawn from a fixed seed.
    json: bool
        Print one JSON document instead of tables.
    """
    if explain is not None:
        return _explain(explain, json)
    if source is None:
        raise InputError("what to check", got="nothing", do="Name a run, a file or a factory; see bptt check --help.")
    if save and Path(save).exists():
        raise FileError(save, got="a file that is there already", do="Choose another name for --save.")
    rules = asked(select, ignore, threshold, fail_on)
    options = Options(
        rules.select, rules.ignore, rules.thresholds, samples, seed, engine, kind, layer, data, map
    )  # fmt: skip
    _check_try(source, try_, iterations)
    with Busy(f"examining {source}") as busy:
        found = subject(source, options, busy)
        name = _name(found, parameter)
        _write(found, name, plot, save)
    trials = _tried(source, found, iterations) if try_ else None
    if json:
        print_json(document(source, found) | ({} if trials is None else {"trials": trials.to_dict()}))
    else:
        _show(found, name, map, trials, {"picture": plot, "ledger": save})
    if trials is not None and trials.interrupted:
        return INTERRUPTED
    grave = any(GRAVITY[finding.severity] >= GRAVITY[rules.fail_on or "error"] for finding in found.diagnosis.findings)
    return FOUND if grave else FINE


def document(source: str, found: Subject) -> dict[str, Any]:
    """A diagnosis as JSON has it: what `Diagnosis.to_dict` says, and the ledger as `bptt show --json` has it."""
    from bptt.cli.show import document as of_ledger

    diagnosis, ledger = found.diagnosis, found.diagnosis.ledger
    said = diagnosis.to_dict() | {
        "source": source, "probe": found.probe or None, "left_out": list(found.left_out), "note": found.note or None
    }  # fmt: skip
    if ledger is None:
        return said
    with np.errstate(all="ignore"):  # of a gradient that is not finite; what is no number becomes null
        return said | {
            "uses": {name: ledger.steps(name) for name in ledger.names},
            "gradient_norms": {name: float(np.linalg.norm(ledger.gradients[name])) for name in ledger.names},
            "ledger": of_ledger(ledger, source, found.reach),
        }


def _name(found: Subject, parameter: str | None) -> str | None:
    """The parameter that is shown in full."""
    from bptt.cli.show import default_name

    ledger = found.diagnosis.ledger
    if ledger is None:
        return None
    return ledger.name(parameter) if parameter else default_name(ledger, found.reach)


def _write(found: Subject, name: str | None, plot: str | None, save: str | None) -> None:
    """The files that were asked for, before anything is printed: what they refuse comes first."""
    ledger = found.diagnosis.ledger
    if not plot and not save:
        return
    if ledger is None or name is None:
        raise InputError("--plot" if plot else "--save", got="a diagnosis without a ledger", do="Leave it out.")
    if plot and not finite(ledger):
        raise InputError("--plot", got="a gradient that is not made of finite numbers", do="Leave it out.")
    if plot:
        from bptt.report.figures import save_figure

        save_figure(ledger, name, plot, found.reach.get(name))
    if save:
        ledger.save(save)


def _show(found: Subject, name: str | None, map: bool | None, trials: Any, written: dict[str, str | None]) -> None:
    from bptt.report.diagnosis import diagnosis_report

    screen, diagnosis = out(), found.diagnosis
    hint = ""
    if found.trained and trials is None and any(finding.remedies for finding in diagnosis.findings):
        hint = "Add --try to train with each remedy on the same data, and see which one helps."
    shown = None
    if trials is not None:
        from bptt.report.trials import trials_table

        shown = trials_table(trials)
    report = diagnosis_report(
        diagnosis, name, found.reach, screen.width, map=map is not False, hint=hint, trials=shown
    )  # fmt: skip
    screen.print(report)
    if map and (diagnosis.ledger is None or name not in diagnosis.ledger.maps):
        screen.print("No map: none was measured, or the ledger has none.", markup=False)
    for what, path in written.items():
        if path:
            more = f": {program()} show {shlex.quote(path)}" if what == "ledger" else ""
            screen.print(f"{what} written to {path}{more}", markup=False)


# ---- remedies --------------------------------------------------------------------------------------------------------


def _check_try(source: str, try_: bool, iterations: int | None) -> None:
    """Whether --try and --iterations can be, before anything is measured."""
    if iterations is not None and not try_:
        raise InputError("--iterations", got="it without --try", do="Add --try.")
    if iterations is not None and iterations < 1:
        raise InputError("--iterations", got=iterations, expected="at least 1")
    if try_ and not trainable(source):
        raise InputError("--try", got=repr(source), expected="a run or a checkpoint of bptt, which can be trained")


def _tried(source: str, found: Subject, iterations: int | None) -> Any:
    """The remedies of its findings, each trained beside the unchanged training."""
    from rich.console import Console

    from bptt.train.examination import open_saved
    from bptt.train.trial import try_remedies

    config = open_saved(source).checkpoint.config
    return try_remedies(config, found.diagnosis, iterations=iterations, progress=Console(stderr=True, emoji=False))


def _explain(code: str, json: bool) -> int:
    """What a verdict means: from the rules themselves, since the documentation is not installed with the package."""
    from bptt.diagnose.verdicts import chosen
    from bptt.report.verdicts import explanation

    rules = chosen(code)
    if json:
        keys = ("code", "name", "severity", "summary", "thresholds", "remedies")
        print_json({"rules": [{key: getattr(rule, key) for key in keys} for rule in rules]})
        return FINE
    screen = out()
    for rule in rules:
        screen.print(explanation(rule))
    return FINE

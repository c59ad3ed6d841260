"""`bptt train`: train a network on text, a series or a task, and say how far back its gradient reached."""

import os
import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from bptt.cli.options import MaybeWhole
from bptt.errors import InputError

FINE, INTERRUPTED = 0, 130
Flag = Annotated[bool, Parameter(negative="")]
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def train(
    data: str | None = None,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    iterations: MaybeWhole = None,
    cell: str | None = None,
    hidden: MaybeWhole = None,
    layers: MaybeWhole = None,
    bidirectional: Flag = False,
    nonlinearity: Literal["tanh", "relu"] | None = None,
    reset: Literal["after", "before"] | None = None,
    peepholes: Flag = False,
    projection: MaybeWhole = None,
    init: str | None = None,
    forget_bias: float | None = None,
    chrono: MaybeWhole = None,
    batch: MaybeWhole = None,
    steps: MaybeWhole = None,
    optimiser: Annotated[str | None, Parameter(name=["--optimiser", "--optimizer"])] = None,
    learning_rate: Annotated[float | None, Parameter(name=["--learning-rate", "--lr"])] = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
    clip_value: float | None = None,
    omega: float | None = None,
    floss: MaybeWhole = None,
    plan: str | None = None,
    unit: Literal["char", "word"] | None = None,
    max_vocabulary: MaybeWhole = None,
    columns: str | None = None,
    validation: float | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    seed: MaybeWhole = None,
    probe_every: MaybeWhole = None,
    sample_every: MaybeWhole = None,
    validate_every: MaybeWhole = None,
    checkpoint_every: MaybeWhole = None,
    jacobian_every: MaybeWhole = None,
    engine: Literal["auto", "reference", "compiled"] | None = None,
    threads: MaybeWhole = None,
    json: Flag = False,
) -> int:
    """Train a network on text, a series or a task. Without DATA: on the English that Python ships, in about a minute.

    Examples: bptt train     bptt train book.txt --cell gru     bptt train tides.csv     bptt train adding:100
    To go on with a run: bptt train --resume runs/text-1

    Args:
        data: a text file, a series (.csv, .tsv, .npy), or a task such as adding:100, copy:20, echo:5.
        out: folder of the run; runs/NAME-N by default.
        resume: go on with this run, to the very numbers of a run that was never stopped.
        iterations: updates of the weights; with --resume, go on to so many.
        cell: rnn, gru or lstm.
        hidden: H, units of a layer.
        layers: number of layers.
        bidirectional: both directions; for tasks.
        nonlinearity: of an rnn.
        reset: of a gru.
        peepholes: of an lstm.
        projection: width of an lstm's output.
        init: orthogonal, glorot or identity, for the recurrent weights.
        forget_bias: of an lstm.
        chrono: longest lag to remember, in steps, for the chrono initialisation.
        batch: sequences at once.
        steps: steps of a window; a task has its own.
        optimiser: adam or sgd.
        learning_rate: step size.
        momentum: of sgd.
        weight_decay: of adam, decoupled.
        clip: largest norm of the gradient, 0 for no limit.
        clip_value: largest value of the gradient, instead of its norm.
        omega: weight of the regulariser that keeps the error's size from step to step.
        floss: updates of gradient flossing before training, which moves Lyapunov exponents to 0.
        plan: full, chunked:K, windowed:K or checkpointed: how to walk back in a window.
        unit: what one id of a text stands for.
        max_vocabulary: most units of a text; the rest become <unk>.
        columns: of a series, by name or number from 1, parted by commas.
        validation: share of the text or series that is held out.
        dtype: float32 or float64.
        seed: of everything random.
        probe_every: iterations between two looks at the gradient, 0 for none.
        sample_every: iterations between two samples of text, 0 for none.
        validate_every: iterations between two looks at the validation part.
        checkpoint_every: iterations between two checkpoints.
        jacobian_every: iterations between two samples of the largest Lyapunov exponent; none by default.
        engine: compiled, the fast one, needs the extra "fast"; auto takes it where it is installed.
        threads: of the compiled engine, one per core by default; its numbers do not depend on it. With the reference
            engine: of matrix products, 1 by default; another number gives other last digits.
        json: write a summary as one JSON object to standard output, and nothing else.
    """
    settings = {name: value for name, value in locals().items() if name in _SETTINGS}
    if threads is not None and threads < 1:
        raise InputError("threads", got=threads, expected="at least 1")
    for name in THREADS:  # read when NumPy loads. Small products gain nothing from a second thread, which only spins
        os.environ[name] = str(threads or 1)
    if threads is not None:
        os.environ["BPTT_THREADS"] = str(threads)
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    return _run(data, out, resume, iterations, given, json)


def _run(
    data: str | None, out: Path | None, resume: Path | None, iterations: int | None, given: dict[str, Any], json: bool
) -> int:
    from rich.console import Console

    from bptt.cli.summary import show, summarise
    from bptt.train import configure, fit

    # With --json standard output holds the summary alone; progress is then for people at a terminal, if there are any.
    console = Console(stderr=json, soft_wrap=False, emoji=False)
    progress = None if json and not console.is_terminal else console
    if resume is not None:
        _refuse_beside_resume({"data": data, "out": out, **given})
        result = fit(folder=resume, resume=True, iterations=iterations, console=progress)
    else:
        config = configure(data, iterations=iterations, **_fields(given))
        result = fit(config, folder=out or _next_folder(config), console=progress)
    if json:
        sys.stdout.write(dumps(summarise(result)) + "\n")
    if progress is not None:
        show(result, progress)
    return INTERRUPTED if result.interrupted else FINE


_SETTINGS = (
    "cell", "hidden", "layers", "bidirectional", "nonlinearity", "reset", "peepholes", "projection", "init",
    "forget_bias", "chrono", "batch", "steps", "optimiser", "learning_rate", "momentum", "weight_decay", "clip",
    "clip_value", "omega", "floss", "plan", "unit", "max_vocabulary", "columns", "validation", "dtype", "engine",
    "seed", "probe_every", "sample_every", "validate_every", "checkpoint_every",
    "jacobian_every",
)  # fmt: skip
_OF_CELL = ("nonlinearity", "reset", "peepholes", "projection")


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of a `Config`."""
    fields = {key: value for key, value in given.items() if key not in (*_OF_CELL, "clip", "columns")}
    options = {key: value for key, value in given.items() if key in _OF_CELL}
    if options:
        fields["options"] = options
    if "columns" in given:
        fields["columns"] = [name.strip() for name in given["columns"].split(",")]
    if "clip" in given or "clip_value" in given:
        fields["clip_norm"] = given.get("clip", 0)  # one limit takes the place of the other
    return fields


def _next_folder(config: Any) -> Path:
    """runs/NAME-N, with the first N that is free."""
    from bptt.train.problem import short_name

    n, name = 1, short_name(config)
    while (folder := Path("runs", f"{name}-{n}")).exists():
        n += 1
    return folder


def _refuse_beside_resume(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        option = given[0] if given[0] == "data" else "--" + given[0].replace("_", "-")
        do = "A run goes on as it began; only --iterations may be changed."
        raise InputError("--resume", got=f"{option} too", do=do)

"""`bptt report`: a diagnosis as one page of HTML."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bptt.cli.options import Whole
from bptt.cli.output import Busy, out, print_json
from bptt.errors import FileError, InputError
from bptt.storage import write_text

LOOK = 4096  # characters at the head of a file, in which one of ours says what it is


def report(
    source: str,
    /,
    *,
    output: Annotated[
        str | None, Parameter(name=["--output", "-o"], help="file to write (.html); named after the source by default")
    ] = None,
    title: str | None = None,
    select: str | None = None,
    ignore: str | None = None,
    threshold: list[str] | None = None,
    samples: Whole = 32,
    seed: Whole = 0,
    engine: str | None = None,
    kind: str | None = None,
    layer: str | None = None,
    data: str | None = None,
    force: bool = False,
    json: bool = False,
) -> int:
    """Write a page that shows where in time something learns from, how far back, and what is wrong: one file of HTML.

    Example: bptt report runs/text-1 -o text.html

    The page opens from disk: it loads nothing and runs nothing, and it prints.
    A file that is there is replaced where it is a report itself.

    Parameters
    ----------
    source: str
        What bptt check takes: a run folder, a checkpoint or a ledger
        of bptt, module:factory or file.py:factory, or weights in
        .safetensors or .pt.
    title: str
        Of the page; the source by default.
    select: str
        Show verdicts with these codes alone, parted by commas; BP1 stands for all that begin so.
    ignore: str
        Leave verdicts with these codes out.
    threshold: list[str]
        NAME=NUMBER, what a verdict is held against; may be given several times.
    samples: int
        Losses that are walked back one by one where all would take too long.
    seed: int
        Of everything that is sampled.
    engine: str
        Of a run: auto, reference or compiled. Of nn.RNN, nn.GRU and nn.LSTM: auto, compiled or torch.
    kind: str
        Of a file of weights: rnn, rnn-relu, gru or lstm; by default as the shapes say.
    layer: str
        Of a file of weights: the name of the recurrent layer, where it has several.
    data: str
        Of a file of weights: inputs (T, B, D) in .npy or .npz; by default drawn from a fixed seed.
    force: bool
        Replace a file that is no report.
    json: bool
        Say what was written as JSON.
    """
    from bptt.cli.settings import asked
    from bptt.cli.subject import examined
    from bptt.report.html import html_report

    target = target_of(source) if output is None else Path(output)
    check_target(target, force)  # first: the examination takes longer
    rules = asked(select, ignore, threshold)
    with Busy(f"examining {source}") as busy:
        diagnosis = examined(
            source, samples=samples, seed=seed, select=rules.select, ignore=rules.ignore, thresholds=rules.thresholds,
            progress=busy, engine=engine, kind=kind, layer=layer, data=data,
        )  # fmt: skip
        write_text(target, html_report(diagnosis, title=title))
    size = target.stat().st_size
    if json:
        found = [{"code": one.code, "severity": one.severity, "where": one.where} for one in diagnosis.findings]
        print_json({"written": str(target), "source": source, "bytes": size, "findings": found})
    else:
        out().print(f"{source} → {target}, {size / 1000:,.0f} kB", markup=False, soft_wrap=True)
    return 0


def target_of(source: str) -> Path:
    """A name in this folder: of a run folder, a file or a factory, with the ending .html.

    >>> print(target_of("runs/text-1"), target_of("train.py:make"), target_of("runs/a/ledgers/x.safetensors"))
    text-1.html train-make.html x.html
    """
    path, _, factory = source.partition(":") if not Path(source).exists() else (source, "", "")
    name = Path(path).resolve().name if path.rstrip("/").endswith(("..", ".")) or path in ("", "/") else Path(path).name
    stem = name.removesuffix(".safetensors").removesuffix(".py").removesuffix(".pt").strip(".") or "report"
    return Path(f"{stem}-{factory}.html" if factory else f"{stem}.html")


def check_target(target: Path, force: bool) -> None:
    """Whether the page may be written there.

    Raises:
        InputError: another ending.  FileError: no such folder, or a file that is not one of our reports.
    """
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError("--output", got=target, expected="a name that ends in .html")
    if target.is_dir():
        raise FileError(f"{target}", got="a folder", expected="the name of a file", do="Choose another --output.")
    if not target.parent.is_dir():
        raise FileError(f"cannot write {target}", got="no such folder", do="Make it first.")
    if target.exists() and not force and not is_report(target):
        do = "Choose another --output, or add --force."
        raise FileError(f"{target}", got="a file that is there already and no report of bptt", do=do)


def is_report(path: Path) -> bool:
    """Whether a file says of itself that we wrote it."""
    from bptt.report.html import GENERATOR

    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return f'<meta name="generator" content="{GENERATOR} ' in file.read(LOOK)
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror or str(error)) from None

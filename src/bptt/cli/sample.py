"""`bptt sample`: what a trained network says by itself."""

import json as json_
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bptt.cli.options import Whole, whole


def sample(
    run: Path,
    *,
    length: Annotated[int | None, Parameter(name=["--length", "-n"], converter=whole)] = None,
    temperature: float = 0.8,
    seed: Whole = 0,
    prime: str = "",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Text from a trained network; the next values, where it was trained on a series.

    Example: bptt sample runs/text-1 --length 200 --prime "The "

    Args:
        run: the folder of a run.
        length: how many characters, words or rows (400 of text, 20 of a series).
        temperature: 1 as learnt, below 1 bolder, 0 always the likeliest; for text.
        seed: of the draws; for text.
        prime: what the text begins with.
        json: write one JSON object.
    """
    from bptt.errors import InputError
    from bptt.train import load_model

    saved = load_model(run)
    kind = saved.config.kind
    if kind == "task":
        do = f"See what it learnt with: bptt show {run}"
        raise InputError(f"{run}", got=f"a run of {saved.config.data}, a task", expected="text or a series", do=do)
    if kind == "series" and prime:
        raise InputError("prime", got="a run of a series", expected="a run of text", do="Leave it out.")
    said = _text(saved, length, temperature, seed, prime) if kind == "text" else _series(saved, length)
    if json:
        _write(json_.dumps({"run": str(run), "iteration": saved.iteration, "kind": kind, **said}))
    else:
        _write(said["text"] if kind == "text" else _table(said["columns"], said["rows"]))


def _text(saved, length: int | None, temperature: float, seed: int, prime: str) -> dict:
    from bptt.train import generate

    facts = saved.facts
    text = generate(
        saved.network, facts["vocabulary"], unit=facts["unit"], length=400 if length is None else length,
        temperature=temperature, seed=seed, prime=prime,
    )  # fmt: skip
    return {"text": text}


def _series(saved, length: int | None) -> dict:
    from bptt.train import forecast

    arrays = saved.facts["arrays"]
    rows = forecast(saved.network, arrays["tail"], arrays["mean"], arrays["std"], 20 if length is None else length)
    return {"columns": saved.facts["columns"], "rows": rows.tolist()}


def _table(columns: list[str], rows: list[list[float]]) -> str:
    """CSV, so that it can be piped on."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["step", *columns])
    writer.writerows([i, *(f"{value:.6g}" for value in row)] for i, row in enumerate(rows, 1))
    return out.getvalue().rstrip("\n")


def _write(text: str) -> None:
    """A terminal that cannot show a character gets a question mark instead of an error."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")

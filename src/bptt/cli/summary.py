"""What a run came to, for a terminal and for another program."""

import math
import shlex
import textwrap
from typing import Any

from bptt.cli.output import program
from bptt.train.loop import Result
from bptt.train.probe import CHECK

LABEL = 12  # width of the first column


def summarise(result: Result) -> dict[str, Any]:
    """The numbers of a run, ready for JSON; None where there is none."""
    value, probe, config = result.validation, result.probe or {}, result.config
    return {
        "run": None if result.folder is None else str(result.folder),
        "kind": config.kind,
        "data": config.data,
        "network": result.network.describe(),
        "iteration": result.iteration,
        "iterations": config.iterations,
        "finished": not result.interrupted,
        "validation_loss": None if value is None else value.loss,
        "bits_per_unit": value.loss / math.log(2) if value is not None and config.kind == "text" else None,
        "accuracy": None if value is None else value.score,
        "baselines": result.baselines,
        "horizon": probe.get("horizon"),
        "decay_per_lag": probe.get("decay_per_lag"),
        "state_gain": probe.get("state_gain"),
        "gradient_check": result.check,
        "gradient_check_passed": None if result.check is None else result.check <= CHECK[config.dtype],
    }


def show(result: Result, console: Any) -> None:
    """The same for a person, with a sample and what to try next."""
    console.print()
    if result.interrupted:
        line = f"Stopped after iteration {result.iteration:,} of {result.config.iterations:,}."
        if result.folder is not None:
            line += f" Go on with: {program()} train --resume {shlex.quote(str(result.folder))}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    for label, text, style in _lines(result):
        _row(console, label, text, style)
    if result.folder is not None:
        console.print()
        for command, meaning in _next(result):
            console.print(f"  {command}", markup=False, highlight=False, end="")
            console.print(f"   {meaning}", markup=False, highlight=False, style="dim")


def _row(console: Any, label: str, text: str, style: str) -> None:
    """A label, and text wrapped beside it."""
    first = True
    for line in textwrap.wrap(text, max(console.width - LABEL - 3, 20)) or [""]:
        console.print(f"{label if first else '':{LABEL}}  ", end="", style="dim", markup=False, highlight=False)
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
        first = False


def _lines(result: Result) -> list[tuple[str, str, str]]:
    rows = [("validation", _validation(result), "bold")]
    rows += [("guessing", f"{value:.4f}, {name}", "") for name, value in result.baselines.items()]
    if result.probe is not None:
        rows.append(("reach", _reach(result), ""))
    if result.check is not None:
        passed = result.check <= CHECK[result.config.dtype]
        verdict = "passed" if passed else "FAILED"
        text = f"{verdict}: relative error {result.check:.1e} in {result.config.dtype}, against a complex step"
        rows.append(("check", text, "" if passed else "bold red"))
    samples = [event["text"] for event in result.events if event["kind"] == "sample"]
    if samples:
        rows.append(("sample", " ".join(samples[-1].split()), "italic"))
    return rows


def _validation(result: Result) -> str:
    assert result.validation is not None
    loss, score = result.validation
    if result.config.kind == "text":
        unit = "character" if result.config.unit == "char" else "word"
        return f"{loss:.4f} nats per {unit}, {loss / math.log(2):.3f} bits"
    what = "mean squared error" + (", standardised" if result.config.kind == "series" else "")
    return f"{loss:.4f} {'nats' if score is not None else what}" + (
        "" if score is None else f", accuracy {100 * score:.1f} %"
    )


def _reach(result: Result) -> str:
    """How far back, and what one step more leaves."""
    probe, parts = result.probe or {}, []
    for name, steps in probe.get("horizon", {}).items():
        if probe["gradient_norms"][name] == 0:
            parts.append(f"no gradient reaches {name}")
            continue
        decay = probe["decay_per_lag"][name]
        fading = "" if decay is None else f"; one step more of lag leaves {100 * decay:.0f} % of a contribution"
        parts.append(f"{steps} of {result.config.steps} steps hold, within 1 %, the gradient of {name}{fading}")
    if not parts:  # too long for the contribution of every loss
        parts = [
            f"a step back leaves {100 * gain:.0f} % of ‖∂J/∂s‖ in {at}" for at, gain in probe["state_gain"].items()
        ]
    return ". ".join(parts)


def _next(result: Result) -> list[tuple[str, str]]:
    folder = shlex.quote(str(result.folder))
    more = max(2 * result.config.iterations, 1)
    rows = [(f"{program()} show {folder}", "where in time it learnt from")]
    if result.config.kind != "task":
        rows.append((f"{program()} sample {folder}", "what it says by itself"))
    return [*rows, (f"{program()} train --resume {folder} --iterations {more}", "train on")]

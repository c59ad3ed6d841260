"""`bptt explain`: one training step of a tiny network on a sentence, in full view."""

import math
import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bptt.cli.options import Whole
from bptt.cli.output import out, print_json, program
from bptt.errors import FileError, InputError

SENTENCE = "the cat sat down"


def explain(
    sentence: str = SENTENCE,
    /,
    *,
    term: Annotated[str | None, Parameter(help="k,t: print the factors of the contribution C[k,t]")] = None,
    parameter: str = "W_hh",
    cell: str = "rnn",
    hidden: Whole = 4,
    learning_rate: float = 0.1,
    clip: float | None = None,
    seed: Whole = 0,
    save: str | None = None,
    json: bool = False,
) -> int:
    """Words → a tiny network → losses, the table of contributions, step gradients, their sum, the update.

    Example: bptt explain "the cat sat down" --term 4,1

    Parameters
    ----------
    sentence: str
        The words to read; each is one timestep.
    parameter: str
        The weight whose gradient is taken apart: W_hh, W_xh, b, readout.W; with a gate behind it for gru and lstm,
        W_hh.f.
    cell: str
        rnn, gru or lstm.
    hidden: int
        Number of hidden units.
    learning_rate: float
        Step size α of the update.
    clip: float
        Largest norm of the gradient; the table shows what the loss produced, before clipping.
    seed: int
        Of the weights; the same seed gives the same numbers.
    save: str
        Write the ledger to this file (.safetensors).
    json: bool
        Print one JSON document instead of tables.
    """
    from bptt.train.lesson import lesson as make

    if save and Path(save).exists():
        raise FileError(save, got="a file that is there already", do="Choose another name for --save.")
    made = make(sentence, cell=cell, hidden=hidden, seed=seed, learning_rate=learning_rate, clip=clip)
    ledger = made.ledger
    if f"layer0.{parameter}" in ledger.gradients:  # b is the layer's, not the readout's
        parameter = f"layer0.{parameter}"
    ledger.gradient(parameter)  # an unknown name is refused before anything is printed
    pair = _pair(term) if term else None
    if save:
        ledger.save(save)
    if json:
        print_json(_document(made, parameter, pair))
        return 0
    screen = out()
    if pair:
        _print_term(screen, made, pair, parameter)
        return 0
    from bptt.report.lesson import lesson_report

    screen.print(sentence, style="bold", markup=False)
    screen.print(lesson_report(made, parameter, screen.width))
    next_ = (
        f"Next: {program()} explain {shlex.quote(sentence)} --term {ledger.T},1   shows the factors of one contribution"
    )
    screen.print(next_, style="dim", markup=False)
    if save:
        screen.print(f"ledger written to {save}: {program()} show {save}", markup=False)
    return 0


def _pair(term: str) -> tuple[int, int]:
    parts = term.replace(" ", "").split(",")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise InputError("--term", got=repr(term), expected="two steps k,t, for example 4,1")
    return int(parts[0]), int(parts[1])


def _print_term(screen: Any, made: Any, pair: tuple[int, int], parameter: str) -> None:
    from bptt.report.lesson import term_table
    from bptt.report.terminal import number
    from bptt.train.lesson import term

    factors = term(made, *pair, parameter)
    k, t = pair
    title = (
        f"C[{k},{t}] of {parameter.removeprefix('layer0.')}: what the loss at step {k} says to the use at step {t}\n"
    )
    screen.print(title, style="bold", markup=False)
    screen.print(term_table(factors))
    jacobians = [factor for factor in factors if factor.value.ndim == 2 and factor.symbol.startswith("∂")]
    if jacobians:
        product = math.prod(factor.norm for factor in jacobians)
        count = (
            "One Jacobian of norm" if len(jacobians) == 1 else f"{len(jacobians)} Jacobians, whose norms multiply to"
        )
        screen.print(f"\n{count} {number(product)}: along a path factors are multiplied.")
    if len(factors) == len(jacobians) + 4 and factors[-1].value.ndim == 2:
        screen.print("For one sequence the contribution is zᵀδ, so its norm is ‖z‖ · ‖δ‖.")


def _document(made: Any, parameter: str, pair: tuple[int, int] | None) -> dict[str, Any]:
    from bptt.train.lesson import term

    ledger, name = made.ledger, parameter
    document = {
        "words": made.words,
        "targets": made.targets,
        "network": made.network.describe(),
        "chances": made.chances,
        "losses": ledger.losses,
        "loss": ledger.loss,
        "parameter": name,
        "map": ledger.map(name),
        "step_gradients": ledger.step_gradients(name),
        "step_gradient_norms": ledger.norms(name),
        "shares": ledger.shares(name),
        "gradient": ledger.gradient(name),
        "state_gradient_norms": ledger.state_norms(0),
        "gains": ledger.gains(0),
        "residual": ledger.residual,
        "complex_step_error": made.check,
        "update": {
            "learning_rate": made.learning_rate,
            "clip_factor": made.clipped,
            "loss_after": made.after,
            "shares": {each: part.shares for each, part in made.attribution.items()},
        },
    }
    if pair:
        factors = term(made, *pair, parameter)
        document["term"] = {
            "loss_step": pair[0],
            "step": pair[1],
            "factors": [{"symbol": f.symbol, "norm": f.norm, "meaning": f.meaning, "value": f.value} for f in factors],
        }
    return document

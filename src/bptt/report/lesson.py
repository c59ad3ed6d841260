"""The lesson, printed: words, losses, the table, the step gradients, the update, the five questions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.report.terminal import bar, error, number, numbered_map, percent, shaded_map

NUMBERED = 12  # steps up to which the map is printed as numbers
LABEL = 12  # characters of a word in a head of the table


def lesson_report(lesson: Any, name: str, width: int = 100) -> Group:
    """All sections, for one parameter.

    Args:
        lesson: a `bptt.train.lesson.Lesson`.
        name: the parameter whose table is shown.
        width: of the terminal, in characters.
    """
    full = lesson.ledger.name(name) if "." not in name else name
    short = full.removeprefix("layer0.")
    sections = [
        heading("1", "Forward", f"{lesson.network.describe()}; one set of weights, {_times(lesson.ledger.T)}"),
        forward_table(lesson),
        heading("2", "Backward", f"‖C[k,t]‖, what loss k says to the use of {short} at step t"),
        contributions(lesson, full, short, width),
        heading("3", "Sum", f"step gradients d{short}_t, and what the state carries back to them"),
        step_table(lesson.ledger, full, short, lesson.words),
        checks(lesson, short),
        heading("4", "Update", f"{short} := {short} − α Σ_t d{short}_t, once"),
        update_line(lesson, full, short),
        heading("5", "The five questions", "answered with the numbers above"),
        questions(lesson, full, short),
    ]
    return Group(*sections)


def heading(number_: str, title: str, rest: str) -> RenderableType:
    """A section's title."""
    return Padding(Text.assemble((f"{number_}  {title}", "bold cyan"), (f"  {rest}", "dim")), (1, 0, 0, 0))


def forward_table(lesson: Any) -> Table:
    """Step by step: the word read, the word that should come next, the chance given to it, and the loss."""
    table = _table("step", "reads", "should say", "chance", "loss L_k = −ln chance")
    rows = zip(lesson.words, lesson.targets, lesson.chances, lesson.ledger.losses, strict=True)
    for k, (word, target, chance, loss) in enumerate(rows, 1):
        table.add_row(str(k), word, target, percent(chance), number(loss))
    table.add_row("", "", "", "J =", number(lesson.ledger.loss), style="bold")
    return table


def contributions(lesson: Any, name: str, short: str, width: int) -> RenderableType:
    """The map: with numbers and words where they fit, with numbers alone where those do, else in shades."""
    ledger: Ledger = lesson.ledger
    steps = range(1, ledger.T + 1)
    words, targets = ([_short(word) for word in row] for row in (lesson.words, lesson.targets))
    rows = [[f"L{k} {word}" for k, word in zip(steps, targets, strict=True)], [f"L{k}" for k in steps]]
    columns = [[f"t={t} {word}" for t, word in zip(steps, words, strict=True)], [f"t={t}" for t in steps]]
    table = ledger.map(name)
    widths = [1 + max(len(number(value)) for value in column) for column in table.T]
    for row_labels, column_labels in zip(rows, columns, strict=True):
        heads = [max(cell_len(label), wide) + 1 for label, wide in zip(column_labels, widths, strict=True)]
        edges = max(map(cell_len, [*row_labels, f"d{short}_t"])) + max(len(f"dL_k/d{short}"), 8) + 2
        if ledger.T <= NUMBERED and sum(heads) + edges <= width:
            break
    else:
        title = Text(f"rows: losses k = 1…{ledger.T}, columns: uses t = 1…{ledger.T}", "dim")
        return Group(title, shaded_map(table, width))
    sums = np.array([norm(ledger.loss_gradient(name, k)) for k in steps])
    total = norm(ledger.gradient(name))
    return Group(
        numbered_map(
            table,
            row_labels,
            column_labels,
            sums,
            ledger.norms(name),
            total,
            f"dL_k/d{short}",
            f"d{short}_t",
        ),
        Text("Rows and columns add up as matrices: the norms at the edges are not sums of norms.", "dim"),
        Text("· is exactly 0: a use cannot be reached by a loss that stands before it.", "dim"),
    )


def _times(uses: int) -> str:
    return "used once" if uses == 1 else f"used {uses} times"


def _short(word: str) -> str:
    return word if cell_len(word) <= LABEL else set_cell_size(word, LABEL - 1) + "…"


def step_table(ledger: Ledger, name: str, short: str, words: list[str]) -> Table:
    """Norm and share of every step gradient, beside what the state carries."""
    table = _table("step", "", f"‖d{short}_t‖", "share of the total", "", "‖∂J/∂s_t‖", "gain to t−1")
    norms, shares = ledger.norms(name), ledger.shares(name)
    carried, gains = ledger.state_norms(0)[1:], ledger.gains(0)
    for t, word in enumerate(words):
        parts = [number(norms[t]), percent(shares[t]), bar(abs(shares[t])), number(carried[t]), number(gains[t])]
        table.add_row(str(t + 1), word, *parts)
    table.add_row("", "sum", number(norm(ledger.gradient(name))), percent(float(shares.sum())), style="bold")
    return table


def checks(lesson: Any, short: str) -> Text:
    """Two independent looks at the numbers."""
    ledger = lesson.ledger
    return Text.assemble(
        ("\nchecked  ", "green"),
        f"Σ_t d{short}_t against the engine's gradient: off by {error(ledger.residual)}; ",
        f"the gradient against a complex step through the forward pass alone: off by {error(lesson.check)} (relative)",
    )


def update_line(lesson: Any, name: str, short: str) -> RenderableType:
    """What the update did, and which use moved the weights."""
    ledger: Ledger = lesson.ledger
    scale = lesson.learning_rate * lesson.clipped
    clip = f"   clipped to {percent(lesson.clipped)} of the gradient" if lesson.clipped < 1 else ""
    lines = [
        f"α = {number(lesson.learning_rate)}{clip}   ‖Δ{short}‖ = {number(scale * norm(ledger.gradient(name)))}   "
        f"loss {ledger.loss:.4f} → {lesson.after:.4f}"
    ]
    if name in lesson.attribution and ledger.T <= NUMBERED:
        shares = lesson.attribution[name].shares
        lines.append("moved by  " + "   ".join(f"use {t} {percent(share)}" for t, share in enumerate(shares, 1)))
    return Text("\n".join(lines))


def questions(lesson: Any, name: str, short: str) -> Table:
    """The forum's five questions, with this sentence's numbers."""
    table = Table(show_header=False, show_lines=True, box=None, padding=(0, 2, 1, 0))
    table.add_column(style="bold", ratio=2)
    table.add_column(ratio=3)
    for question, answer in answers(lesson, name, short):
        table.add_row(question, answer)
    return table


def answers(lesson: Any, name: str, short: str) -> Iterator[tuple[str, str]]:
    """Question and answer, five times."""
    ledger: Ledger = lesson.ledger
    moved = lesson.learning_rate * lesson.clipped * norm(ledger.gradient(name))
    T, norms, carried = ledger.T, ledger.norms(name), ledger.state_norms(0)
    row = ", ".join(number(value) for value in ledger.map(name)[-1])
    column = ", ".join(number(value) for value in ledger.map(name)[:, 0])
    yield (
        "The weights are the same at each step. How can the gradient vanish only for the early ones?",
        f"The weights are shared, their uses are not. Use 1 gets ‖d{short}_1‖ = {number(norms[0])}, use {T} gets "
        f"{number(norms[-1])}: each has its own input, its own error, its own distance to each loss.",
    )
    yield (
        "Do we add or multiply over the steps?",
        f"Both. Along one path Jacobians are multiplied: the last loss reaches the uses with {row}. Over paths we add.",
    )
    yield (
        "What does dL/dw look like?",
        f"A row of the table: dL_{T}/d{short} is the sum of C[{T},1]…C[{T},{T}]. A column, d{short}_1, is the sum over "
        f"losses ({column}). ∂J/∂s_1 ({number(carried[1])}) is a third thing: what the state carries back.",
    )
    yield (
        f"How are dw1…dw{T} applied?",
        f"Summed, then one update: the sum has norm {number(norm(ledger.gradient(name)))}, the update "
        f"{number(moved)}, and the loss went from {ledger.loss:.4f} to {lesson.after:.4f}.",
    )
    yield (
        "Does anybody write this by hand?",
        "A framework does it under the covers and hands out the sum. The terms are what you see above.",
    )


def term_table(factors: list[Any]) -> Table:
    """The factors of one contribution in the order of the chain rule."""
    table = _table("factor", "norm", "shape", "what it is")
    for factor in factors[:-1]:
        shape = " × ".join(map(str, factor.value.shape))
        table.add_row(factor.symbol, number(factor.norm), shape, factor.meaning)
    last = factors[-1]
    shape = " × ".join(map(str, last.value.shape))
    table.add_row(last.symbol, number(last.norm), shape, last.meaning, style="bold")
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        words = head in ("", "reads", "should say", "factor", "what it is", "shape", "parameter")
        table.add_column(head, justify="left" if words else "right", overflow="fold")
    return table

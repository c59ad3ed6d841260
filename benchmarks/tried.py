"""What was tried where our step is not the fastest: docs/benchmarks.md has it beside the row, as long as that is so.

Key: the row's title, as in "LSTM 1000, 1, 64, 256", or a target's words, or the beginning of either.
Value: a sentence or two.
"""

TRIED: dict[str, str] = {}


def tried(title: str) -> str:
    """Every note that fits a row or a target."""
    return " ".join(note for beginning, note in TRIED.items() if title.startswith(beginning))

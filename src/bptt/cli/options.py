"""Kinds of option that more than one command has. Imports nothing heavy: it is read before a command runs."""

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter


def whole(kind: Any, tokens: Sequence[Any]) -> int:
    """A whole number as it was typed; 2.5 is refused and not rounded."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"got {text!r}, expected a whole number") from None


Whole = Annotated[int, Parameter(converter=whole)]
MaybeWhole = Annotated[int | None, Parameter(converter=whole)]

"""Numbers as people read them. Nothing here ever says "nan"."""

import math
from typing import Any

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
NOTHING = "–"  # where there is no number


def finite(value: Any) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """A number with so many significant digits.

    >>> number(1e-5), number(0.25), number(-1.5e-9), number(12345), number(0.0), number(float("-inf")), number(None)
    ('10⁻⁵', '0.25', '−1.5×10⁻⁹', '12,345', '0', '−∞', '–')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int):
        value = float(value)
        if math.isnan(value):
            return NOTHING
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
    if isinstance(value, int) and abs(value) < 10_000_000:
        return f"{value:,}".replace("-", "−")
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if -4 < int(exponent) < 6:
        return _short(f"{value:,.{max(0, digits - 1 - int(exponent))}f}")
    shown = _short(mantissa)
    return (
        f"{shown.removesuffix('1')}{power(int(exponent))}"
        if shown in ("1", "−1")
        else f"{shown}×{power(int(exponent))}"
    )


def _short(shown: str) -> str:
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return shown.replace("-", "−")


def power(exponent: int) -> str:
    """A power of ten.

    >>> power(-12)
    '10⁻¹²'
    """
    return "10" + str(exponent).translate(_RAISED)


def percent(share: Any, digits: int = 1) -> str:
    """A signed share in percent.

    >>> percent(0.125), percent(-0.03), percent(None)
    ('12.5 %', '−3.0 %', '–')
    """
    if share is None or not math.isfinite(share):
        return number(share)
    return f"{share * 100:,.{digits}f} %".replace("-", "−") if abs(share) < 1e4 else f"{number(share * 100)} %"


def steps(n: Any) -> str:
    """So many steps.

    >>> steps(1), steps(1200)
    ('1 step', '1,200 steps')
    """
    return "1 step" if n == 1 else f"{number(n)} steps"


def count(n: Any, word: str, several: str = "") -> str:
    """So many of something.

    >>> count(1, "loss", "losses"), count(12, "sequence")
    ('1 loss', '12 sequences')
    """
    return f"{number(n)} {word}" if n == 1 else f"{number(n)} {several or word + 's'}"


def between(low: Any, high: Any) -> str:
    """An interval.

    >>> between(3, 8), between(3, 3)
    ('3 to 8', '3')
    """
    return number(low) if low == high else f"{number(low)} to {number(high)}"

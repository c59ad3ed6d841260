"""How to walk back through time. A plan is an argument, and the ledger records which one ran.

Full()            every loss reaches every step
Chunked(K)        ordinary truncated BPTT: state carried forward, gradient cut every K steps (Williams & Peng 1990)
Windowed(K)       every loss goes back exactly K steps, its own included: contributions with lag k − t < K
Checkpointed(n)   the numbers of Full, in the memory of √T steps: tapes are recomputed between every n-th state
                  (Gruslys et al. 2016, arXiv 1606.03401, with checkpoints of the state); n = √T by default
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from bptt.errors import InputError, unknown


@dataclass(frozen=True)
class Full:
    """Every loss reaches every step."""


@dataclass(frozen=True)
class Chunked:
    """The gradient is cut at every K-th step; losses of one chunk do not reach the chunk before it."""

    K: int

    def __post_init__(self):
        _at_least_one(self.K, "Chunked(K)")


@dataclass(frozen=True)
class Windowed:
    """Each loss reaches its own step and the K − 1 before it (in a backward direction: after it)."""

    K: int

    def __post_init__(self):
        _at_least_one(self.K, "Windowed(K)")


@dataclass(frozen=True)
class Checkpointed:
    """Full, with the tapes of n steps in memory at once; None for n = ⌈√T⌉."""

    n: int | None = None

    def __post_init__(self):
        if self.n is not None:
            _at_least_one(self.n, "Checkpointed(n)")

    def steps(self, T: int) -> int:
        """The n that a sequence of T steps is walked with."""
        return min(T, self.n or math.isqrt(max(T - 1, 0)) + 1)


Plan = Full | Chunked | Windowed | Checkpointed
NAMES = {"full": Full, "chunked": Chunked, "windowed": Windowed, "checkpointed": Checkpointed}


def parse_plan(text: str) -> Plan:
    """A plan from its name: "full", "chunked:20", "windowed:20", "checkpointed", "checkpointed:10".

    Raises:
        UnknownName: no such plan.
        InputError: K is missing or not a whole number of at least 1.

    >>> parse_plan("chunked:20")
    Chunked(K=20)
    """
    name, _, size = text.lower().partition(":")
    if name not in NAMES:
        raise unknown("plan", text, NAMES)
    if name == "full" and not size:
        return Full()
    if name == "checkpointed" and not size:
        return Checkpointed()
    if name == "full" or not re.fullmatch(r"\d+", size):
        raise InputError("plan", got=repr(text), expected="for example full, chunked:20 or windowed:20")
    return NAMES[name](int(size))


def as_plan(plan: "Plan | str | None") -> Plan:
    """A plan, its name, or None for Full().

    Raises:
        InputError: anything else.  UnknownName: no plan of that name.

    >>> as_plan("windowed:3")
    Windowed(K=3)
    """
    if plan is None:
        return Full()
    if isinstance(plan, str):
        return parse_plan(plan)
    if not isinstance(plan, Plan):
        raise InputError("plan", got=repr(plan), expected="Full(), Chunked(K), Windowed(K), Checkpointed(n) or a name")
    return plan


def _at_least_one(K: object, what: str) -> None:
    if isinstance(K, bool) or not isinstance(K, int | np.integer) or K < 1:
        raise InputError(what, got=K, expected="a whole number of steps, at least 1")


__all__ = ["Checkpointed", "Chunked", "Full", "Plan", "Windowed", "parse_plan"]

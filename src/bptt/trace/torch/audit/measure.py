"""The tables: every use moved by ±ε, one at a time, beside what came back to it."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bptt.errors import InputError
from bptt.trace.torch.audit.classify import CUT, RELATIVE, WRONG, Table, place, states
from bptt.trace.torch.audit.runs import Program, Run
from bptt.typing import Array

# Relative to a parameter's own size. A central difference errs by ε² times the third derivative (1e-8) and by the
# rounding of the losses over ε (1e-12); a kink within reach of the first is not within reach of the second.
STEP, SMALLER, LARGER = 1e-4, 1e-6, 1e-2
TINY = 1e-15  # moves weights by some bits and losses by their rounding


class Measured(NamedTuple):
    """Tables by parameter or input, numbers of the uses that are their columns, and the run that was listened to.

    bent: whether something that would be held to be wrong stands exactly at a kink, where both sides may be right.
    """

    tables: dict[str, Table]
    uses: dict[str, list[int]]
    base: Run
    T: int
    bent: bool = False


def measure(program: Program, T: int, base: Run, names: dict[str, list[int]], inputs: list[str], tick: Any) -> Measured:
    """Move every use.

    Args:
        T: number of steps.  base: a run that was listened to.  names: parameter → numbers of its uses.  inputs: what
        the moved inputs are called.  tick: called before each of them.
    """
    still, noise = base.losses, _noise(program, base)
    tables: dict[str, Table] = {}
    uses: dict[str, list[int]] = {}
    bent: list[bool] = []
    for name, places in names.items():
        claims = [base.claims.get((i, name), {}) for i in places]
        columns = [_mover(program, base, (i, name)) for i in places]
        tables[name], uses[name] = _table(columns, claims, still, noise, T, tick, bent), places
    for n, name in enumerate(inputs):
        steps = range(program.inputs[n].T)
        columns = [_mover(program, base, None, (n, t)) for t in steps]
        claims = [base.of_inputs.get((n, t), {}) for t in steps]
        tables[name], uses[name] = _table(columns, claims, still, noise, T, tick, bent), []
    return Measured(tables, uses, base, T, any(bent))


def _mover(program: Program, base: Run, use: Any = None, given: Any = None) -> Callable[[float], Array]:
    """The losses when one use, or one step of an input, is moved by ε."""

    def moved(step: float) -> Array:
        run = program.run(
            base.sites, None if use is None else (*use, step), None if given is None else (*given, step)
        )  # fmt: skip
        if run.losses.shape != base.losses.shape:
            got = f"{len(run.losses)} losses after a weight was moved by {step:.0e}, and {len(base.losses)} before"
            raise InputError("audit", got=got, expected="the same number of losses in every run")
        return run.losses

    return moved


def _table(
    columns: list[Any], claims: list[dict[int, float]], still: Array, noise: Array, T: int, tick: Any, bent: list[bool]
) -> Table:
    K, n = len(still), len(columns)
    A = np.array([[claims[t].get(k, 0.0) for t in range(n)] for k in range(K)]).reshape(K, n)
    F, level, changed = np.zeros((K, n)), np.zeros((K, n)), np.zeros((K, n), bool)
    for t, mover in enumerate(columns):
        tick()
        F[:, t], level[:, t], changed[:, t] = _difference(mover, STEP, noise, still)
        if _look_again(mover, (noise, still), t, F, A, level, changed):
            bent.append(_bends(mover, noise, still))
    rows, steps = place(F, changed, T) if n > 1 else (np.arange(1, K + 1), np.ones(n, int))
    return Table(F, A, level, changed, rows, steps)


def _difference(mover: Callable[[float], Array], step: float, noise: Array, still: Array) -> tuple[Array, Array, Array]:
    """Central difference, noise, and whether a bit changed either way."""
    up, down = mover(step), mover(-step)
    return (up - down) / (2 * step), noise / step, (up != still) & (down != still)


def _look_again(
    mover: Any, losses: tuple[Array, Array], t: int, F: Array, A: Array, level: Array, changed: Array
) -> bool:
    """Before anything is held to be wrong: a step too small for a kink, and one large enough for rough numbers.

    Returns whether something still is.
    """
    for step, loose in ((SMALLER, RELATIVE), (LARGER, 30 * RELATIVE)):
        column = Table(F[:, t : t + 1], A[:, t : t + 1], level[:, t : t + 1], changed[:, t : t + 1], *_ONE)
        bad = np.isin(states(column)[:, 0], (CUT, WRONG))
        if not bad.any() or (step == LARGER and not (A[bad, t] != 0).any()):
            return bool(bad.any())
        again, rough, moved = _difference(mover, step, *losses)
        apart = np.abs(again - A[:, t])
        fits = bad & (apart <= loose * np.maximum(np.abs(again), np.abs(A[:, t])) + rough)
        fits &= np.abs(F[:, t] - A[:, t]) > 2 * rough  # what was wrong would have been seen
        fits &= ~((A[:, t] == 0) & moved)
        F[fits, t], level[fits, t], changed[fits, t] = again[fits], rough[fits], moved[fits]
    return True


def _bends(mover: Callable[[float], Array], noise: Array, still: Array) -> bool:
    """Whether the slopes to both sides differ however small the step: a relu at exactly 0."""
    right, left = mover(SMALLER) - still, still - mover(-SMALLER)
    size = np.maximum(np.abs(right), np.abs(left))
    return bool((np.abs(right - left) > 0.01 * size + 4 * noise).any())


_ONE: Any = (np.ones(1, int), np.ones(1, int))


def far_influence(program: Program, measured: Measured) -> bool:
    """Whether a use changes the loss of any other step when it is moved by more than its own size.

    Where small steps change nothing, units may be dead that a large step wakes; a state that begins anew stays so.
    """
    base = measured.base
    for name, places in measured.uses.items():
        table = measured.tables[name]
        if len(places) < 2:
            continue
        for i, step in product(range(min(len(places), 3)), (3.0, -3.0, 30.0, -30.0)):
            moved = program.run(base.sites, (places[i], name, step)).losses
            if (moved != base.losses)[table.rows != table.columns[i]].any():
                return True
    return False


def _noise(program: Program, base: Run) -> Array:
    """(K,) how far losses move by rounding alone: all weights are moved by a few bits."""
    moved = [program.run(base.sites, (None, None, sign * TINY)).losses for sign in (1, -1, 2)]
    return 4 * np.max([np.abs(losses - base.losses) for losses in moved], axis=0) + 8e-16 * np.abs(base.losses)


def counts(run: Run) -> Iterator[tuple[str, list[int]]]:
    """Parameter → numbers of its uses."""
    names = dict.fromkeys(name for site in run.sites for name in site.ways)
    for name in names:
        yield name, [i for i, site in enumerate(run.sites) if name in site.ways]

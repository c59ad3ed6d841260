"""What two tables say: D by finite differences (what the values do) against D by autodiff (what the gradient claims).

Rows are losses k, columns are uses t in the order of the calls. Pure NumPy: it knows no model.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bptt.typing import Array

NONE, RIGHT, CUT, WRONG = 0, 1, 2, 3
RELATIVE = 1e-4  # central differences are better than 1e-7 away from kinks; what is wrong is wrong by a factor


class Table(NamedTuple):
    """K losses by n uses of one parameter.

    values, claims: (K, n) by finite differences, by autodiff.  noise: (K, n) below which a difference says nothing.
    changed: (K, n) whether moving the use changed the loss by so much as a bit.  columns, rows: (n,) and (K,) steps of
    uses and losses from 1, None where uses have no steps among the losses.
    """

    values: Array
    claims: Array
    noise: Array
    changed: Array
    rows: Array
    columns: Array

    @property
    def tolerance(self) -> Array:
        """(K, n) how far apart two equal numbers may be."""
        largest = np.abs(self.values).max(1, keepdims=True, initial=0.0)
        size = np.maximum(np.abs(self.values), np.abs(self.claims))
        return RELATIVE * size + self.noise + 1e-10 * largest


class Pattern(NamedTuple):
    """What a table shows: a code, the border as (loss k, use t) from 1, and numbers for it."""

    code: str
    border: tuple[int, int]
    evidence: dict[str, float]


def states(table: Table) -> Array:
    """(K, n) NONE (nothing reaches), RIGHT, CUT (values reach, the gradient is 0), or WRONG."""
    F, A = table.values, table.claims
    apart = np.abs(A - F) > table.tolerance
    zero = np.abs(A) <= 1e-9 * np.abs(F)
    out = np.where(A != 0, RIGHT, NONE)
    out[apart] = WRONG
    out[zero & (apart | ((A == 0) & table.changed))] = CUT
    return out


def place(values: Array, changed: Array, T: int) -> tuple[Array, Array]:
    """Steps of losses (K,) and of uses (n,), from 1, told from where values reach: both are in order, or in reverse.

    Args:
        values, changed: as in `Table`.  T: number of steps; uses come once or several times in each.
    """
    K, n = values.shape
    reach = (values != 0) & changed
    orders = [np.arange(n) * T // n + 1, np.arange(n) % T + 1] if n % T == 0 else [np.arange(1, n + 1)]
    if n % T and K == T:
        orders.insert(0, np.where(reach.any(0), reach.argmax(0) + 1, 1))
    if K == T:  # the order in which most uses first reach the loss of their own step
        first, seen = reach.argmax(0) + 1, reach.any(0)
        orders.sort(key=lambda order: int((first != order)[seen].sum()))
    for columns in [*orders, *(order.max() + 1 - order for order in orders)]:
        forward = _ends(reach, columns)
        if (np.diff(forward) >= 0).all() and _causal(reach, columns):
            return (np.arange(1, K + 1) if K == T else forward), columns
    return (np.arange(1, K + 1) if K == T else np.arange(1, K + 1) * T // K), orders[0]


def _ends(reach: Array, columns: Array) -> Array:
    """The last step of a use that reaches each loss; of the loss before where none does."""
    return np.maximum.accumulate(np.where(reach, columns[None], 0).max(1)) if reach.any() else np.ones(len(reach), int)


def _causal(reach: Array, columns: Array) -> bool:
    """Whether later uses begin to reach at later losses."""
    if len(reach) == 1:
        return True
    first = [
        reach[:, columns == step].any(1).argmax() for step in np.unique(columns) if reach[:, columns == step].any()
    ]
    return len(first) > 1 and bool((np.diff(first) >= 0).all() and first[-1] > first[0])


def lags(table: Table) -> Array:
    """(K, n) steps between a loss and a use."""
    return np.abs(table.rows[:, None] - table.columns[None])


def reach(table: Table) -> tuple[int, int]:
    """Largest lag with a right gradient, and with any influence of values."""
    state, lag = states(table), lags(table)
    influence = (state == RIGHT) | (state == CUT) | ((table.values != 0) & table.changed)
    return int(lag[state == RIGHT].max(initial=0)), int(lag[influence].max(initial=0))


def patterns(table: Table) -> list[Pattern]:
    """Everything that is not right about a table."""
    state = states(table)
    found = [_wrong(table, state)] if (state == WRONG).any() else []
    if any(pattern.code in ("BPA301", "BPA302") for pattern in found):
        return found  # what is missing here stands elsewhere
    return found + ([_cut(table, state)] if (state == CUT).any() else [])


# ---- cut -------------------------------------------------------------------------------------------------------------


def _cut(table: Table, state: Array) -> Pattern:
    """Which shape the zeros have."""
    cut, lag = state == CUT, lags(table)
    live = cut | (state == RIGHT) | (state == WRONG)
    evidence: dict[str, float] = {"cut": int(cut.sum()), "reached": int(live.sum())}
    whole = (cut == live).all(0) & cut.any(0)
    if (cut == live).all():
        return Pattern("BPA105", _nearest(cut, lag), evidence)
    spread = live.sum(0) > 1 if len(cut) > 1 else np.zeros(cut.shape[1], bool)
    if len(cut) == 1:
        return _cut_for_one(cut, live, lag, evidence)
    if (whole & spread).any() and not (cut & ~whole[None]).any():
        return Pattern("BPA106", _nearest(cut, lag), evidence)
    shortest = int(lag[cut].min())
    borders = _borders(table, cut, live)
    inner = int(table.columns.max() - table.columns.min())
    explained = _explained(table, borders)
    if shortest == 1 and (cut == live)[lag >= 1].all():
        return Pattern("BPA101", _nearest(cut, lag), evidence)
    if borders and not (cut & ~explained).any():
        if len(borders) == 1:
            return Pattern("BPA104", _at(table, cut, borders[0]), evidence | {"step": borders[0]})
        evidence["every"] = int(np.diff(borders).min())
        return Pattern("BPA102", _at(table, cut, borders[0]), evidence | {"borders": len(borders)})
    band = (cut == live)[lag >= shortest].all() and inner > shortest and (live & (lag >= shortest)).sum() > 1
    if band:
        return Pattern("BPA103", _nearest(cut, lag), evidence | {"steps": shortest})
    return Pattern("BPA109", _nearest(cut, lag), evidence)


def _cut_for_one(cut: Array, live: Array, lag: Array, evidence: dict[str, float]) -> Pattern:
    """One loss: only the last border shows."""
    columns = np.flatnonzero(cut.any(0))
    kept = np.flatnonzero((live & ~cut).any(0))
    if len(kept) and columns.max() < kept.min():
        at = int(columns.max())
        k = int(np.flatnonzero(cut[:, at])[0]) + 1
        code = "BPA101" if len(kept) == 1 and len(columns) > 1 else "BPA104"
        return Pattern(code, (k, at + 1), evidence | {"step": at + 2})
    return Pattern("BPA106", _nearest(cut, lag), evidence)


def _borders(table: Table, cut: Array, live: Array) -> list[int]:
    """Steps s such that nothing goes from losses at s or later to uses before s, though values do."""
    found = []
    for s in range(2, int(table.rows.max()) + 1):
        across = _across(table, s)
        if (cut & across).any() and (cut == live)[across].all():
            near = across & (np.abs(table.rows[:, None] - table.columns[None]) == lags(table)[across].min())
            if (cut & near).any() or not (live & near).any():
                found.append(s)
    return found


def _across(table: Table, s: int) -> Array:
    """Pairs on both sides of the border before step s."""
    k, t = table.rows[:, None], table.columns[None]
    return ((k >= s) & (t < s)) | ((k < s) & (t >= s))


def _explained(table: Table, borders: list[int]) -> Array:
    out = np.zeros(table.values.shape, bool)
    for s in borders:
        out |= _across(table, s)
    return out


def _at(table: Table, cut: Array, s: int) -> tuple[int, int]:
    """The pair next to the border before step s."""
    where = cut & _across(table, s)
    return _nearest(where, lags(table))


def _nearest(where: Array, lag: Array) -> tuple[int, int]:
    """The pair (k, t) of the shortest lag, the first of them."""
    k, t = np.unravel_index(np.where(where, lag, lag.max() + 1).argmin(), where.shape)
    return int(k) + 1, int(t) + 1


# ---- wrong -----------------------------------------------------------------------------------------------------------


def _wrong(table: Table, state: Array) -> Pattern:
    """Which shape the wrong numbers have."""
    F, A, wrong, lag = table.values, table.claims, state == WRONG, lags(table)
    evidence = {
        "wrong": int(wrong.sum()),
        "error": float(np.linalg.norm((A - F)[wrong]) / max(np.linalg.norm(F), 1e-300)),
    }
    border = _nearest(wrong, lag)
    order = _permutation(table)
    if order is not None:
        shift = {int(a - b) for a, b in enumerate(order) if b >= 0}
        code = "BPA302" if len(shift) == 1 else "BPA301"
        return Pattern(code, border, evidence | ({"shift": shift.pop()} if code == "BPA302" else {}))
    impossible = wrong & ~table.changed & (F == 0)
    if impossible.any():
        first_only = impossible[:, 0].any() and not impossible[:, 1:].any()
        if first_only and (wrong & (lag == lag.min())).any():
            return Pattern("BPA302", border, evidence)
        return Pattern("BPA301", _nearest(impossible, lag), evidence | {"impossible": int(impossible.sum())})
    return _counted(table, wrong, border, evidence)


def _counted(table: Table, wrong: Array, border: tuple[int, int], evidence: dict[str, float]) -> Pattern:
    """Whether what is wrong is the right thing more than once."""
    F, A = table.values, table.claims
    ratio = np.divide(A, F, out=np.full_like(F, np.nan), where=F != 0)[wrong]
    loose = 1e-3 + np.abs(table.noise / np.where(F == 0, 1, F))[wrong]
    whole = (np.abs(ratio - np.round(ratio)) <= loose) & (np.round(ratio) >= 2)
    if whole.all():
        return Pattern("BPA201", border, evidence | {"times": float(np.round(ratio).max())})
    scale = ratio[0]
    if len(ratio) > 1 and (np.abs(ratio - scale) <= loose * max(1, abs(scale))).all():
        return Pattern("BPA402", border, evidence | {"factor": float(scale)})
    return Pattern("BPA401", border, evidence)


def _permutation(table: Table) -> list[int] | None:
    """For each column of claims the column of values that it equals (−1: zeros), if they are exchanged; else None."""
    F, A, tolerance = table.values, table.claims, table.tolerance
    order: list[int] = []
    for t in range(A.shape[1]):
        if (np.abs(A[:, t]) <= tolerance[:, t]).all() and (A[:, t] == 0).all():
            order.append(-1)
            continue
        fits = [s for s in _by_distance(A.shape[1], t) if _same(A[:, t], F[:, s], table.noise[:, s])]
        if not fits:
            return None
        order.append(fits[0])
    moved = [s for s in order if s >= 0]
    if len(moved) < 2 or len(set(moved)) < len(moved) or all(s in (t, -1) for t, s in enumerate(order)):
        return None
    return order


def _same(a: Array, b: Array, noise: Array) -> bool:
    size = max(np.abs(a).max(), np.abs(b).max())
    return bool(size > 0 and (np.abs(a - b) <= RELATIVE * size * 0.1 + noise).all() and size > 100 * noise.max())


def _by_distance(n: int, t: int) -> Iterator[int]:
    return iter(sorted(range(n), key=lambda s: abs(s - t)))

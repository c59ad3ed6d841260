"""From tables to findings: what each table shows, in which line it begins, and what several tables show together."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from bptt.trace.torch.audit.classify import CUT, Pattern, Table, lags, patterns, states
from bptt.trace.torch.audit.findings import Finding, find
from bptt.trace.torch.audit.measure import Measured
from bptt.trace.torch.audit.probe import FRESH, FROZEN, Event
from bptt.trace.torch.audit.recipe import Recipe

EVERYWHERE = ("BPA101", "BPA102", "BPA103", "BPA105", "BPA106", "BPA109")
WORSE = ("no_grad", "detach()", "detach_()", ".data", "numpy()", "tolist()")


def findings(measured: Measured, far: Callable[[], bool]) -> list[Finding]:
    """All of them, those of several parameters as one; `far` tells whether large moves reach other steps."""
    shown: list[tuple[str, Pattern]] = []
    several = {name: table for name, table in measured.tables.items() if table.values.shape[1] > 1}
    for name, table in several.items():
        shown += [(name, pattern) for pattern in patterns(table)]
    if not shown:
        single = {name: table for name, table in measured.tables.items() if name not in several}
        shown = [(name, pattern) for name, table in single.items() for pattern in patterns(table)]
    if _frozen(measured, shown):
        shown = []
    recipe = measured.base.recipe
    if recipe is not None:
        shown = [(name, _by_hand(pattern, measured.tables[name], recipe)) for name, pattern in shown]
    found = _merged(measured, shown)
    if not found and _stays(measured, several) and not far():
        found = [_reset(measured, several)]
    return sorted(found + ([] if recipe is None else _of_recipe(recipe)), key=lambda one: one.code)


def _frozen(measured: Measured, shown: list[tuple[str, Pattern]]) -> bool:
    """Whether all that is missing is a gradient of inputs through a part that the program itself has taken out."""
    data = all(not measured.uses[name] for name, _pattern in shown)
    right = not any(patterns(table) for name, table in measured.tables.items() if measured.uses[name])
    return data and right and any(event.what in (*WORSE, FROZEN) for event in measured.base.events)


def _by_hand(pattern: Pattern, table: Table, recipe: Recipe) -> Pattern:
    """Too much of it, in a step that hands gradients on by hand, is what the losses before have left."""
    first_right = pattern.border[0] > 1
    if pattern.code in ("BPA401", "BPA402", "BPA201") and recipe.by_hand and first_right and not recipe.again:
        return pattern._replace(code="BPA202")
    return pattern


def _merged(measured: Measured, shown: list[tuple[str, Pattern]]) -> list[Finding]:
    """One finding for each code; its border and line are those of the parameter with the shortest lag."""
    found = []
    for code in dict.fromkeys(pattern.code for _name, pattern in shown):
        rows = [(name, pattern) for name, pattern in shown if pattern.code == code]
        rows.sort(key=lambda row: (not measured.uses[row[0]], _lag(row[1], measured.tables[row[0]])))
        name, pattern = rows[0]
        evidence = dict(pattern.evidence)
        if code == "BPA103":
            evidence["reach"] = evidence["steps"] - 1
        use, event = _where(measured, name, pattern)
        cause, at = (None, None) if event is None else (event.what, event.line)
        recipe = measured.base.recipe
        if recipe is not None and code == "BPA202":
            cause, at = "a gradient given by hand", Counter(recipe.by_hand).most_common(1)[0][0]
        if recipe is not None and code == "BPA201" and recipe.again:
            cause, at = "the same loss sent back again", recipe.again[0][2]
        found.append(
            find(code, [row[0] for row in rows], pattern.border, evidence, use=use, cause=cause, cause_line=at)
        )
    return found


def _lag(pattern: Pattern, table: Table) -> int:
    k, t = pattern.border
    return int(lags(table)[k - 1, t - 1])


def _where(measured: Measured, name: str, pattern: Pattern) -> tuple[str | None, Event | None]:
    """The line of the use at the border, and what was seen between it and the next."""
    uses, base = measured.uses[name], measured.base
    if not uses:
        own = [event for event in base.events if event.what.endswith(".backward")]
        return None, _worst(
            own if pattern.code[3] in "34" else [e for e in base.events if e.what not in (FRESH, FROZEN)]
        )
    t = pattern.border[1] - 1
    use = base.sites[uses[t]].line
    borders = [t]
    if pattern.code in EVERYWHERE:
        borders = sorted(set(np.nonzero(states(measured.tables[name]) == CUT)[1].tolist()))
    if pattern.code in ("BPA102", "BPA103"):
        borders = [t]
    of_use = pattern.code in ("BPA105", "BPA106")
    seen: list[Event] = []
    for t in borders:
        low, high = uses[t], uses[t + 1] if t + 1 < len(uses) else base.seen + 1
        if of_use:
            low, high = uses[t - 1] + 1 if t else 0, uses[t]
        elif pattern.code[3] == "1":
            low += 1
        seen += [
            e
            for e in base.events
            if low <= e.at <= high and e.what not in (FRESH, FROZEN) and (not e.of or name in e.of)
        ]
    own = [
        event
        for event in seen
        if (event.of and of_use) or (event.what.endswith(".backward") and pattern.code[3] in "234")
    ]
    return use, _worst(own or [event for event in seen if not event.of])


def _worst(events: list[Event]) -> Event | None:
    """The most frequent of those that cut; of one's own functions only where there is no other."""
    for kinds in (WORSE, None):
        some = [(e.what, e.line) for e in events if kinds is None or e.what in kinds]
        if some:
            return Event(0, *Counter(some).most_common(1)[0][0])
    return None


def _stays(measured: Measured, several: dict[str, Table]) -> bool:
    """Whether uses and inputs reach their own step, and no other."""
    tables = _over_steps(several)
    reaches = [((table.values != 0) & table.changed) | (table.claims != 0) for table in tables.values()]
    own = any(reach.any() for reach in reaches)
    pairs = zip(reaches, tables.values(), strict=True)
    return measured.T > 1 and own and not any((reach & (lags(table) > 0)).any() for reach, table in pairs)


def _over_steps(several: dict[str, Table]) -> dict[str, Table]:
    return {name: table for name, table in several.items() if len(set(table.columns.tolist())) > 1}


def _reset(measured: Measured, several: dict[str, Table]) -> Finding:
    """The finding, with the line where the state begins anew."""
    tables = _over_steps(several)
    events = [event for event in measured.base.events if event.what == FRESH]
    event = _worst(events) if len(events) > 1 else None
    cause, at = (None, None) if event is None else ("a fresh state", event.line)
    K, n = next(iter(tables.values())).values.shape
    uses = next((measured.uses[name] for name in tables if measured.uses[name]), [])
    use = measured.base.sites[uses[0]].line if uses else None
    return find("BPA107", tables, (2, 1) if K > 1 else (1, n - 1), {}, use=use, cause=cause, cause_line=at)


def _of_recipe(recipe: Recipe) -> list[Finding]:
    """What a step of the user's own shows without any table."""
    found = []
    held = [(j, k, at) for j, k, at in recipe.again if j != k]
    if held:
        j, k, at = held[0]
        evidence: dict[str, float] = {"first": j + 1, "again": k + 1, "times": len(held)}
        found.append(find("BPA203", (), (k + 1, j + 1), evidence, cause="backward()", cause_line=at))
    if recipe.stale:
        at = next(iter(recipe.stale.values()))
        found.append(find("BPA204", recipe.stale, None, {}, cause="optimizer.step()", cause_line=at))
    return found

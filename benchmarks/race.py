"""Contenders on one problem: held against each other first, then timed in rounds that alternate between them."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from benchmarks.children import Child, ChildError, cores
from benchmarks.neighbours import Watch, wait_until_still
from benchmarks.problem import Shape

AGREE = 1e-3  # relative; float32 over 1000 steps, in another order of sums
ENOUGH = 3  # rounds that a slow contender gets
TOO_MUCH = 5  # times its share of the time, after which it does not even get those


class Pace(NamedTuple):
    """rounds: how often each contender is timed.  share: seconds after which a slow one has been seen enough."""

    rounds: int
    share: float = 4.0


Runner = tuple[str, Child, str]  # its label, its process, and the key of the problem there
Results = dict[str, dict[str, Any]]
Note = Callable[[str], None]


def silent(what: str) -> None:
    """Nobody is told."""


@contextmanager
def started(names: Iterable[str], threads: int) -> Iterator[dict[str, Child]]:
    """A process per contender, all loaded; they load side by side, and nothing is timed before they are still."""
    with ExitStack() as stack:
        children = {}
        for name in names:
            children[name] = Child(name, threads)
            stack.callback(children[name].close)
        for wait in (False, True):
            for child in children.values():
                with suppress(ChildError):  # it fails again when it is told to build, and that is reported
                    child.answer() if wait else child.tell("load")
        yield children


def race(children: dict[str, Child], kind: str, shape: Shape, pace: Pace, note: Note = silent) -> dict[str, Any]:
    """What every contender found, and what others took of the machine meanwhile; `note` is told what is being done.

    results: name → status ("timed", "wrong: …" or "failed: …"), first_s, times in seconds per step, peak_mib, answer.
    """
    key, watch = f"{kind} {shape}", Watch()
    results: Results = {}
    for name, child in children.items():
        note(f"building {name}")
        results[name] = build(child, key, kind, shape)
    judge(results)
    fit = [(name, children[name], key) for name, found in results.items() if found["status"] == "timed"]
    for name, found in alternate(fit, pace, watch, note).items():
        results[name] |= found
    for name, _, _ in fit:
        results[name] |= _memory(children[name])
    return {"cell": kind, "shape": list(shape), "others": watch.share(cores()), "results": results}


def build(child: Child, key: str, kind: str, shape: Shape) -> dict[str, Any]:
    """Let it load, compile and warm up; its first answer."""
    try:
        found = {"status": "timed", **child.ask("build", key=key, kind=kind, shape=list(shape))}
    except ChildError as error:
        found = {"status": f"failed: {error}"}
    wait_until_still(child.process.pid)
    return found


def judge(results: Results) -> None:
    """Who is far from the middle of all in loss or ‖dW_hh‖ is wrong, and is not timed; of two that differ, both."""
    answers = {name: found["answer"] for name, found in results.items() if found.get("answer")}
    if not answers:
        return
    middle = [statistics.median(values) for values in zip(*answers.values(), strict=True)]
    for name, answer in answers.items():
        if not all(math.isclose(a, b, rel_tol=AGREE) for a, b in zip(answer, middle, strict=True)):
            got, all_found = (", ".join(f"{value:.6g}" for value in values) for values in (answer, middle))
            results[name]["status"] = f"wrong: loss and ‖dW_hh‖ {got}, where the middle of all is {all_found}"


def alternate(runners: list[Runner], pace: Pace, watch: Watch, note: Note = silent) -> Results:
    """Rounds in which each runner is timed once; who begins changes from round to round."""
    found: Results = {label: {"times": []} for label, _, _ in runners}
    spent = dict.fromkeys(found, 0.0)
    for turn in range(pace.rounds):
        at = turn % max(1, len(runners))
        for label, child, key in runners[at:] + runners[:at]:
            if "status" in found[label] or spent[label] > pace.share * (1 if turn >= ENOUGH else TOO_MUCH):
                continue
            note(f"round {turn + 1} of {pace.rounds}: {label}")
            start = time.perf_counter()
            try:
                with watch.beside(child.process.pid):
                    found[label]["times"].append(child.ask("go", key=key)["s"])
            except ChildError as error:
                found[label]["status"] = f"failed: {error}"
            wait_until_still(child.process.pid)
            spent[label] += time.perf_counter() - start
    return found


def _memory(child: Child) -> dict[str, Any]:
    try:
        return child.ask("memory")
    except ChildError:
        return {"peak_mib": None}

"""One contender's process: `python -m benchmarks.child NAME THREADS`. It obeys orders, each one line of JSON.

{"do": "build", "key": K, "kind": …, "shape": […]}   → first_s, step_s, repeats, answer; loads and compiles
{"do": "go", "key": K}                               → s, seconds per step
{"do": "memory"}                                     → peak_mib since before the data of the last build
"""

import json
import os
import sys
import time
from contextlib import suppress
from typing import IO, Any

from benchmarks import peak

LONG_ENOUGH = 0.03  # seconds that one measurement takes at least


def main() -> None:
    """Answer until there is nobody to ask."""
    name, threads = sys.argv[1], int(sys.argv[2])
    stay_on(threads)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what frameworks print is no answer
    from benchmarks.contenders import ALL

    child = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            child = child or Child(ALL[name].maker(), threads)
            reply = getattr(child, order.pop("do"))(**order)
        except Exception as error:  # noqa: BLE001 whatever it is, it is this contender's result
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        say(answers, reply)


def say(answers: IO[str], reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")


def stay_on(threads: int) -> None:
    """Leave as many cores as there shall be threads: some pools (XLA's) ask for nothing else."""
    with suppress(AttributeError, OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Child:
    """The problems it works on, by key."""

    def __init__(self, maker: Any, threads: int):
        self.maker, self.threads = maker, threads
        self.steps: dict[str, Any] = {}
        self.repeats: dict[str, int] = {}
        self.warm: set[str] = set()
        self.before: float | None = None

    def load(self) -> dict[str, Any]:
        """The framework is there: it came with the maker."""
        return {}

    def build(self, key: str, kind: str, shape: list[int]) -> dict[str, Any]:
        from benchmarks import problem

        if kind not in self.warm:  # libraries that load late are no part of the problem's time or memory
            self.maker(problem.make(kind, problem.TINY), self.threads).step()
            self.warm.add(kind)
        peak.forget()
        self.before = peak.now()
        task = problem.make(kind, problem.Shape(*shape))
        start = time.perf_counter()
        work = self.maker(task, self.threads)
        done = work.step()
        first = time.perf_counter() - start
        answer = work.answer and work.answer(done)
        del done
        peak.forget()  # of the steps from here on, not of compiling
        seconds = warm_up(work.step)
        self.steps[key], self.repeats[key] = work.step, max(1, round(LONG_ENOUGH / seconds + 0.5))
        return {"first_s": first, "step_s": seconds, "repeats": self.repeats[key], "answer": answer}

    def go(self, key: str) -> dict[str, Any]:
        step, repeats = self.steps[key], self.repeats[key]
        if repeats > 1:
            step()  # caches and pools that went cold while others ran
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return {"s": (time.perf_counter() - start) / repeats}

    def memory(self) -> dict[str, Any]:
        highest = peak.highest()
        known = highest is not None and self.before is not None
        return {"peak_mib": highest - self.before if known else None}


def warm_up(step: Any) -> float:
    """The fastest of some calls: a fifth of a second of them, but no more than ten."""
    times, end = [], time.perf_counter() + 0.2
    while not times or (len(times) < 10 and time.perf_counter() < end):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()

"""What is measured, in which order, and roughly how long each part takes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import diagnosing, growth, problem, recording, reference_ledger, start_up, training
from benchmarks.contenders import MAPS, RACE, TRACED, TRACED_MAPS, WATCHED
from benchmarks.problem import CELLS, Shape
from benchmarks.race import Note, Pace, race, started

SECTIONS = (
    "races",
    "maps",
    "traced",
    "watched",
    "traced_maps",
    "growth",
    "growth_memory",
    "training",
    "diagnosis",
    "start_up",
    "first_use",
    "reference_ledger",
    "ledger_memory",
)


class Task(NamedTuple):
    """section: where its results belong.  seconds: how long it is expected to take."""

    section: str
    title: str
    seconds: float
    run: Callable[[Note], list[dict[str, Any]]]


class Program(NamedTuple):
    """How much is measured; `FULL`, `QUICK` or `DRY`, or less of one of them.

    together: whether the cells of a shape share their processes; memory is then no longer that of a fresh process.
    """

    mode: str
    shapes: list[Shape]
    maps: list[Shape]
    traced_maps: list[Shape]
    growth: dict[str, list[Shape]]
    reference: Shape
    ledger_steps: int
    pace: Pace
    repeats: int
    together: bool
    cells: tuple[str, ...] = CELLS
    updates: tuple[int, int] = (20, 220)
    contenders: tuple[str, ...] = tuple(RACE)
    sections: tuple[str, ...] = SECTIONS

    @property
    def grown(self) -> tuple[str, ...]:
        """The cells of all that is not the race: one of them where time is short."""
        return self.cells[-1:] if self.together else self.cells


FULL = Program("full", problem.FULL, [Shape(100, 32, 64, 128)], problem.TRACED_MAPS, growth.FULL,
               reference_ledger.FULL, 10_000, Pace(9), 5, False)  # fmt: skip
SHORT = tuple(name for name in SECTIONS if name != "first_use")  # compiling everything anew takes too long
QUICK = Program("quick", problem.QUICK, [Shape(20, 8, 8, 16)], [Shape(20, 8, 8, 16)], growth.QUICK,
                reference_ledger.QUICK, 100, Pace(3, 0.5), 1, True, updates=(10, 60), sections=SHORT)  # fmt: skip
DRY = Program("dry", problem.DRY, problem.DRY, problem.DRY, growth.DRY, reference_ledger.DRY, 9, Pace(1), 1, True,
              updates=(1, 2), sections=SHORT)  # fmt: skip


def tasks(program: Program, threads: int) -> list[Task]:
    """Those of the program's sections, in order."""
    found = [*_races(program, threads), *_growth(program, threads), *_beside(program, threads)]
    return [task for task in found if task.section in program.sections]


def _races(program: Program, threads: int) -> Iterator[Task]:
    groups = [program.cells] if program.together else [(kind,) for kind in program.cells]
    for section, names, shapes in (
        ("races", program.contenders, program.shapes),
        ("maps", tuple(MAPS), program.maps),
        ("traced", tuple(TRACED), program.shapes),
        ("watched", tuple(WATCHED), program.maps),
        ("traced_maps", tuple(TRACED_MAPS), program.traced_maps),
    ):
        for shape in shapes:
            for kinds in [program.cells[-1:]] if section == "traced_maps" else groups:

                def run(note: Note, names: Any = names, kinds: Any = kinds, shape: Shape = shape) -> list[dict]:
                    note("loading")
                    with started(names, threads) as children:
                        return [race(children, kind, shape, program.pace, note) for kind in kinds]

                title = f"{section} {' '.join(kinds)}  T, B, X, H = {shape}"
                yield Task(section, title, _race_seconds(program, kinds, shape, len(names)), run)


def _race_seconds(program: Program, kinds: tuple[str, ...], shape: Shape, contenders: int) -> float:
    """Loading; building, and a round's pauses, by contender; what the slow ones take: products, and loops over T."""
    slow = 6e-11 * max(problem.products(kind, shape) for kind in kinds) + 1.8e-3 * shape.T
    return 5 + len(kinds) * (contenders * (0.9 + 0.12 * program.pace.rounds) + program.pace.rounds * slow)


def _growth(program: Program, threads: int) -> Iterator[Task]:
    pace = program.pace._replace(rounds=min(program.pace.rounds, 5))
    for kind in program.grown:
        for by, shapes in program.growth.items():
            if shapes:
                work = 2e-11 * sum(problem.products(kind, shape) for shape in shapes)
                yield Task("growth", f"growth of {kind} with {by}", 3 + pace.rounds * (work + 0.3),
                           lambda note, k=kind, b=by, s=shapes: [growth.times(k, b, s, threads, pace)])  # fmt: skip
    for kind in program.grown:
        steps = growth.STEPS[program.mode]
        yield Task("growth_memory", f"memory of {kind} by T, checkpointed", 3 * len(steps) + 1e-4 * sum(steps),
                   lambda note, k=kind, s=steps: [growth.memory(k, s, threads)])  # fmt: skip


def _beside(program: Program, threads: int) -> Iterator[Task]:
    repeats = program.repeats
    yield Task("training", "bptt train on either engine", 10 * repeats,
               lambda note: [training.measure(128, program.updates, repeats)])  # fmt: skip
    sizes = {"full": diagnosing.FULL, "quick": diagnosing.QUICK, "dry": diagnosing.DRY}[program.mode]
    yield Task("diagnosis", "bptt check, and samples of the exponent", 5 + 5 * repeats,
               lambda note: [diagnosing.measure(sizes, repeats)])  # fmt: skip
    yield Task("start_up", "start-up", 1 + repeats, lambda note: [start_up.begin(repeats, threads)])
    for kind in program.grown:
        yield Task("first_use", f"first compiled step of {kind}", 25,
                   lambda note, k=kind: [start_up.first_step(k, threads)])  # fmt: skip
    for kind in program.grown:
        yield Task("reference_ledger", f"ledger of {kind} on the reference engine", 1 + repeats,
                   lambda note, k=kind: [reference_ledger.measure(k, program.reference, repeats, threads)])  # fmt: skip
    yield Task("ledger_memory", "memory of a ledger, LSTM", 5 + program.ledger_steps / 300,
               lambda note: list(_ledger_memory(program.ledger_steps, threads)))  # fmt: skip


def _ledger_memory(T: int, threads: int) -> Iterator[dict[str, Any]]:
    """Of the reference engine, as docs/measured.md has it."""
    sizes = recording.Sizes(B=8, H=64, D=32)
    for steps, keep, plan in ((T, "factors", "full"), (T, "norms", "checkpointed"), (4 * T, "norms", "checkpointed")):
        found = recording.measure("lstm", steps, sizes, keep, plan, "reference", threads)
        yield {"cell": "lstm", "T": steps, "sizes": list(sizes), "keep": keep, "plan": plan, **found}

"""How our step with the complete ledger grows with T, B and H, and the memory of a checkpointed ledger with T."""

from typing import Any

from benchmarks import recording
from benchmarks.children import cores
from benchmarks.neighbours import Watch
from benchmarks.problem import Shape
from benchmarks.race import Pace, alternate, build, started

FULL = {
    "T": [Shape(T, 4, 32, 64) for T in (1_000, 3_000, 10_000, 30_000, 100_000)],
    "B": [Shape(500, B, 32, 64) for B in (1, 4, 16, 64, 256)],
    "H": [Shape(100, 16, 32, H) for H in (32, 64, 128, 256, 512)],
}
QUICK = {
    "T": [Shape(T, 4, 8, 16) for T in (250, 1000, 4000)],
    "B": [Shape(50, B, 8, 16) for B in (1, 8, 64)],
    "H": [Shape(20, 8, 8, H) for H in (16, 64, 128)],
}
DRY = {by: [Shape(4, 2, 3, 4), Shape(8, 2, 3, 4)] if by == "T" else [] for by in "TBH"}
STEPS = {"full": (1_000, 3_000, 10_000, 30_000, 100_000), "quick": (400, 1_600), "dry": (9, 25)}


def times(kind: str, by: str, shapes: list[Shape], threads: int, pace: Pace) -> dict[str, Any]:
    """Seconds per step of each size, in rounds that alternate between the sizes; one process holds them all."""
    watch = Watch()
    growth: dict[str, Any] = {"cell": kind, "by": by, "shapes": [list(shape) for shape in shapes], "status": "timed"}
    with started(["ledger"], threads) as children:
        child = children["ledger"]
        for shape in shapes:
            found = build(child, str(shape), kind, shape)
            if found["status"] != "timed":
                return growth | {"status": found["status"]}
        rounds = alternate([(str(shape), child, str(shape)) for shape in shapes], pace, watch)
    failed = [found["status"] for found in rounds.values() if "status" in found]
    return growth | {
        "status": failed[0] if failed else "timed",
        "others": watch.share(cores()),
        "times": [found["times"] for found in rounds.values()],
    }


def memory(kind: str, steps: tuple[int, ...], threads: int) -> dict[str, Any]:
    """MiB above the data of recording with Checkpointed() and keep="norms"; a fresh process for every T."""
    sizes = recording.Sizes(B=4, H=128, D=32)
    found = [recording.measure(kind, T, sizes, "norms", "checkpointed", "compiled", threads) for T in steps]
    failed = [one["status"] for one in found if one["status"] != "measured"]
    return {"cell": kind, "sizes": list(sizes), "T": list(steps), "found": found} | (
        {"status": failed[0] if failed else "measured"}
    )

"""The page's further sections, one function each; a section that was not measured is left out."""

from collections.abc import Iterator
from typing import Any

from benchmarks import traced
from benchmarks.contenders import ALL
from benchmarks.derive import Row, times
from benchmarks.problem import Shape
from benchmarks.spread import median, quartiles
from benchmarks.tables import digits, milliseconds, prose, table
from benchmarks.targets import faster, power, time_power, work_mib


def label(name: str) -> str:
    return ALL[name].label


def contenders(races: list[dict[str, Any]], rows: list[Row]) -> Iterator[str]:
    """A table per cell: every shape, every contender."""
    head = [
        "T, B, X, H",
        "contender",
        "ms",
        "middle half",
        "rounds",
        "over fastest plain peer",
        "first step s",
        "peak MiB",
    ]
    for cell in dict.fromkeys(row.cell for row in rows):
        body, notes = [], []
        for one, row in zip(races, rows, strict=True):
            if row.cell == cell:
                body += [_contender_line(row, name, found) for name, found in one["results"].items()]
                notes += _notes(row.title, one["results"])
        yield f"### {cell.upper()}"
        yield table(head, body)
        if notes:
            yield "\n".join(notes)


def _contender_line(row: Row, name: str, found: dict[str, Any]) -> list[str]:
    known = times({name: found}, name)
    if not known:
        return [str(row.shape), label(name), found["status"].partition(":")[0], *[""] * 5]
    low, high = quartiles(known)
    over = "" if row.peer is None or name == "sgemm" else digits(row.medians[name] / row.medians[row.peer])
    half = f"[{milliseconds(low)}–{milliseconds(high)}]"
    return [str(row.shape), label(name), milliseconds(median(known)), half, str(len(known)), over,
            digits(found["first_s"], 2), digits(found["peak_mib"])]  # fmt: skip


def _notes(title: str, results: dict[str, Any]) -> list[str]:
    """Why somebody was not timed."""
    return [f"- {title}, {label(name)}: {found['status']}" for name, found in results.items()
            if found["status"] != "timed"]  # fmt: skip


def untimed(results: dict[str, Any]) -> list[str]:
    """Contenders that were wrong or failed, and on how many cells and shapes."""
    races = results.get("races", [])
    names = [name for one in races for name, found in one["results"].items() if found["status"] != "timed"]
    return [f"{label(name)}, {names.count(name)} of {len(races)}" for name in dict.fromkeys(names)]


def others(results: dict[str, Any]) -> Iterator[str]:
    """All that is not the race."""
    for name, section in SECTIONS.items():
        if results.get(name):
            yield from section(results[name])


def maps(races: list[dict[str, Any]]) -> Iterator[str]:
    yield "## The map, loss k × step t"
    yield prose(
        "`T backward calls`: a loop over PyTorch's cells, then one `autograd.grad` per loss step, which gives "
        "‖∂L_k/∂h_t‖. Ours: `record(..., map=True)`, which gives ‖C[k, t]‖ of every parameter, and the "
        "ledger of norms beside it."
    )
    head = ["cell", "T, B, X, H", "contender", "ms", "middle half", "over ours", "peak MiB"]
    body, notes = [], []
    for one in races:
        ours, title = times(one["results"], "map"), f"{one['cell'].upper()} {Shape(*one['shape'])}"
        notes += _notes(title, one["results"])
        for name, found in one["results"].items():
            known = times(one["results"], name)
            if known:
                over = digits(median(known) / median(ours)) if ours else "–"
                half = "[{}–{}]".format(*map(milliseconds, quartiles(known)))
                body.append([one["cell"].upper(), str(Shape(*one["shape"])), label(name), milliseconds(median(known)),
                             half, over, digits(found["peak_mib"])])  # fmt: skip
    yield table(head, body)
    if notes:
        yield "\n".join(notes)


def growth(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Growth of our step with its ledger"
    yield "ms per step at each size, and the exponent p of time ∝ sizeᵖ, fitted by least squares of the logarithms."
    for by in "TBH":
        of_by = [one for one in found if one["by"] == by]
        if of_by:
            shapes = [Shape(*shape) for shape in of_by[0]["shapes"]]
            fixed = ", ".join(f"{name} = {getattr(shapes[0], name)}" for name in Shape._fields if name != by)
            head = [f"by {by} ({fixed})", *(f"{getattr(shape, by):,}" for shape in shapes), "p"]
            yield table(head, [_growth_line(one) for one in of_by])


def _growth_line(one: dict[str, Any]) -> list[str]:
    if one["status"] != "timed":
        return [f"{one['cell'].upper()}: {one['status']}", *("–" for _ in one["shapes"]), "–"]
    return [one["cell"].upper(), *(milliseconds(median(known)) for known in one["times"]), digits(time_power(one))]


def growth_memory(found: list[dict[str, Any]]) -> Iterator[str]:
    B, H, D = found[0]["sizes"]
    yield "## Memory of a checkpointed ledger"
    yield prose(
        f'MiB of recording with `Checkpointed()`, `keep="norms"`, compiled, above the data; B = {B}, H = {H}, '
        f"{D} ids in, {D} classes out, every T in a process of its own. The ledger itself holds numbers for every step "
        "and sequence, so it grows with T whatever the plan; *work* is the rest, which should grow with √T: p = 0.5. "
        "The fit has in it what does not grow at all; between the last two sizes that counts least."
    )
    head = ["MiB at T =", *(f"{T:,}" for T in found[0]["T"]), "p", "of the last two"]
    body = []
    for one in found:
        parts = {
            "in all": [part.get("peak_mib") for part in one["found"]],
            "the ledger": [part.get("ledger_mib") for part in one["found"]],
            "work": [work_mib(part) for part in one["found"]],
        }
        for name, values in parts.items():
            powers = [digits(power(one["T"][since:], values[since:])) for since in (0, -2)]
            body.append([f"{one['cell'].upper()}, {name}", *map(digits, values), *powers])
        body += [[one["status"], *[""] * (len(head) - 1)]] if one["status"] != "measured" else []
    yield table(head, body)


def start_up(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Start-up"
    yield table(["what", "s"], [[what, digits(value)] for what, value in found[0].items()])


def first_use(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "## The first compiled gradient and ledger of a process"
    head = ["cell", *(name for name in found[0] if name != "cell")]
    yield table(head, [[one["cell"].upper(), *(digits(one[name]) for name in head[1:])] for one in found])


def reference_ledger(found: list[dict[str, Any]]) -> Iterator[str]:
    T, B, X, H = found[0]["shape"]
    yield "## A ledger on the reference engine"
    yield prose(
        f"T = {T}, B = {B}, X = {X}, H = {H}, float32, with a readout of {X} classes and ∂J/∂x. The complete "
        "ledger (factors kept; norms, per sequence, shares, coherence, gains, residual) over the training step that "
        "it came from."
    )
    head = ["cell", "step ms", "recording adds ms", "asking ms", "ledger / step"]
    yield table(head, [
        [one["cell"].upper(), *(milliseconds(one[key]) for key in ("step_s", "recording_adds_s", "asking_s")),
         f"{one['ratio']:.2f}"]
        for one in found
    ])  # fmt: skip


def ledger_memory(found: list[dict[str, Any]]) -> Iterator[str]:
    B, H, D = found[0]["sizes"]
    yield "## Memory of a ledger on the reference engine"
    yield f"LSTM, B = {B}, H = {H}, {D} ids in and {D} classes out, float32, above the data, in a process of its own."
    head = ["T", "keep", "plan", "MiB in all", "of it the ledger of norms"]
    yield table(head, [
        [f"{one['T']:,}", one["keep"], one["plan"], digits(one.get("peak_mib")),
         digits(one.get("ledger_mib")) if one["keep"] == "norms" else ""]
        for one in found
    ])  # fmt: skip


def training(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Training"
    few, many = found[0]["updates"]
    yield prose(
        "`bptt train` on the text that Python ships, as the command is given, on either engine: ms per update, from "
        f"the wall time of {many} updates less that of {few}, engines alternating."
    )
    head = ["H", "reference ms", "compiled ms", "times faster"]
    yield table(head, [
        [str(one["hidden"]), *(milliseconds(median(one[name])) for name in ("reference", "compiled")),
         digits(faster(one))] if one["status"] == "measured" else [str(one["hidden"]), one["status"], "–", "–"]
        for one in found
    ])  # fmt: skip


def diagnosis(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Diagnosis"
    T, B, H = found[0]["sizes"]
    yield prose(
        f"`bptt check RUN --json` as a whole process, all that it measures by default, of an LSTM with H = {H} on "
        f"text, T = {T}, B = {B} (it walks two windows, of half as many sequences); and one sample of the largest "
        "exponent (`--jacobian-every`) beside an update of `bptt train` with the same H, in turns in one process, one "
        "BLAS thread."
    )
    head = ["what", "median", "least", "most"]
    body = [[one["status"], "–", "–", "–"] for one in found if one["status"] != "measured"]
    for one in found:
        if one["status"] == "measured":
            for what, key, scale in (
                ("check, s", "check", 1),
                ("sample, ms", "sample", 1e3),
                ("update, ms", "update", 1e3),
            ):
                body.append([what, *(digits(scale * of(one[key])) for of in (median, min, max))])
    yield table(head, body)


SECTIONS = {
    "maps": maps,
    "traced": traced.steps,
    "watched": traced.watching,
    "traced_maps": traced.maps,
    "growth": growth,
    "growth_memory": growth_memory,
    "training": training,
    "diagnosis": diagnosis,
    "start_up": start_up,
    "first_use": first_use,
    "reference_ledger": reference_ledger,
    "ledger_memory": ledger_memory,
}

"""The results as a page: docs/benchmarks.md, and what `make bench` prints. Every number and verdict is worked out."""

from typing import Any

from benchmarks import sections
from benchmarks.derive import Row, rows
from benchmarks.problem import Shape
from benchmarks.spread import geometric_mean, median
from benchmarks.tables import digits, milliseconds, percent, prose, table
from benchmarks.targets import WORST, misses, targets
from benchmarks.tried import tried

AT_REST = 0.1  # of the machine
COLUMNS = """\
- **T, B, X, H**: steps, sequences, inputs, hidden units. One layer, float32, h_0 = 0, no readout; the loss is the mean
  squared error of h against random targets; forward and backward, to the gradient of every weight and bias. Nobody is
  asked for ∂J/∂x. All contenders have the same weights and data, and none is timed before its loss and ‖dW_hh‖ agree
  with the others' to 0.1 %.
- **fastest plain peer**: the fastest, by median, of those that only train (`torch nn`, `jax scan`, `keras`).
- **ours**, **+ ledger**: our compiled engine, and the same with its complete ledger: `keep="norms"`, then ‖dW_t‖ and
  ‖dW_{t,b}‖ of every parameter, ‖∂J/∂s_t‖, gains and residual, asked for in every step.
- **ratio**: *+ ledger* over the fastest plain peer, of the medians; in brackets the middle half of the rounds. Below 1:
  looking costs less with us than training does elsewhere.
- **ledger adds**, **shares too**: what looking adds to our own step (with factors kept and shares asked for as well);
  the median over rounds of the two times in the same round.
- **GFLOP/s**, **of sgemm**: multiplications and additions of the matrix products alone (forward, back to h, weights)
  per second, with the ledger on; and over what NumPy's BLAS reaches on a 2048³ product in the same rounds, with the
  same threads.
- **misses**: which of the targets above this row misses."""

METHOD = """\
Every contender runs in its own process, with the same number of threads, and is idle while another is timed. Rounds
alternate between contenders; who begins changes from round to round. One measurement is at least 30 ms long, after one
step that is not counted, and gives seconds per step; the table has the median of the rounds, and in brackets the middle
half. A contender so slow that it has used up four seconds is seen in three rounds, or fewer after twenty. *First step*
is building, compiling and the first step (`jax scan`: compiling three unrollings and trying each; ours: compiled
before, read from disk). *Peak* is memory above what was there before the data was made: data, weights and a step, and
what compiling left behind, though not what it took while it lasted."""


def page(results: dict[str, Any], picture: str | None = None) -> str:
    """The whole of it.

    picture: path of the figure, as the page links it; None to leave it out.
    """
    known = rows(results.get("races", []))
    parts = ["# Benchmarks", opening(results["machine"], results["settings"])]
    if picture and known:
        parts.append(f"![Time of each contender over that of the fastest plain peer, by cell and shape]({picture})")
    parts += ["## What was asked for", asked_for(results, known)]
    if known:
        parts += [
            "## With the ledger on, against plain steps of others",
            summary(known),
            closing(known),
            company(results),
            COLUMNS,
        ]
        parts += ["## Not reached", not_reached(results, known)]
        parts += ["## Every contender", METHOD, *sections.contenders(results["races"], known)]
    parts += sections.others(results)
    return "\n\n".join(parts) + "\n"


def opening(machine: dict[str, Any], settings: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    less = "" if settings["mode"] == "full" else f" This was a {settings['mode']} pass: its numbers mean little."
    load = "" if machine["load before"] is None else f" Load of the machine just before: {machine['load before']}."
    return prose(
        f"Made by `make bench` on {machine['date']}, words and verdicts too; rounds: {settings['rounds']}. "
        f"{machine['processor']}, cores: {machine['cores']}, threads for everybody: {machine['threads']}, "
        f"{machine['system']}; {versions}.{load}{less}"
    )


def asked_for(results: dict[str, Any], known: list[Row]) -> str:
    body = [[one.what, one.asked, one.measured or "–", one.verdict] for one in targets(results, known)]
    return table(["what", "asked", "measured", "verdict"], body)


def summary(known: list[Row]) -> str:
    head = ["cell", "T, B, X, H", "fastest plain peer", "its ms", "ours ms", "+ ledger ms", "ratio",
            "ledger adds", "shares too", "GFLOP/s", "of sgemm", "misses"]  # fmt: skip
    return table(head, [_summary_line(row) for row in known])


def _summary_line(row: Row) -> list[str]:
    ratio = "{} [{}–{}]".format(*map(digits, row.ratio)) if row.ratio else "–"
    parts = [percent(spread and spread[0]) for spread in (row.norms, row.shares)]
    times = [milliseconds(row.medians.get(name)) for name in (row.peer or "", "compiled", "ledger")]
    rate = digits(row.rate and row.rate / 1e9)
    peer = sections.label(row.peer) if row.peer else "–"
    return [row.cell.upper(), str(row.shape), peer, *times, ratio, *parts, rate, percent(row.of_peak),
            ", ".join(misses(row))]  # fmt: skip


def closing(known: list[Row]) -> str:
    """Geometric means, over all and by cell."""
    ratios = {row.title: row.ratio[0] for row in known if row.ratio}
    if not ratios:
        return "No ratio could be taken."
    by_cell = []
    for cell in dict.fromkeys(row.cell for row in known):
        of_cell = [row.ratio[0] for row in known if row.cell == cell and row.ratio]
        by_cell += [f"{cell.upper()} {geometric_mean(of_cell):.2f}"] if of_cell else []
    worst = max(ratios, key=ratios.__getitem__)
    return prose(
        f"Geometric mean of the ratios {geometric_mean(list(ratios.values())):.2f} ({', '.join(by_cell)}); "
        f"worst {ratios[worst]:.2f} ({worst})."
    )


def company(results: dict[str, Any]) -> str:
    """Whether the machine was at rest."""
    found = [(one["others"], one) for one in results["races"] if one["others"] is not None]
    if not found:
        return "What else ran on the machine meanwhile is not known."
    most, where = max(found, key=lambda pair: pair[0])
    title = f"{where['cell'].upper()} {Shape(*where['shape'])}"
    warning = " It was not at rest, and these times are to be measured again." if most > AT_REST else ""
    return prose(
        f"While contenders were timed, everything else took {percent(median([part for part, _ in found]))} of the "
        f"machine (median over cells and shapes; at most {percent(most)}, {title}).{warning}"
    )


def not_reached(results: dict[str, Any], known: list[Row]) -> str:
    """Every target that is not reached, every row whose ratio is above 1, and what was tried."""
    lines = [
        f"- {one.what}: asked {one.asked}, measured {one.measured}. {tried(one.what)}".rstrip()
        for one in targets(results, known)
        if one.reached is False
    ]
    lines += [
        f"- {row.title}: {row.ratio[0]:.2f} times {sections.label(row.peer)} "
        f"({row.medians['compiled'] / row.medians[row.peer]:.2f} without the ledger). {tried(row.title)}".rstrip()
        for row in known
        if row.ratio and row.peer and row.ratio[0] > WORST and "compiled" in row.medians
    ]
    missing = [row.title for row in known if not row.ratio]
    lines += [f"- Not compared, for want of one of the two times: {'; '.join(missing)}."] if missing else []
    lines += [f"- Not timed (why, below): {who}." for who in sections.untimed(results)]
    return (
        "\n".join(lines)
        or "Nothing: whatever was measured is reached, and no cell and shape is slower than its fastest plain peer."
    )

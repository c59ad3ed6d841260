"""What a traced step costs beside the plain one: the sections of the page, and what was asked for."""

from collections.abc import Iterator
from typing import Any

from benchmarks.contenders import ALL
from benchmarks.problem import Shape
from benchmarks.spread import median, quartiles, ratios
from benchmarks.tables import digits, milliseconds, prose, table

FUSED, LSTM, LOOP, WATCH, MAP, PEAK = 0.8, 1.1, 1.25, 1.02, 20, 1.3
PAIRS = {"traced": "torch", "traced-loop": "loop", "watched": "fifty", "traced-map": "fused-calls"}


def times(one: dict[str, Any], name: str) -> list[float]:
    found = one["results"].get(name, {})
    return found.get("times", []) if found.get("status") == "timed" else []


def over(one: dict[str, Any], name: str) -> list[float]:
    """The times of a contender over those of its pair in the same rounds."""
    mine, plain = times(one, name), times(one, PAIRS[name])
    return ratios(mine, plain) if mine and plain else []


def steps(found: list[dict[str, Any]]) -> Iterator[str]:
    """Traced steps beside plain ones."""
    yield "## PyTorch traced, beside its own plain step"
    yield prose(
        "`bptt.trace` around forward and backward of an unmodified module, with all that its ledger says, over the "
        "same step without it; one layer, float32, ∂J/∂x not asked for. *nn*: `nn.RNN`, `nn.GRU`, `nn.LSTM`, with "
        '`keep="norms"`. *loop*: a cell in a Python loop, with its factors kept. *peak*: memory above what there was '
        "before the data, over that of the plain step."
    )
    head = ["cell", "T, B, X, H", "nn ms", "traced ms", "traced / plain", "peak / plain", "loop ms", "traced ms",
            "traced / plain", "peak / plain"]  # fmt: skip
    yield table(head, [_line(one) for one in found])
    yield from _notes(found)


def _line(one: dict[str, Any]) -> list[str]:
    cells = [one["cell"].upper(), str(Shape(*one["shape"]))]
    for name in ("traced", "traced-loop"):
        cells += [_ms(one, PAIRS[name]), _ms(one, name), _spread(over(one, name)), digits(peak(one, name), 3)]
    return cells


def _ms(one: dict[str, Any], name: str) -> str:
    known = times(one, name)
    return milliseconds(median(known)) if known else "–"


def _spread(known: list[float]) -> str:
    return "{} [{}–{}]".format(*map(digits, (median(known), *quartiles(known)))) if known else "–"


def peak(one: dict[str, Any], name: str) -> float | None:
    """Peak memory over that of the plain step."""
    mine, plain = (one["results"].get(n, {}).get("peak_mib") for n in (name, PAIRS[name]))
    return mine / plain if mine and plain else None


def _notes(found: list[dict[str, Any]]) -> Iterator[str]:
    lines = [
        f"- {one['cell'].upper()} {Shape(*one['shape'])}, {ALL[name].label}: {result['status']}"
        for one in found for name, result in one["results"].items() if result["status"] != "timed"
    ]  # fmt: skip
    if lines:
        yield "\n".join(lines)


def watching(found: list[dict[str, Any]]) -> Iterator[str]:
    """A watch that looks at one step of fifty."""
    yield "## PyTorch watched"
    yield "Fifty training steps, one of them looked at by `bptt.watch(model, every=50)`, over fifty plain ones."
    head = ["cell", "T, B, X, H", "50 plain ms", "50 watched ms", "watched / plain"]
    yield table(head, [
        [one["cell"].upper(), str(Shape(*one["shape"])), _ms(one, "fifty"), _ms(one, "watched"),
         _spread(over(one, "watched"))]
        for one in found
    ])  # fmt: skip
    yield from _notes(found)


def maps(found: list[dict[str, Any]]) -> Iterator[str]:
    """The map of a traced layer beside T backward calls."""
    yield "## PyTorch traced: the map, loss k × step t"
    yield prose(
        "`bptt.trace(model, map=True)`: ‖C[k, t]‖ of every parameter, the whole ledger of norms, and the step itself; "
        "over T calls of `autograd.grad`, one per loss, on the graph of the same fused layer, which give dL_k/dW and "
        "no step of it."
    )
    head = ["cell", "T, B, X, H", "T calls ms", "traced map ms", "times faster"]
    yield table(head, [
        [one["cell"].upper(), str(Shape(*one["shape"])), _ms(one, "fused-calls"), _ms(one, "traced-map"),
         digits(1 / median(over(one, "traced-map"))) if over(one, "traced-map") else "–"]
        for one in found
    ])  # fmt: skip
    yield from _notes(found)


def asked(results: dict[str, Any]) -> Iterator[tuple[str, str, str, bool | None]]:
    """What was asked for, the measured figure in words, and whether it is reached."""
    found = results.get("traced", [])
    for what, name, cells, most in (
        ("traced nn.RNN and nn.GRU over the plain step", "traced", ("rnn", "gru"), FUSED),
        ("traced nn.LSTM over the plain step", "traced", ("lstm",), LSTM),
        ("a traced loop of LSTMCell over the plain loop", "traced-loop", ("lstm",), LOOP),
    ):
        known = [(median(over(one, name)), one) for one in found if one["cell"] in cells and over(one, name)]
        yield _worst(what, f"≤ {most:g}", known, most)
    known = [(peak(one, name), one) for one in found for name in ("traced", "traced-loop") if peak(one, name)]
    yield _worst("peak memory of a traced step over that of the plain one", f"≤ {PEAK:g}", known, PEAK)
    known = [(median(over(one, "watched")), one) for one in results.get("watched", []) if over(one, "watched")]
    yield _worst("fifty steps watched at one of them, over fifty plain ones", f"≤ {WATCH:g}", known, WATCH)
    known = [(1 / median(over(one, "traced-map")), one) for one in results.get("traced_maps", [])
             if over(one, "traced-map")]  # fmt: skip
    what = "a 100 × 100 map of a traced nn.LSTM, times faster than 100 backward calls"
    if known:
        words = ", ".join(f"{value:.1f} ({Shape(*one['shape'])})" for value, one in known)
        yield what, f"≥ {MAP}", words, all(value >= MAP for value, _ in known)
    else:
        yield what, f"≥ {MAP}", "", None
    yield "a traced step on a GPU", "as on the CPU", "", None


def _worst(what: str, asked: str, known: list[Any], most: float) -> tuple[str, str, str, bool | None]:
    if not known:
        return what, asked, "", None
    worst, where = max(known, key=lambda pair: pair[0])
    missed = sum(value > most for value, _ in known)
    title = f"{where['cell'].upper()} {Shape(*where['shape'])}"
    words = f"median {median([value for value, _ in known]):.2f}, worst {worst:.2f} ({title})"
    return what, asked, f"{words}; above in {missed} of {len(known)}" if missed else words, missed == 0

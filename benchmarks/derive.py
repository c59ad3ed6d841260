"""What follows from the raw results: who was fastest, by how much, and what looking costs."""

from typing import Any, NamedTuple

from benchmarks import yardstick
from benchmarks.contenders import ALL
from benchmarks.problem import Shape, products
from benchmarks.spread import median, quartiles, ratios

Spread = tuple[float, float, float]  # median, and the quartiles


class Row(NamedTuple):
    """One cell on one shape; None where one of those it takes was not timed.

    peer: the fastest plain peer.  ratio: our step with its ledger over the peer's, of the medians; quartiles by round.
    norms, shares: what a ledger (with shares) adds to our step, as a part of it; by round.
    rate, of_peak: operations of the products per second of our step with its ledger, and as a part of sgemm's.
    """

    cell: str
    shape: Shape
    medians: dict[str, float]
    peer: str | None
    ratio: Spread | None
    norms: Spread | None
    shares: Spread | None
    rate: float | None
    of_peak: float | None
    of_peak_plain: float | None

    @property
    def title(self) -> str:
        return f"{self.cell.upper()} {self.shape}"


def times(results: dict[str, Any], name: str) -> list[float]:
    """Seconds per step by round; none of a contender that is wrong, failed or did not take part."""
    found = results.get(name, {})
    return found.get("times", []) if found.get("status") == "timed" else []


def rows(races: list[dict[str, Any]]) -> list[Row]:
    return [row(one["cell"], Shape(*one["shape"]), one["results"]) for one in races]


def row(cell: str, shape: Shape, results: dict[str, Any]) -> Row:
    medians = {name: median(times(results, name)) for name in results if times(results, name)}
    peers = [name for name in medians if ALL[name].role == "plain peer"]
    peer = min(peers, key=medians.__getitem__, default=None)
    compiled, ledger, shares = (times(results, name) for name in ("compiled", "ledger", "shares"))
    ratio = None
    if peer and ledger:
        ratio = (medians["ledger"] / medians[peer], *quartiles(ratios(ledger, times(results, peer))))
    rate, plain = (
        products(cell, shape) / medians[name] if name in medians else None for name in ("ledger", "compiled")
    )
    peak = yardstick.OPERATIONS / medians["sgemm"] if "sgemm" in medians else None
    of_peak, of_peak_plain = (one / peak if one and peak else None for one in (rate, plain))
    return Row(cell, shape, medians, peer, ratio, _adds(ledger, compiled), _adds(shares, compiled),
               rate, of_peak, of_peak_plain)  # fmt: skip


def _adds(looking: list[float], plain: list[float]) -> Spread | None:
    if not looking or not plain:
        return None
    parts = [ratio - 1 for ratio in ratios(looking, plain)]
    return (median(parts), *quartiles(parts))

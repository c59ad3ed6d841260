"""`bptt compare`: two runs, two groups of seeds, or two ledgers."""

from typing import Annotated

from cyclopts import Parameter

from bptt.cli.output import out, print_json


def compare(
    a: str,
    b: str,
    /,
    *,
    metric: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: bool = False,
) -> int:
    """Compare two runs or two groups of runs: loss, reach and gradient, with their spread over seeds.

    Examples: bptt compare runs/rnn runs/lstm     bptt compare "runs/a-*" "runs/b-*"

    Below a median: the least and the largest, and the quartiles from four runs on.

    Below a ratio: its 95 % interval. p is exact: how often chance would do as much.

    Parameters
    ----------
    a: str
        A run folder, a folder of run folders, a ledger file, several with commas, or a glob in quotes.
    b: str
        The same, of what A is held against.
    metric: list[str]
        Only measures whose name contains this word; may be given several times.
    json: bool
        Print one JSON document instead of the table.
    """
    from bptt.report.comparison import comparison_report
    from bptt.train.comparison import compare as comparing

    found = comparing(a, b, metrics=metric).to_dict()
    if json:
        print_json(found)
    else:
        out().print(comparison_report(found))
    return 0

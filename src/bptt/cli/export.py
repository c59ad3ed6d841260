"""`bptt export`: a ledger for other programs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bptt.cli.output import out, print_json
from bptt.cli.show import find_ledger
from bptt.errors import FileError, InputError, unknown

WRITERS = {"csv": "to_csv", "npz": "to_npz"}


def export(
    source: str,
    /,
    *,
    to: Annotated[str | None, Parameter(help="csv (rows) or npz (arrays); by default as --output ends, or csv")] = None,
    output: Annotated[
        str | None, Parameter(name=["--output", "-o"], help="file to write; beside the ledger by default")
    ] = None,
    force: bool = False,
    json: bool = False,
) -> int:
    """Write a ledger as CSV or npz.

    Example: bptt export runs/text-1 --to csv -o reach.csv

    Parameters
    ----------
    source: str
        A ledger file, or a run folder (its newest ledger).
    force: bool
        Replace an existing file.
    json: bool
        Say what was written as JSON.
    """
    suffix = Path(output).suffix.lstrip(".").lower() if output else ""
    to = to or (suffix if suffix in WRITERS else "csv")
    if to not in WRITERS:
        raise unknown("--to", to, WRITERS)
    if suffix in WRITERS and suffix != to:
        raise InputError("--output", got=f"{output}, which is no .{to}", expected=f"the ending of --to {to}, or none")
    ledger, path = find_ledger(source)
    target = Path(output) if output else path.with_suffix(f".{to}")
    if target.exists() and target.samefile(path):
        raise FileError(f"{target}", got="the ledger itself", do="Choose another --output.")
    if target.exists() and not force:
        raise FileError(f"{target}", got="a file that is there already", do="Choose another --output, or add --force.")
    getattr(ledger, WRITERS[to])(target)
    if json:
        print_json({"written": str(target), "ledger": str(path), "bytes": target.stat().st_size})
    else:
        out().print(f"{path} → {target}, {target.stat().st_size:,} bytes", markup=False)
    return 0

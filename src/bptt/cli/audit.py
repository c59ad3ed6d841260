"""`bptt audit`: does the gradient of somebody's model really reach back?"""

from bptt.cli.output import out, print_json
from bptt.errors import InputError

FINE, FOUND = 0, 1


def audit(
    factory: str,
    /,
    *,
    select: str | None = None,
    ignore: str | None = None,
    fail_on: str | None = None,
    json: bool = False,
) -> int:
    """Move every use of every shared weight by itself, and compare with what the gradient claims about it.

    Example: bptt audit train.py:make --ignore BPA103

    A factory is a function without arguments that returns (model, batch), (model, batch, losses), or a dict of model,
    batch, losses, step. Exit code 0: nothing is wrong; 1: there are findings; 2: bad input.

    Parameters
    ----------
    factory: str
        module:name, or path/to/file.py:name.
    select: str
        Show findings with these codes alone, parted by commas; BPA1 stands for all that begin so.
    ignore: str
        Leave findings with these codes out.
    fail_on: str
        Codes that make the exit code 1; all by default, "never" for none.
    json: bool
        Print one JSON document instead of tables.
    """
    from bptt.trace import room

    torch_room = room("torch")
    chosen = torch_room.audit_codes
    only, without = chosen(select, "--select"), chosen(ignore, "--ignore")
    failing = () if fail_on == "never" else chosen(fail_on, "--fail-on") or ("BPA",)
    given = torch_room.load(factory)
    if given.batch is None:
        do = "Return (model, batch)."
        raise InputError(f"factory {factory}", got="a model without a batch", expected="what it is called with", do=do)
    found = torch_room.audit(given.model, given.batch, given.losses, step=given.step).only(only, without)
    if json:
        print_json(found.to_dict())
    else:
        out().print(found)
    return FOUND if any(finding.code.startswith(failing) for finding in found.findings) else FINE

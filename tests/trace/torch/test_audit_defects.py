"""Every planted defect is found: with its code, the pair (k, t) where it begins, and the line that caused it."""

import ast
from pathlib import Path

import pytest

import bptt
from bptt.trace.torch.factory import load

FILES = sorted((Path(__file__).parent / "audited").glob("*.py"))
DEFECTS = [file for file in FILES if file.stem != "healthy_models"]


def expected(file):
    """CODE and BORDER, and the number of the line that says "here"."""
    source = file.read_text()
    tree = ast.parse(source)
    values = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    here = [i for i, text in enumerate(source.splitlines(), 1) if "# here" in text]
    return *values, here[0] if here else None


@pytest.mark.parametrize("file", DEFECTS, ids=lambda file: file.stem)
def test_a_defect_is_found_where_it_is(file):
    code, border, line = expected(file)
    given = load(f"{file}:make")
    found = bptt.audit(given.model, given.batch, given.losses, step=given.step)
    assert not found.ok
    one = next((f for f in found.findings if f.code == code), None)
    assert one is not None, str(found)
    assert one.border == border, str(found)
    if line is not None:
        assert one.line is not None, str(found)
        path, _, number = one.line.rpartition(":")
        assert Path(path).name == file.name
        assert int(number) == line, str(found)


def test_there_are_enough_of_them():
    assert len(DEFECTS) >= 14
    assert len({expected(file)[0] for file in DEFECTS}) >= 12

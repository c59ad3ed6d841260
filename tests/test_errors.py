"""Every exception: one line of what, got, expected and do, and a place in the hierarchy."""

import inspect

import pytest

from bptt import errors

LEAVES = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.BpttError)
]  # fmt: skip


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_is_caught_as_bptt_error_and_says_one_line(kind):
    with pytest.raises(errors.BpttError) as caught:
        raise kind("thing", got=3, expected="at least 4", do="Give more.")
    assert str(caught.value) == "thing: got 3, expected at least 4. Give more."
    error = caught.value
    assert (error.what, error.got, error.expected, error.do) == ("thing", 3, "at least 4", "Give more.")


def test_the_hierarchy_is_the_one_drawn_on_top():
    drawn, path = {}, []
    margin = min(line.index("B") for line in errors.__doc__.splitlines() if line.strip() == "BpttError")
    for line in errors.__doc__.splitlines():
        if "──" in line or line.strip() == "BpttError":
            depth = (len(line) - len(line.lstrip("│├└─ ")) - margin) // 4
            name = line.lstrip("│├└─ ").split()[0]
            path[depth:] = [name]
            drawn[name] = path[depth - 1] if depth else None
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in LEAVES}
    real["BpttError"] = None
    assert drawn == real


def test_builtin_errors_still_catch_them():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.MissingExtra, ImportError)
    assert not issubclass(errors.FileError, ValueError)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "thing"),
        ({"got": 0}, "thing: got 0"),
        ({"expected": "1"}, "thing: expected 1"),
        ({"do": "Do it."}, "thing. Do it."),
        ({"got": "x.", "do": "Do it."}, "thing: got x. Do it."),
    ],
)
def test_what_is_not_known_is_left_out(given, line):
    assert str(errors.BpttError("thing", **given)) == line


def test_the_nearest_name_is_suggested_only_where_it_is_near():
    assert str(errors.unknown("cell", "lstn", ["gru", "lstm"])).endswith("Did you mean 'lstm'?")
    assert str(errors.unknown("cell", "transformer", ["gru", "lstm"])) == (
        "cell: got 'transformer', expected one of gru, lstm"
    )
    assert isinstance(errors.unknown("cell", "x", []), errors.UnknownName)

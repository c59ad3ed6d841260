"""`bptt report`, as a user runs it; what is examined is made by hand."""

import json

import pytest

import bptt.cli.subject as subject
from bptt.cli.main import run
from oracles import diagnoses


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Runs in an empty folder; what was asked of the examination."""
    monkeypatch.chdir(tmp_path)
    asked = {}

    def examined(source, **options):
        asked.update(options, source=source)
        return diagnoses.full(20)

    monkeypatch.setattr(subject, "examined", examined)
    return asked


def test_a_report_is_written_and_its_place_and_size_are_said(asked, tmp_path, capsys):
    assert run(["report", "runs/a", "-o", "x.html"]) == 0
    page = tmp_path / "x.html"
    assert capsys.readouterr().out == f"runs/a → x.html, {page.stat().st_size / 1000:,.0f} kB\n"
    assert page.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


def test_options_reach_the_examination(asked):
    words = [
        "report",
        "a:b",
        "--select",
        "BP1,BP2",
        "--ignore",
        "BP204",
        "--threshold",
        "steps=3",
        "--samples",
        "7",
        "--seed",
        "2",
    ]
    words += ["--engine", "torch", "--kind", "gru", "--layer", "enc", "--data", "x.npy"]
    assert run([*words, "--title", "Mine & yours"]) == 0
    del asked["progress"]
    assert asked == {
        "source": "a:b",
        "select": ("BP1", "BP2"),
        "ignore": ("BP204",),
        "thresholds": {"steps": 3.0},
        "samples": 7,
        "seed": 2,
        "engine": "torch",
        "kind": "gru",
        "layer": "enc",
        "data": "x.npy",
    }


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("runs/text-1", "text-1.html"),
        ("runs/text-1/", "text-1.html"),
        ("train.py:make", "train-make.html"),
        ("w.pt", "w.html"),
        ("runs/a/iteration-000500.safetensors", "iteration-000500.html"),
        ("package.module:make", "package.module-make.html"),
    ],
)
def test_without_a_name_the_page_is_called_after_its_source(asked, tmp_path, source, name):
    assert run(["report", source]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_report_is_replaced_and_nothing_else(asked, tmp_path, capsys):
    assert run(["report", "a", "-o", "x.html"]) == 0
    assert run(["report", "a", "-o", "x.html"]) == 0
    other = tmp_path / "y.html"
    other.write_text("<html>mine</html>")
    capsys.readouterr()
    asked.clear()
    assert run(["report", "a", "-o", "y.html"]) == 2
    line = "y.html: got a file that is there already and no report of bptt. Choose another --output, or add --force."
    assert capsys.readouterr().err == f"bptt: {line}\n"
    assert other.read_text() == "<html>mine</html>"
    assert not asked  # refused before anything was examined
    assert run(["report", "a", "-o", "y.html", "--force"]) == 0
    assert other.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.svg", "--output: got x.svg, expected a name that ends in .html."),
        ("no/x.html", "cannot write no/x.html: got no such folder. Make it first."),
        ("d.html", "d.html: got a folder, expected the name of a file. Choose another --output."),
    ],
)
def test_one_line_says_where_it_cannot_be_written(asked, tmp_path, capsys, name, line):
    (tmp_path / "d.html").mkdir()
    assert run(["report", "a", "-o", name]) == 2
    assert capsys.readouterr().err == f"bptt: {line.removesuffix('.html.') + '.html' if name == 'x.svg' else line}\n"


def test_what_was_written_as_json(asked, tmp_path, capsys):
    assert run(["report", "a", "-o", "x.html", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == (tmp_path / "x.html").stat().st_size
    assert [one["code"] for one in said["findings"]] == ["BP502", "BP101", "BP204"]

"""`bptt explain`, `bptt show` and `bptt export`, run as a user runs them."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import bptt
from bptt.cli.main import run


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "110")


@pytest.fixture
def ledger_file(tmp_path):
    path = tmp_path / "cat.safetensors"
    bptt.explain("the cat sat down").save(path)
    return path


def test_explain_prints_the_numbers_of_the_ledger(capsys):
    assert run(["explain", "the cat sat down"]) == 0
    text = capsys.readouterr().out
    ledger = bptt.explain("the cat sat down")
    from bptt.report.terminal import number

    for value in [*ledger.map("W_hh")[np.tril_indices(4)], *ledger.norms("W_hh"), *ledger.losses, *ledger.gains()]:
        assert number(value) in text
    assert text.count("?") >= 5
    assert "100.0 %" in text


def test_explain_as_json_is_the_ledger(capsys):
    assert run(["explain", "the cat sat down", "--json", "--term", "4,1"]) == 0
    document = json.loads(capsys.readouterr().out)
    ledger = bptt.explain("the cat sat down")
    assert document["map"] == ledger.map("W_hh").tolist()
    assert document["term"]["factors"][-1]["value"] == ledger.contribution("W_hh", 4, 1).tolist()
    assert document["residual"] < 1e-14
    assert document["complex_step_error"] < 1e-13


def test_a_term_shows_each_factor_with_its_norm(capsys):
    assert run(["explain", "the cat sat down", "--term", "4,1"]) == 0
    text = capsys.readouterr().out
    for symbol in ["∂L4/∂h4", "∂h4/∂h3", "∂h3/∂h2", "∂h2/∂h1", "δ1", "h0", "C[4,1] of W_hh:", "contribution to dW_hh"]:
        assert symbol in text


def test_a_long_sentence_is_shown_in_shades(capsys):
    assert run(["explain", " ".join(f"w{i}" for i in range(30)), "--cell", "lstm", "--parameter", "W_hh.f"]) == 0
    assert "blank is exactly 0" in capsys.readouterr().out


def test_explain_saves_what_show_reads(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    assert run(["explain", "a b c", "--save", str(path)]) == 0
    assert run(["show", str(path)]) == 0
    assert "residual" in capsys.readouterr().out


def test_show_as_json(ledger_file, capsys):
    assert run(["show", str(ledger_file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["ledger"]
    ledger = bptt.Ledger.load(ledger_file)
    assert document["horizon"]["layer0.W_hh"] == bptt.horizon(ledger, "W_hh")
    assert document["parameters"]["layer0.W_hh"]["norms"] == ledger.norms("W_hh").tolist()


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_show_draws_the_same_picture_twice(kind, ledger_file, tmp_path, capsys):
    paths = [tmp_path / f"{i}.{kind}" for i in range(2)]
    for path in paths:
        assert run(["show", str(ledger_file), "--plot", str(path)]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 2000


def test_export_csv_holds_every_use_with_all_its_digits(ledger_file, tmp_path):
    target = tmp_path / "out.csv"
    assert run(["export", str(ledger_file), "-o", str(target)]) == 0
    rows = list(csv.DictReader(target.read_text().splitlines()))
    ledger = bptt.Ledger.load(ledger_file)
    ours = [float(row["norm"]) for row in rows if row["kind"] == "use" and row["parameter"] == "layer0.W_hh"]
    assert ours == ledger.norms("W_hh").tolist()
    pairs = {
        (int(r["loss_step"]), int(r["step"])) for r in rows if r["kind"] == "contribution" and "W_hh" in r["parameter"]
    }
    assert pairs == {(k, t) for k in range(1, 5) for t in range(1, k + 1)}


def test_export_does_not_overwrite_unless_told(ledger_file, capsys):
    assert run(["export", str(ledger_file), "--to", "npz"]) == 0
    assert run(["export", str(ledger_file), "--to", "npz"]) == 2
    assert "already. Choose another --output, or add --force." in capsys.readouterr().err
    assert run(["export", str(ledger_file), "--to", "npz", "--force"]) == 0
    with np.load(ledger_file.with_suffix(".npz")) as arrays:
        assert arrays["map/layer0.W_hh"].shape == (4, 4)


BAD = [
    (["explain", ""], "sentence: got no word"),
    (["explain", "a b", "--term", "1"], "--term: got '1', expected two steps k,t, for example 4,1"),
    (["explain", "a b", "--term", "1,2"], "expected t ≤ k"),
    (["explain", "a b", "--cell", "ltsm"], "Did you mean 'lstm'?"),
    (["explain", "a b", "--parameter", "W_hx"], "Did you mean 'W_xh'?"),
    (["explain", "a b", "--hidden", "0"], "hidden units: got 0, expected a whole number, at least 1"),
    (["explain", "a b", "--learning-rate", "-1"], "learning rate: got -1.0, expected a number above 0"),
    (["explain", "a b", "--hidden", "x"], "Try: bptt explain --help"),
    (["explain", "a b", "--sed", "1"], "Did you mean --seed?"),
    (["explain", "a b", "--save", "/no/such/folder/a.safetensors"], "cannot write /no/such/folder/a.safetensors"),
    (["show", "/no/such/file"], "no such file, expected a ledger"),
    (["export", "/no/such/file", "--to", "xls"], "--to: got 'xls', expected one of csv, npz"),
    (["shwo"], "Did you mean"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(argv) for argv, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(argv, message, capsys):
    assert run(argv) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.err.count("\n") == 1
    assert streams.out == ""


def test_a_foreign_file_is_named(tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("not a ledger")
    assert run(["show", str(path)]) == 2
    assert "a damaged or foreign file" in capsys.readouterr().err


def test_an_unwritable_picture_is_refused_before_matplotlib_draws(ledger_file, tmp_path, capsys):
    assert run(["show", str(ledger_file), "--plot", str(tmp_path / "a.bmp")]) == 2
    assert "picture format: got 'bmp', expected one of svg, png, pdf" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["explain", "train", "check", "show", "sample", "export"])
def test_help_has_an_example(command, capsys):
    assert run([command, "--help"]) == 0
    assert re.search(rf"Examples?: bptt {command}", capsys.readouterr().out)


@pytest.mark.parametrize(("width", "shown"), [(110, "L4 <end>"), (50, "L4  "), (40, "rows: losses k = 1…4")])
def test_the_table_fits_the_terminal(width, shown, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(["explain", "the cat sat down"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(shown) for line in lines)
    assert max(map(len, lines)) <= width


def test_a_terminal_without_greek_letters_shows_question_marks():
    command = [sys.executable, "-m", "bptt", "explain", "a b"]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 0
    assert done.stderr == b""
    assert b"?C[k,t]?" in done.stdout

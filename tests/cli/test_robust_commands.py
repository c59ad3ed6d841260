"""What users do to commands: wrong options, closed pipes, full disks, files in the way: one line each, no harm done."""

import os
import subprocess
import sys

import pytest

import bptt
from bptt.cli.main import run


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def bptt_process(*argv, **options):
    return subprocess.run([sys.executable, "-m", "bptt", *argv], stderr=subprocess.PIPE, timeout=120, **options)


def complaint(capsys, *argv):
    """The one line on standard error of a command that must fail with exit code 2."""
    assert run(list(argv)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_export_does_not_eat_its_source(capsys, tmp_path):
    path = tmp_path / "l.safetensors"
    bptt.explain("a b c").save(path)
    before = path.read_bytes()
    assert "got the ledger itself" in complaint(capsys, "export", str(path), "-o", str(path), "--force")
    assert path.read_bytes() == before


def test_export_goes_by_the_ending_and_refuses_a_contradiction(capsys, tmp_path):
    bptt.explain("a b c").save(tmp_path / "l.safetensors")
    assert run(["export", "l.safetensors", "-o", "x.npz"]) == 0
    assert (tmp_path / "x.npz").read_bytes()[:2] == b"PK"
    capsys.readouterr()
    assert "which is no .npz" in complaint(capsys, "export", "l.safetensors", "--to", "npz", "-o", "x.csv")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["explain", "a b", "--seed", "-1"], "seed: got -1, expected a whole number, at least 0"),
        (["explain", "a b", "--hidden", "2.5"], "got '2.5', expected a whole number"),
        (["train", "echo:2", "--hidden", "9.99"], "got '9.99', expected a whole number"),
        (["train", "echo:2", "--projection", "0"], "projection: got 0, expected a whole number, at least 1"),
        (["explain", "a b", "--hidden", "10000000"], "not enough memory for that"),
    ],
)
def test_numbers_that_cannot_be_are_refused(argv, message, capsys, tmp_path):
    assert message in complaint(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_explain_takes_b_for_the_layers_bias(capsys):
    assert run(["explain", "a b", "--parameter", "b"]) == 0
    assert "Σ_t db_t" in capsys.readouterr().out


def test_explain_does_not_overwrite(capsys, tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert "a file that is there already" in complaint(capsys, "explain", "a b", "--save", "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_very_long_word_leaves_the_table_whole(capsys):
    assert run(["explain", "a" * 75 + " b c"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("L3 <end>") for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_reader_that_leaves_early_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = bptt_process("explain", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_output_is_one_line():
    with open("/dev/full", "wb") as full:
        done = bptt_process("explain", "--json", stdout=full)
    assert done.returncode == 2
    assert done.stderr == b"bptt: cannot write the output: No space left on device\n"


def test_a_terminal_of_no_width_still_shows_something():
    done = bptt_process("explain", stdout=subprocess.PIPE, env=os.environ | {"COLUMNS": "0"})
    assert done.returncode == 0
    assert b"Forward" in done.stdout


def test_a_refused_folder_stays_as_it_was(capsys, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    line = complaint(capsys, "train", "echo:2", "--out", "mine")
    assert "not empty (notes.txt)" in line
    assert "--resume" not in line  # it is no run
    assert [entry.name for entry in folder.iterdir()] == ["notes.txt"]


@pytest.fixture
def trained(tmp_path, capsys):
    assert run(["train", "echo:2:6:2", "--hidden", "4", "--batch", "2", "--iterations", "4", "--out", "run"]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def test_a_run_without_its_checkpoints_is_not_started_again(capsys, trained):
    for path in (trained / "checkpoints").iterdir():
        path.unlink()
    before = (trained / "metrics.jsonl").read_bytes()
    assert "trained but has no checkpoint" in complaint(capsys, "train", "--resume", "run")
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_a_changed_configuration_is_not_gone_on_with(capsys, trained):
    config = trained / "config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    assert "got another seed in config.json than in the checkpoint" in complaint(capsys, "train", "--resume", "run")


def test_a_foreign_line_in_the_log_is_named(capsys, trained):
    with open(trained / "metrics.jsonl", "a") as log:
        log.write('{"kind": "train"}\n')
    assert "a line without kind or iteration" in complaint(capsys, "show", "run")

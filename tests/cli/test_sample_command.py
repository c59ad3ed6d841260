"""`bptt sample`: text from a trained network, the next values of a series."""

import json

import numpy as np
import pytest

from bptt.cli.main import run
from bptt.train import configure, fit

TEXT = "the cat sat on the mat and the dog sat on the log.\n" * 60


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(path, iterations=150, **options):
    settings = {"hidden": 24, "batch": 4, "steps": 16, "probe_every": 0, "learning_rate": 0.02} | options
    fit(configure(path, iterations=iterations, **settings), folder=path.parent / "run")
    return "run"


@pytest.fixture
def text(place):
    (place / "cats.txt").write_text(TEXT)
    return trained(place / "cats.txt")


def test_a_trained_network_says_the_words_it_learnt(text, capsys):
    assert run(["sample", text, "--length", "200", "--temperature", "0.5"]) == 0
    said = capsys.readouterr().out
    assert len(said) == 201
    assert said.count("the") > 5


def test_without_temperature_there_is_no_chance_and_the_prime_comes_first(text, capsys):
    said = []
    for seed in ("0", "1"):
        assert run(["sample", text, "-n", "30", "--temperature", "0", "--seed", seed, "--prime", "the c"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith("the c")
    assert len(said[0]) == 36


def test_the_seed_decides(text, capsys):
    said = []
    for seed in ("0", "0", "1"):
        assert run(["sample", text, "-n", "50", "--temperature", "2", "--seed", seed, "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out)["text"])
    assert said[0] == said[1] != said[2]


def test_words_are_joined_as_a_reader_expects(place, capsys):
    (place / "cats.txt").write_text(TEXT)
    run_folder = trained(place / "cats.txt", iterations=5, unit="word")
    assert run(["sample", run_folder, "-n", "10", "--prime", "the cat"]) == 0
    assert capsys.readouterr().out.startswith("the cat ")


def test_a_series_goes_on_as_it_was(place, capsys):
    values = 5 + 3 * np.sin(np.arange(600) / 3)
    np.save(place / "wave.npy", values)
    run_folder = trained(place / "wave.npy", iterations=400, dtype="float64")
    assert run(["sample", run_folder, "-n", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(np.ravel(found["rows"]), 5 + 3 * np.sin(np.arange(600, 605) / 3), atol=0.6)
    assert run(["sample", run_folder, "-n", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step,1"
    assert len(lines) == 6


def test_a_task_has_nothing_to_say(place, capsys):
    fit(configure("echo:2:8", hidden=4, iterations=1, probe_every=0), folder=place / "run")
    assert run(["sample", "run"]) == 2
    assert "bptt show run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such folder"),
        (["run", "--length", "-1"], "0 or more"),
        (["run", "--temperature", "nan"], "0 or more"),
        (["run", "--prime", "€"], "vocabulary"),
    ],
)
def test_bad_input_is_one_line_and_code_2(text, capsys, arguments, words):
    assert run(["sample", *arguments]) == 2
    found = capsys.readouterr()
    assert words in found.err
    assert found.err.count("\n") == 1

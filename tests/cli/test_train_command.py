"""`bptt train`: what it prints, what it writes, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bptt.cli.main import run
from bptt.cli.train import THREADS
from bptt.ledger import Ledger

TEXT = "the cat sat on the mat and the dog sat on the log. " * 60
SMALL = ["--hidden", "12", "--batch", "4", "--iterations", "6", "--probe-every", "3"]
TEXTUAL = [*SMALL, "--steps", "8"]
LONG = [word.replace("6", "1000000") for word in TEXTUAL]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (*THREADS, "BPTT_THREADS"):  # the command sets them; the fixture puts them back
        monkeypatch.setenv(name, "1")
    (tmp_path / "cats.txt").write_text(TEXT)
    rows = "\n".join(f"{n},{np.sin(n / 3):.5f}" for n in range(400))
    (tmp_path / "wave.csv").write_text(f"day,height\n{rows}\n")
    return tmp_path


def test_a_text_is_trained_and_the_end_says_what_it_came_to(place, capsys):
    assert run(["train", "cats.txt", *TEXTUAL]) == 0
    said = capsys.readouterr().out
    for words in (
        "cats.txt: 3,060 characters, 14 different", "LSTM, D=14, H=12", "runs/cats-1", "nats per character", "bits",
        "unigram entropy", "hold, within 1 %, the gradient of layer0.W_hh", "passed: relative error",
        "bptt show runs/cats-1", "bptt sample runs/cats-1", "bptt train --resume runs/cats-1",
    ):  # fmt: skip
        assert words in " ".join(said.split()), words
    assert (place / "runs" / "cats-1" / "config.json").exists()
    assert "\x1b" not in said  # no colour where it is no terminal


def test_every_run_gets_the_next_free_folder(place, capsys):
    for _ in range(2):
        assert run(["train", "cats.txt", *TEXTUAL]) == 0
    assert sorted(path.name for path in (place / "runs").iterdir()) == ["cats-1", "cats-2"]


def test_without_an_argument_it_learns_the_english_that_python_ships(place, capsys):
    assert run(["train", "--hidden", "4", "--iterations", "1", "--probe-every", "0", "--validation", "0.01"]) == 0
    assert "python-help" in capsys.readouterr().out
    assert (place / "runs" / "text-1").exists()


def test_the_default_network_is_far_below_the_unigram_entropy_after_a_twelfth_of_its_time(place):
    code = "from bptt.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "--iterations", "250", "--probe-every", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, check=True)
    summary = json.loads(done.stdout)
    assert summary["validation_loss"] < 2.2 < 3.2 < summary["baselines"]["unigram entropy"]


def test_a_series_and_a_task_say_what_guessing_costs(capsys):
    assert run(["train", "wave.csv", "--columns", "height", *TEXTUAL]) == 0
    series = capsys.readouterr().out
    assert "variance" in series
    assert "same as the step before" in series
    assert run(["train", "echo:2:10", *SMALL, "--bidirectional"]) == 0
    task = capsys.readouterr().out
    assert "accuracy" in task
    assert "a guess without input" in task
    assert "bptt sample" not in task


def test_json_is_one_object_and_nothing_else(capsys):
    assert run(["train", "cats.txt", *TEXTUAL, "--json"]) == 0
    found = capsys.readouterr()
    summary = json.loads(found.out)
    assert found.err == ""
    assert summary["iteration"] == 6
    assert summary["finished"] is True
    assert summary["gradient_check_passed"] is True
    assert summary["bits_per_unit"] == pytest.approx(summary["validation_loss"] / np.log(2))
    assert 1 <= summary["horizon"]["layer0.W_hh"] <= 8


def test_resume_alone_goes_on_and_may_go_further(capsys):
    assert run(["train", "cats.txt", *TEXTUAL, "--out", "r", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(["train", "--resume", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert run(["train", "--resume", "r", "--iterations", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["iteration"] == 9


def test_options_reach_the_configuration(place, capsys):
    options = [
        "--cell", "rnn", "--nonlinearity", "relu", "--init", "identity", "--optimizer", "sgd", "--lr", "0.01",
        "--momentum", "0.5", "--clip-value", "0.1", "--plan", "windowed:4", "--unit", "word", "--dtype", "float64",
        "--seed", "3", "--layers", "2", "--sample-every", "0",
    ]  # fmt: skip
    assert run(["train", "cats.txt", *TEXTUAL, "--out", "r", *options]) == 0
    config = json.loads((place / "r" / "config.json").read_text())
    expected = {
        "cell": "rnn", "options": {"nonlinearity": "relu"}, "init": "identity", "optimiser": "sgd", "momentum": 0.5,
        "learning_rate": 0.01, "clip_norm": 0, "clip_value": 0.1, "plan": "windowed:4", "unit": "word",
        "dtype": "float64", "seed": 3, "layers": 2, "sample_every": 0, "data": str(place / "cats.txt"),
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize(("asked", "noted"), [([], "compiled"), (["--engine", "reference"], "reference")])
def test_a_run_notes_the_engine_that_it_was_trained_with(place, asked, noted):
    assert run(["train", "cats.txt", *TEXTUAL, "--out", "r", *asked, "--threads", "2"]) == 0
    assert json.loads((place / "r" / "config.json").read_text())["engine"] == noted
    ledger = Ledger.load(place / "r" / "ledgers" / "iteration-000003.safetensors")
    assert ledger.meta["engine"] == noted
    assert os.environ["BPTT_THREADS"] == "2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ading:100"], "Did you mean 'adding'"),
        (["nowhere.txt"], "no such file"),
        (["nowhere.csv"], "no such file"),
        (["cats.txt", "--cell", "ltsm"], "Did you mean 'lstm'"),
        (["cats.txt", "--bidirectional"], "targets that it can look at"),
        (["cats.txt", "--batch", "0"], "at least 1"),
        (["cats.txt", "--batch", "4000"], "Use a longer text"),
        (["cats.txt", "--plan", "chunked"], "chunked:20"),
        (["cats.txt", "--lr", "-1"], "learning rate"),
        (["cats.txt", "--optimiser", "adm"], "Did you mean 'adam'"),
        (["cats.txt", "--peepholes", "--cell", "gru"], "option of gru"),
        (["cats.txt", "--threads", "0"], "threads"),
        (["cats.txt", "--engine", "fast"], "engine"),
        (["cats.txt", "--columns", "a"], "columns: got a text, expected a series"),
        (["adding:20", "--steps", "10"], "expected 20, those of adding:20"),
        (["adding:20", "--unit", "word"], "unit: got a task, expected a text"),
        (["short.csv", "--validation", "0.4", "--steps", "1", "--batch", "9"], "sequence: got 3 rows"),
        (["--resume", "nowhere"], "no such folder"),
        (["cats.txt", "--resume", "nowhere"], "data too"),
        (["--resume", "nowhere", "--cell", "gru"], "--cell too"),
        (["cats.txt", "--hidden", "many"], "hidden"),
        (["cats.txt", "--out", "cats.txt"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_code_2(place, capsys, arguments, words):
    (place / "short.csv").write_text("1\n2\n3\n4\n5\n")
    assert run(["train", *arguments]) == 2
    found = capsys.readouterr()
    assert words in found.err
    assert found.err.count("\n") == 1
    assert not (place / "runs").exists()


def test_a_folder_that_is_not_empty_says_how_to_go_on(place, capsys):
    assert run(["train", "cats.txt", *TEXTUAL, "--out", "r"]) == 0
    capsys.readouterr()
    assert run(["train", "cats.txt", *TEXTUAL, "--out", "r"]) == 2
    assert "--resume r" in capsys.readouterr().err


def test_ctrl_c_ends_with_code_130_and_says_how_to_go_on(place):
    code = "from bptt.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "cats.txt", *LONG, "--out", "r"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place)
    end = time.monotonic() + 30
    while not (place / "r" / "ledgers" / "iteration-000003.safetensors").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Go on with: bptt train --resume r" in out
    assert err == ""


def test_a_narrow_terminal_gets_the_same_words(place, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    assert run(["train", "cats.txt", *TEXTUAL]) == 0
    said = capsys.readouterr().out
    assert "bptt train --resume" in said
    assert "validation" in said


def test_a_terminal_gets_a_bar_and_no_color_is_respected(place):
    code = "from bptt.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "cats.txt", *TEXTUAL]
    env = os.environ | {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    coloured = subprocess.run(command, capture_output=True, text=True, cwd=place, env=env, check=True).stdout
    assert "left" in coloured
    assert "\x1b[1m" in coloured
    plain = subprocess.run(command, capture_output=True, text=True, cwd=place, env=env | {"NO_COLOR": "1"}, check=True)
    assert not any(f"\x1b[{code}m" in plain.stdout for code in range(30, 48))


def test_help_shows_an_example(capsys):
    assert run(["train", "--help"]) == 0
    assert "bptt train adding:100" in capsys.readouterr().out

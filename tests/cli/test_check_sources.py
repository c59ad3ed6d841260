"""`bptt check` of our own runs, checkpoints and ledgers, its verdicts and exit codes, and of what is ill."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt.cli.main import run
from bptt.cli.output import Busy
from bptt.cli.subject import examined
from bptt.errors import BpttError
from bptt.train import configure, fit
from bptt.train.folder import RunFolder
from bptt.train.saved import Checkpoint
from bptt.train.trial import Trials

TEXT = "the cat sat on the mat and the dog sat on the log. " * 60
CHECKPOINT = "task/checkpoints/iteration-000004.safetensors"
LEDGER = "task/ledgers/iteration-000004.safetensors"
MODELS = """
import torch
from torch import nn

def base():
    torch.manual_seed(0)
    return nn.GRU(3, 4), torch.randn(12, 2, 3)

def each(out):
    return out[0].square().mean((1, 2))

def nan():
    model, x = base()
    x[5, 1, 0] = float("nan")
    return model, x, each

def nan_without_losses():
    return nan()[:2]

def masked():
    return *base(), lambda out: 0 * each(out)

def beyond():
    return *base(), lambda out: 1e38 * 1e3 * each(out)

def one_step():
    model, x = base()
    return model, x[:1], each

def constant():
    return base()[0], torch.ones(12, 2, 3), each
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "cats.txt").write_text(TEXT)
    np.save(folder / "flat.npy", np.ones(300))
    np.save(folder / "wave.npy", np.sin(np.arange(300) / 3))
    few = {"hidden": 4, "batch": 3, "iterations": 4, "probe_every": 2, "sample_every": 0}
    fit(configure("adding:12", cell="rnn", **few), folder=folder / "task")
    fit(configure(folder / "cats.txt", steps=8, **few), folder=folder / "text")
    fit(configure(folder / "flat.npy", steps=6, **few), folder=folder / "flat")
    fit(configure(folder / "wave.npy", steps=1, **few), folder=folder / "single")
    fit(configure("echo:2:8:2", cell="gru", layers=2, bidirectional=True, **few), folder=folder / "both")
    fit(configure("adding:12", **few | {"iterations": 0, "probe_every": 0}), folder=folder / "new")
    checkpoint = Checkpoint.load(folder / CHECKPOINT)
    for name, factor in (("huge", 1e30), ("nothing", 0.0), ("broken", math.nan)):
        params = {key: (value * np.float32(factor)) for key, value in checkpoint.network.params.items()}
        checkpoint.network.params.update(params)
        checkpoint.save(folder / f"{name}.safetensors")
        checkpoint = Checkpoint.load(folder / CHECKPOINT)
    return folder


@pytest.fixture(autouse=True)
def _here(made, monkeypatch):
    monkeypatch.chdir(made)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("bptt.train.examination.STEPS", 40)  # of a stream: fewer, for speed


def document(capsys, *argv, code=0):
    assert run(["check", *argv, "--json"]) == code

    def refuse(word):
        raise AssertionError(f"{word} in JSON")

    return json.loads(capsys.readouterr().out, parse_constant=refuse)


def complaint(capsys, *argv):
    assert run(["check", *argv]) == 2
    streams = capsys.readouterr()
    assert streams.err.count("\n") == 1
    assert streams.out == ""
    return streams.err


# ---- sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["task", CHECKPOINT, "text", "both", "new"])
def test_a_run_or_a_checkpoint_is_examined(source, capsys):
    assert run(["check", source, "--fail-on", "never"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{source}  ")
    assert re.search(r"W_hh reaches back \d+ steps? ", said)
    for part in ("the model uses", "largest exponent", "1  Parameters", f"Again: bptt check {source}"):
        assert part in said
    assert "\x1b" not in said


def test_the_document_is_the_diagnosis_with_the_ledger_as_show_has_it(capsys):
    found = document(capsys, "task", "--seed", "3")
    assert {"source", "facts", "findings", "truncation", "context", "history", "notes", "plan"} <= set(found)
    assert found["source"] == "task"
    assert found["facts"]["command"] == "bptt check task --seed 3"
    assert (found["probe"], found["left_out"], found["note"]) == (None, [], None)
    ledger, W = found["ledger"], "layer0.W_hh"
    assert found["uses"] == dict.fromkeys(ledger["parameters"], 12)
    assert ledger["meta"]["T"] == 12
    network, again = Checkpoint.load(CHECKPOINT).network, examined("task", seed=3)
    assert again.facts["network"] == network.describe()
    assert found["gradient_norms"][W] == pytest.approx(np.linalg.norm(again.ledger.gradients[W]), rel=1e-6)
    assert ledger["horizon"][W] == again.truncation[W][0].horizon().steps
    assert found["history"]["train"] == again.history.train.tolist()


def test_a_ledger_keeps_what_it_says_and_show_opens_what_check_saves(capsys, tmp_path):
    found = document(capsys, LEDGER)
    assert found["ledger"]["meta"]["iteration"] == found["facts"]["iteration"] == 4
    assert found["ledger"]["horizon"] == bptt.Ledger.load(LEDGER).meta["horizon"]
    saved = str(tmp_path / "l.safetensors")
    assert run(["check", "task", "--save", saved]) == 0
    assert f"bptt show {saved}" in " ".join(capsys.readouterr().out.split())
    assert run(["show", saved]) == 0
    capsys.readouterr()
    assert document(capsys, saved)["ledger"]["horizon"] == document(capsys, "task")["ledger"]["horizon"]


def test_torch_is_neither_needed_nor_imported_for_what_is_ours(made):
    code = (
        "import sys; sys.modules['torch'] = None\nfrom bptt.cli.main import run\n"
        f"codes = [run(['check', name]) for name in ('task', {CHECKPOINT!r}, {LEDGER!r}, 'nothing at all')]\n"
        "assert codes == [0, 0, 0, 2], codes\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "what to check: got 'nothing at all', expected a run folder" in done.stderr


def test_a_run_that_trains_can_be_examined(capsys):
    with RunFolder("task", resume=True):
        assert run(["check", "task"]) == 0


# ---- verdicts and exit codes -----------------------------------------------------------------------------------------


def test_the_exit_code_goes_by_the_gravest_finding_that_is_shown(capsys):
    """`single` walks back one step of a carried stream at a time, which is BP105, an error."""
    assert document(capsys, "single", code=1)["findings"][0]["code"] == "BP105"
    document(capsys, "single", "--fail-on", "never")
    document(capsys, "single", "--ignore", "BP105")
    selected = {one["code"] for one in document(capsys, "single", "--select", "BP1", code=1)["findings"]}
    assert "BP105" in selected
    assert all(code.startswith("BP1") for code in selected)
    assert document(capsys, "flat", "--select", "BP204")["findings"][0]["severity"] == "note"
    document(capsys, "flat", "--select", "BP204", "--fail-on", "warning")
    document(capsys, "flat", "--select", "BP204", "--fail-on", "note", code=1)


def test_a_threshold_decides(capsys):
    codes = [one["code"] for one in document(capsys, "text", "--select", "BP104")["findings"]]
    assert codes == ["BP104"]
    assert document(capsys, "text", "--select", "BP104", "--threshold", "BP104.bias=0.99")["findings"] == []
    two = ["--threshold", "BP104.bias=0.99", "--threshold", "BP101.share=0.5"]
    assert document(capsys, "text", *two)["facts"]["command"].endswith(
        "--threshold BP104.bias=0.99 --threshold BP101.share=0.5"
    )


def test_explain_says_what_a_verdict_means_without_a_source(capsys):
    assert run(["check", "--explain", "bp101"]) == 0
    said = capsys.readouterr().out
    assert "! BP101 vanishing  warning" in said
    assert "BP101.share=" in said
    assert run(["check", "--explain", "chaotic"]) == 0
    assert "BP103" in capsys.readouterr().out
    assert run(["check", "--explain", "BP10", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["rules"]
    assert [(rule["code"], rule["name"]) for rule in told][:2] == [("BP101", "vanishing"), ("BP102", "exploding")]
    assert told[0]["thresholds"]["share"] == 0.25
    assert "got 'BP9', expected one of BP101" in complaint(capsys, "--explain", "BP9")


WRONG = [
    (
        ["nothing"],
        "what to check: got 'nothing', expected a run folder, a checkpoint or ledger of bptt, module:factory",
    ),
    (["task/ledgers"], "task/ledgers: got no run (no config.json), expected the folder of a run"),
    (["cats.txt"], "what to check: got 'cats.txt'"),
    (["task", "--kind", "gru"], "--kind: got it beside task, expected it beside a file of weights only"),
    ([LEDGER, "--engine", "auto"], "--engine: got it beside"),
    (["task", "--engine", "torch"], "--engine: got 'torch', expected one of auto, reference, compiled"),
    (["task", "--fail-on", "eror"], "--fail-on: got 'eror', expected one of error, warning, note, never. Did you mean"),
    (["task", "--select", "BP9"], "select: got 'BP9'"),
    (["task", "--threshold", "BP101.share"], "--threshold: got 'BP101.share', expected NAME=NUMBER"),
    (["task", "--threshold", "BP101.share=nan"], "--threshold: got 'BP101.share=nan', expected NAME=NUMBER"),
    (["task", "--threshold", "BP101.shre=1"], "Did you mean 'BP101.share'?"),
    (["task", "--parameter", "W_xx"], "parameter: got 'W_xx'"),
    (["task", "--samples", "2.5"], "got '2.5', expected a whole number"),
    (["task", "--iterations", "5"], "--iterations: got it without --try. Add --try."),
    (["task", "--try", "--iterations", "0"], "--iterations: got 0, expected at least 1"),
    ([LEDGER, "--try"], "--try: got '" + LEDGER + "', expected a run or a checkpoint of bptt, which can be trained"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_what_cannot_be_is_one_line(argv, message, capsys):
    assert message in complaint(capsys, *argv)


# ---- what a project says ---------------------------------------------------------------------------------------------


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A folder in a folder with a pyproject.toml, to be filled in."""
    shutil.copytree(made / "single", tmp_path / "a" / "single")
    monkeypatch.chdir(tmp_path / "a")

    def write(text):
        (tmp_path / "pyproject.toml").write_text(text)

    return write


def test_a_project_decides_and_the_command_line_wins(project, capsys):
    project('[tool.bptt.check]\nfail-on = "never"\nselect = ["BP105"]\n')
    found = document(capsys, "single")
    assert [one["code"] for one in found["findings"]] == ["BP105"]
    document(capsys, "single", "--fail-on", "error", code=1)
    assert {one["code"] for one in document(capsys, "single", "--select", "BP204")["findings"]} <= {"BP204"}
    project('[tool.bptt.check]\nignore = ["BP1"]\n[tool.bptt.check.thresholds]\n"BP204.error" = 0.5\n')
    assert all(not one["code"].startswith("BP1") for one in document(capsys, "single")["findings"])
    project("[project]\nname = 'x'\n")
    document(capsys, "single", code=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.bptt.check]\nselct = []", "got 'selct', expected one of select, ignore, fail-on, thresholds. Did you"),
        ("[tool.bptt.check]\nselect = 'BP1'", "select of [tool.bptt.check]"),
        ("[tool.bptt.check]\nfail-on = 'all'", "fail-on of [tool.bptt.check]"),
        ("[tool.bptt.check]\nthresholds = 3", "got 3, expected a table of numbers"),
        ("[tool.bptt.check]\nthresholds = {a = true}", "expected a table of numbers"),
        ("[tool.bptt.check]\nthresholds = {a = nan}", "expected a table of numbers"),
        ("[tool.bptt.check]\nthresholds = {nothing = 1}", "threshold: got 'nothing'"),
        ("[tool.bptt.check", "got no TOML"),
        ("tool = 3", "expected a table"),
    ],
)
def test_a_project_that_is_mistaken_is_told_in_one_line(text, message, project, capsys):
    project(text)
    assert message in complaint(capsys, "single")


# ---- remedies --------------------------------------------------------------------------------------------------------


def test_remedies_are_tried_on_the_runs_own_configuration(monkeypatch, capsys):
    asked = []

    def stand_in(config, diagnosis, *, iterations=None, remedies=None, progress=None):
        asked.append((config, diagnosis.source, iterations))
        return Trials(None, [], 0, 0.0)

    monkeypatch.setattr("bptt.train.trial.try_remedies", stand_in)
    assert run(["check", "task", "--try", "--iterations", "7"]) == 0
    assert "none was tried" in capsys.readouterr().out
    assert document(capsys, CHECKPOINT, "--try")["trials"]["rows"] == []
    config = Checkpoint.load(CHECKPOINT).config
    assert asked == [(config, "task", 7), (config, CHECKPOINT, None)]


def test_a_small_trial_from_end_to_end(capsys):
    assert run(["check", "task", "--select", "BP101", "--threshold", "BP101.share=1", "--threshold", "BP101.steps=2",
                "--threshold", "BP101.left=0.9", "--try", "--iterations", "3"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "BP101 vanishing" in said
    assert "unchanged" in said
    assert "3 iterations each" in said
    assert "Add --try" not in said


# ---- what is ill -----------------------------------------------------------------------------------------------------

ILL = {
    "nan": ("BP501", "step 6"), "nan_without_losses": ("BP501", "step 6"), "beyond": ("BP501", ""),
    "masked": ("BP204", "exactly 0: it reaches nowhere"), "one_step": (None, "There is a single step"),
    "constant": (None, "reaches back"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILL)
def test_a_factory_that_is_ill_gets_a_verdict_and_no_nan(name, capsys):
    Path("ill_models.py").write_text(MODELS)
    code, part = ILL[name]
    found = document(capsys, f"ill_models.py:{name}", "--fail-on", "never")
    codes = [one["code"] for one in found["findings"]]
    assert (code in codes) if code else "BP501" not in codes
    assert run(["check", f"ill_models.py:{name}"]) == (1 if code == "BP501" else 0)
    said = " ".join(capsys.readouterr().out.replace(name, "").split())
    assert part in said
    assert not re.search(r"\bnan\b", said)


@pytest.mark.parametrize(
    ("source", "code", "part"),
    [
        ("huge.safetensors", None, None), ("broken.safetensors", "BP501", "cannot be said"),
        ("nothing.safetensors", None, "exactly 0: it reaches nowhere"),
        ("flat", "BP204", "exactly 0: it reaches nowhere"),
        ("single", "BP105", "cut at every step"),
    ],
)  # fmt: skip
def test_a_network_that_is_ill_gets_a_verdict_and_no_nan_where_numbers_stand(source, code, part, capsys):
    found = document(capsys, source, "--fail-on", "never")
    codes = [one["code"] for one in found["findings"]]
    assert code is None or code in codes
    assert run(["check", source, "--fail-on", "never"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert part is None or part in said
    tables = said.partition("loss J")[2]
    assert not re.search(r"\bnan\b|\binf\b", tables)


def test_a_run_whose_data_is_gone_is_examined_by_its_ledger(made, tmp_path, capsys):
    shutil.copytree("text", tmp_path / "text")
    for path in (tmp_path / "text" / "checkpoints").iterdir():
        checkpoint = Checkpoint.load(path)
        checkpoint.config = checkpoint.config.replace(data=str(tmp_path / "gone.txt"))
        checkpoint.save(path)
    assert run(["check", str(tmp_path / "text"), "--fail-on", "never"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the newest ledger was examined and not the network" in said
    assert re.search(r"layer0\.W_hh reaches back \d+ steps? of 8", said)
    assert "no such file" in complaint(capsys, str(tmp_path / "text"), "--try")
    shutil.rmtree(tmp_path / "text" / "ledgers")
    assert "is gone or changed, and no ledger" in complaint(capsys, str(tmp_path / "text"))


def test_examined_refuses_what_is_none_of_these(tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 20)
    for source in ("nothing", "cats.txt", str(tmp_path)):
        with pytest.raises(BpttError):
            examined(source)


# ---- a sign of life --------------------------------------------------------------------------------------------------


def test_only_what_takes_long_at_a_terminal_shows_its_name(monkeypatch, capsys):
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda self: True))
    monkeypatch.setattr(Busy, "AFTER", 60.0)
    with Busy("first") as busy:
        busy("second")
    assert "second" not in capsys.readouterr().err
    with Busy("first") as busy:
        busy("second")
        busy._show()
        busy("third")
    said = capsys.readouterr().err
    assert "first: third" in said


def test_of_a_parameter_whose_reach_is_not_measured_that_of_its_recurrent_weight_is_said(capsys):
    for name in ("readout.W", "layer0.b", "layer0.W_hh"):
        assert run(["check", "task", "--parameter", name]) == 0
        said = capsys.readouterr().out
        assert "layer0.W_hh reaches back" in said
        assert f"uses of {name}" in said

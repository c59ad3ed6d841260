"""`bptt check`: somebody's model from a factory, or a file of weights, as a user runs it."""

import json
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bptt
from bptt.cli.main import run

FACTORY = '''
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

class Gated(nn.Module):
    """A minimal gated unit."""

    def __init__(self):
        super().__init__()
        self.gate, self.candidate, self.out = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(3, 2)

    def step(self, x, h):
        f = torch.sigmoid(self.gate(torch.cat([x, h], 1)))
        return (1 - f) * h + f * torch.tanh(self.candidate(torch.cat([x, f * h], 1)))

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 3), []
        for row in x:
            h = self.step(row, h)
            outs.append(self.out(h))
        return torch.stack(outs)

def each(out):
    return out.square().mean((1, 2))

def plain():
    torch.manual_seed(0)
    return Gated().double(), torch.randn(12, 4, 2, dtype=torch.float64)

def make():
    return *plain(), each

def one():
    return *plain(), lambda out: each(out).sum()

def three():
    return *plain(), lambda out: each(out).reshape(3, 4).sum(1)

def long():
    return plain()[0], torch.randn(130, 1, 2, dtype=torch.float64), each

def stepped():
    model, x = plain()
    return {"model": model, "batch": x, "step": lambda model, x: each(model(x)).sum().backward()}

def lstm():
    torch.manual_seed(0)
    return nn.LSTM(2, 3), torch.randn(7, 4, 2)

def model_only():
    return plain()[0]

def broken():
    return plain()[0], torch.ones(3)

def raising():
    def losses(out):
        raise KeyError("target")
    return *plain(), losses

def cut():
    return *plain(), lambda out: each(out.detach())

def table():
    return *plain(), lambda out: out

class Loop(Gated):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=True)  # torch lets nobody ask for single gradients there

def stubborn():
    torch.manual_seed(0)
    return Loop().double(), torch.randn(12, 4, 2, dtype=torch.float64).requires_grad_(), each

def feedforward():
    return nn.Linear(2, 2), torch.ones(3, 2)
'''


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "110")
    (tmp_path / "made_here.py").write_text(FACTORY)


def factory(name):
    return f"made_here.py:{name}"


def document(capsys, *argv):
    assert run(["check", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def made(name="make"):
    from bptt.trace.torch.factory import load

    return load(factory(name))


def windowed(model, x, losses, K):
    """The gradient of the candidate's weight where every loss reaches its own step and the K − 1 before it."""
    states = [x.new_zeros(x.shape[1], 3)]
    with torch.no_grad():
        for row in x:
            states.append(model.step(row, states[-1]))
    model.zero_grad()
    for k in range(len(x)):
        first = max(0, k - K + 1)
        h = states[first]
        for row in x[first : k + 1]:
            h = model.step(row, h)
        losses(model.out(h)[None]).sum().backward()
    return model.candidate.weight.grad.clone()


def test_the_horizon_is_where_a_window_of_so_many_steps_has_the_gradient(tmp_path, capsys):
    found = document(capsys, factory("make"))["ledger"]
    given = made()
    full = windowed(given.model, given.batch, given.losses, 12)
    cut = {K: windowed(given.model, given.batch, given.losses, K) for K in range(1, 13)}
    bias = {K: float((dW - full).norm() / full.norm()) for K, dW in cut.items()}
    reach = found["horizon"]["candidate.weight"]
    assert 1 < reach < 12
    assert max(bias[K] for K in range(reach, 13)) <= 0.01 < bias[reach - 1]
    assert found["horizon"]["out.weight"] == 1


def test_uses_norms_and_the_map_are_those_of_untied_copies(tmp_path, capsys):
    found = document(capsys, factory("make"))
    given = made()
    model, x = given.model, given.batch
    copies = [nn.Parameter(model.candidate.weight.detach().clone()) for _ in x]
    h, outs = x.new_zeros(4, 3), []
    for row, W in zip(x, copies, strict=True):
        f = torch.sigmoid(model.gate(torch.cat([row, h], 1)))
        h = (1 - f) * h + f * torch.tanh(torch.cat([row, f * h], 1) @ W.T + model.candidate.bias)
        outs.append(model.out(h))
    losses = given.losses(torch.stack(outs))
    rows = [torch.autograd.grad(L, copies, retain_graph=True, allow_unused=True) for L in losses]
    table = [[0.0 if g is None else float(g.norm()) for g in row] for row in rows]
    whole = torch.stack(torch.autograd.grad(losses.sum(), copies))
    ours = found["ledger"]["parameters"]["candidate.weight"]
    np.testing.assert_allclose(ours["map"], table, atol=1e-15, rtol=1e-10)
    np.testing.assert_allclose(ours["norms"], whole.flatten(1).norm(dim=1).numpy(), rtol=1e-10)
    assert found["gradient_norms"]["candidate.weight"] == pytest.approx(float(whole.sum(0).norm()), rel=1e-12)
    assert ours["coherence"] == pytest.approx(
        float(whole.sum(0).norm() / whole.flatten(1).norm(dim=1).sum()), rel=1e-12
    )
    assert found["uses"] == dict.fromkeys(found["uses"], 12)


def test_the_report_says_how_far_back_in_words(tmp_path, capsys):
    assert run(["check", factory("make"), "--parameter", "candidate.weight"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"candidate\.weight reaches back \d+ steps of 12: ", text)
    assert "‖C[k,t]‖ of candidate.weight" in text
    assert "\x1b" not in text
    assert "over 12 steps\n" in re.sub(" +\n", "\n", text)


def test_without_losses_it_is_a_probe_and_says_so(tmp_path, capsys):
    assert run(["check", factory("lstm")]) == 0
    text = capsys.readouterr().out
    assert "a probe, since the factory gave no losses" in " ".join(text.split())
    assert "weight_hh_l0 reaches back" in text
    assert "gain per step" in text


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("one", "No map and no horizon: one loss."),
        ("three", "No map: 3 losses and 12 uses. Add --map"),
        ("long", "No map: 130 steps are many. Add --map"),
        ("stepped", "No map: the factory gives a whole step."),
    ],
)
def test_where_there_is_no_map_it_says_why(name, note, tmp_path, capsys):
    assert run(["check", factory(name)]) == 0
    text = capsys.readouterr().out
    assert note in text
    assert "Map" not in text
    assert "candidate.weight" in text


def test_map_and_no_map_decide(tmp_path, capsys):
    assert np.shape(document(capsys, factory("three"), "--map")["ledger"]["parameters"]["gate.bias"]["map"]) == (
        3,
        12,
    )
    assert "map" not in document(capsys, factory("make"), "--no-map")["ledger"]["parameters"]["gate.bias"]
    assert len(document(capsys, factory("long"), "--map")["ledger"]["parameters"]["gate.bias"]["map"]) == 130


def test_a_whole_step_has_the_same_gradients_as_its_losses(tmp_path, capsys):
    by_step, by_losses = (document(capsys, factory(name)) for name in ("stepped", "make"))
    assert by_step["gradient_norms"] == pytest.approx(by_losses["gradient_norms"], rel=1e-12)


def test_show_opens_what_check_saves_with_the_same_reach(tmp_path, capsys):
    found = document(capsys, factory("make"), "--save", "l.safetensors", "--plot", "p.svg")
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    assert bptt.Ledger.load("l.safetensors").meta["horizon"] == found["ledger"]["horizon"]
    assert run(["show", "l.safetensors", "--parameter", "gate.weight"]) == 0
    shown = capsys.readouterr().out
    assert run(["check", "l.safetensors", "--parameter", "gate.weight"]) == 0
    tables = shown.split("\n", 2)[2]  # below the name: check says in its own lines what was found
    assert tables.startswith("loss J")
    assert tables in capsys.readouterr().out
    assert "uses of gate.weight" in shown


def test_where_torch_cannot_walk_back_losses_by_themselves_there_is_no_map_but_a_ledger(capsys):
    found = document(capsys, factory("stubborn"))
    assert found["note"].startswith("no map: a checkpoint with reentry builds its graph on the way back only.")
    given = made("stubborn")
    given.losses(given.model(given.batch)).sum().backward()
    norms = {name: float(p.grad.norm()) for name, p in given.model.named_parameters()}
    assert found["gradient_norms"] == pytest.approx(norms, rel=1e-12)
    assert found["ledger"]["residual"] < 1e-12
    assert run(["check", factory("stubborn"), "--map"]) == 2
    said = capsys.readouterr().err
    assert "each loss on its own: got a checkpoint with reentry" in said
    assert "Say use_reentrant=False." in said


def test_the_factory_of_the_docs_can_be_checked(tmp_path, capsys):
    page = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text(encoding="utf-8")
    source = re.search(r"```python\n(# train.py\n.*?)```", page, re.S)[1]
    (tmp_path / "train_of_docs.py").write_text(source)
    found = document(capsys, "train_of_docs.py:make")
    assert 1 < found["ledger"]["horizon"]["1.weight_hh_l0"] < 40
    assert found["uses"]["1.weight_hh_l0"] == 40


# ---- weights ---------------------------------------------------------------------------------------------------------


class Text(nn.Module):
    """An embedding, a recurrent layer, a readout: as people save them."""

    def __init__(self, kind, **options):
        super().__init__()
        self.embedding, self.core = nn.Embedding(11, 3), kind(3, 4, **options)
        self.head = nn.Linear((options.get("proj_size") or 4) * (1 + options.get("bidirectional", False)), 5)


KINDS = [
    (nn.RNN, {}), (nn.GRU, {"num_layers": 2}), (nn.LSTM, {"bidirectional": True}), (nn.LSTM, {"proj_size": 2}),
    (nn.GRU, {"bias": False}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[f"{k.__name__} {o}" for k, o in KINDS])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_weights_has_the_gradients_of_its_model(kind, options, wrapped, tmp_path, capsys):
    torch.manual_seed(0)
    model = Text(kind, **options).double()
    state = model.state_dict()
    if wrapped:
        torch.save({"epoch": 3, "model_state_dict": state}, "w.pt")
    else:
        save_file(state, "w.safetensors")
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    np.save("x.npy", x.numpy())
    found = document(capsys, "w.pt" if wrapped else "w.safetensors", "--data", "x.npy")
    targets = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0))
    (model.head(model.core(x)[0]) - targets).square().mean().backward()
    plain = {f"layer.{n}": float(p.grad.norm()) for n, p in model.core.named_parameters()}
    plain |= {f"readout.{n}": float(p.grad.norm()) for n, p in model.head.named_parameters()}
    traced = {name: norm for name, norm in found["gradient_norms"].items() if name.startswith("layer.")}
    assert traced == pytest.approx({name: plain[name] for name in traced}, rel=1e-10)
    assert set(traced) == {name for name in plain if name.startswith("layer.")}
    assert found["left_out"] == ["embedding.weight"]
    assert "inputs of x.npy" in found["probe"]


def test_without_data_the_probe_is_100_steps_of_16_sequences_and_always_the_same(capsys):
    save_file(Text(nn.GRU).state_dict(), "w.safetensors")
    first, second = (document(capsys, "w.safetensors") for _ in range(2))
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert set(first["uses"].values()) >= {100}
    assert first["ledger"]["meta"]["B"] == 16
    assert first["probe"].startswith("standard normal inputs")
    assert first["probe"].endswith("a probe, not real data")


def test_a_cell_is_read_as_a_layer_and_one_of_several_layers_can_be_chosen(capsys):
    cell = nn.LSTMCell(3, 4)
    save_file({f"a.{n}": p.clone() for n, p in cell.state_dict().items()}
              | {f"b.{n}": p.clone() for n, p in nn.GRU(3, 4).state_dict().items()}, "w.safetensors")  # fmt: skip
    assert run(["check", "w.safetensors"]) == 2
    assert "recurrent layers 'a', 'b', expected one. Choose it with --layer." in capsys.readouterr().err
    assert document(capsys, "w.safetensors", "--layer", "a")["ledger"]["meta"]["network"].startswith(
        "Recurrent (LSTM 3→4)"
    )
    assert document(capsys, "w.safetensors", "--layer", "b")["ledger"]["meta"]["network"].startswith(
        "Recurrent (GRU 3→4)"
    )


def test_half_precision_is_checked_in_float32(capsys):
    torch.manual_seed(0)
    model = nn.GRU(3, 4).bfloat16()
    save_file(model.state_dict(), "half.safetensors")
    save_file(model.float().state_dict(), "single.safetensors")
    half, single = (document(capsys, f"{name}.safetensors") for name in ("half", "single"))
    assert half["ledger"]["meta"]["dtype"] == "float32"
    assert half["gradient_norms"] == single["gradient_norms"]


def test_relu_does_not_stand_in_a_state_dict_and_is_said(capsys):
    torch.manual_seed(0)
    save_file(nn.RNN(3, 4).state_dict(), "w.safetensors")
    tanh, relu = (document(capsys, "w.safetensors", *more)["ledger"]["loss"] for more in ((), ("--kind", "rnn-relu")))
    assert tanh != relu


class Trap:
    """What would run if a file were unpickled."""

    def __reduce__(self):
        return (exec, ("open('trapped', 'w').close()",))


def write_files():
    save_file({"weight_ih_l0": torch.ones(7, 3), "weight_hh_l0": torch.ones(7, 3)}, "rows.safetensors")
    save_file({"weight_ih_l0": torch.ones(8, 3), "weight_hh_l0": torch.ones(12, 4)}, "two.safetensors")
    save_file({"weight_ih_l0": torch.ones(4, 3), "weight_hh_l0": torch.full((4, 4), torch.nan)}, "nan.safetensors")
    save_file({"weight_ih_l0": torch.ones(4, 3).int(), "weight_hh_l0": torch.ones(4, 4)}, "int.safetensors")
    save_file({"fc.weight": torch.ones(4, 3)}, "fc.safetensors")
    save_file(nn.GRU(3, 4, 2, bias=False).state_dict(), "gru.safetensors")
    odd = nn.GRU(3, 4, 2).state_dict()
    del odd["weight_hh_l1"]
    save_file(odd, "missing.safetensors")
    with open("trap.pt", "wb") as file:
        pickle.dump({"weight_ih_l0": Trap()}, file)
    torch.save(nn.GRU(3, 4), "whole.pt")
    torch.save([1, 2], "list.pt")
    for name in ("junk.pt", "junk.safetensors", "junk.npy"):
        with open(name, "wb") as file:
            file.write(b"junk" * 20)
    np.save("wide.npy", np.ones((5, 2, 4)))
    np.save("nan.npy", np.full((5, 2, 3), np.nan))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("objects.npy", np.array([Trap()], dtype=object))
    np.savez("many.npz", a=np.ones(3), b=np.ones(3))


BAD = [
    ([], "what to check: got nothing. Name a run, a file or a factory"),
    (
        ["nothing"],
        "what to check: got 'nothing', expected a run folder, a checkpoint or ledger of bptt, module:factory",
    ),
    (["no.safetensors"], "no.safetensors: got no such file, expected a file of weights"),
    (["rows.safetensors"], "7 rows and 3 units, expected 1, 3 or 4 times as many rows as units"),
    (["two.safetensors"], "expected two matrices of equal rows"),
    (["nan.safetensors"], "weight_hh_l0: got NaN or infinity in it"),
    (["int.safetensors"], "weight_ih_l0: got numbers of int32, expected real weights"),
    (["fc.safetensors"], "dict without recurrent weights (it has fc.weight), expected weight_ih_l0"),
    (["missing.safetensors"], "weights that do not fit a layer of torch: Missing key(s)"),
    (["gru.safetensors", "--kind", "lstm"], "got 3 × 4 rows, which is gru, expected --kind lstm"),
    (["gru.safetensors", "--kind", "gur"], "--kind: got 'gur', expected one of rnn, rnn-relu, gru, lstm. Did you mean"),
    (["gru.safetensors", "--layer", "x"], "--layer: got 'x'"),
    (["gru.safetensors", "--engine", "x"], "--engine: got 'x', expected one of auto, compiled, torch"),
    (["gru.safetensors", "--parameter", "x"], "parameter: got 'x'"),
    (["gru.safetensors", "--plot", "x.bmp"], "picture format: got 'bmp'"),
    (["gru.safetensors", "--save", "trap.pt"], "trap.pt: got a file that is there already"),
    (["gru.safetensors", "--data", "no.npy"], "no.npy: got No such file or directory"),
    (["gru.safetensors", "--data", "wide.npy"], "wide.npy: got shape (5, 2, 4), expected (T, B, 3) or (T, 3)"),
    (["gru.safetensors", "--data", "nan.npy"], "nan.npy: got nan at step 1, sequence 1, expected numbers"),
    (["gru.safetensors", "--data", "words.npy"], "words.npy: got dtype <U1, expected real numbers"),
    (["gru.safetensors", "--data", "objects.npy"], "objects.npy: got no array of numbers"),
    (["gru.safetensors", "--data", "junk.npy"], "junk.npy: got no array of numbers"),
    (["gru.safetensors", "--data", "many.npz"], "many.npz: got arrays a, b, expected x, or only one"),
    (["trap.pt"], "trap.pt: got a file that torch does not load with weights_only=True, expected a state dict"),
    (["whole.pt"], "whole.pt: got a file that torch does not load with weights_only=True, expected a state dict"),
    (["junk.pt"], "junk.pt: got a file that torch does not load with weights_only=True, expected a state dict"),
    (["list.pt"], "list.pt: got list without recurrent weights"),
    (["junk.safetensors"], "junk.safetensors: got a damaged file"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(argv) for argv, _ in BAD])
def test_a_bad_file_is_one_line_and_exit_code_2(argv, message, tmp_path, capsys):
    write_files()
    assert run(["check", *argv]) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.err.count("\n") == 1
    assert streams.out == ""
    assert not (tmp_path / "trapped").exists()


def test_a_file_that_is_far_too_large_is_not_read(capsys):
    with open("w.pt", "wb") as file:
        file.truncate(3 << 30)  # a hole, which takes no room
    assert run(["check", "w.pt"]) == 2
    assert "w.pt: got 3.0 GiB, expected at most 2 GiB" in capsys.readouterr().err


BAD_FACTORIES = [
    ("model_only", "got a model without a batch, expected (model, batch) or (model, batch, losses)"),
    ("broken", "it raised"),
    ("raising", "it raised KeyError: 'target'"),
    ("cut", "got numbers without a graph, expected losses of the outputs"),
    ("table", "got shape (12, 4, 2), expected (K,) losses, or one. Add up over the batch first."),
    ("absent", "got no absent in"),
    ("feedforward", "got no parameter that is used more than once, expected a recurrent model"),
]


@pytest.mark.parametrize(("name", "message"), BAD_FACTORIES, ids=[name for name, _ in BAD_FACTORIES])
def test_a_bad_factory_is_one_line_and_exit_code_2(name, message, tmp_path, capsys):
    assert run(["check", factory(name)]) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.err.count("\n") == 1
    assert streams.out == ""


@pytest.mark.parametrize(("name", "message"), [("one", "one loss"), ("stepped", "with a step of its own")])
def test_a_map_that_cannot_be_is_refused(name, message, tmp_path, capsys):
    assert run(["check", factory(name), "--map"]) == 2
    assert re.search(f"--map: got .*{message}", capsys.readouterr().err)


def test_without_torch_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(["check", "made_here.py:make"]) == 2
    assert capsys.readouterr().err == "bptt: torch: got not installed. pip install 'bptt[torch]'\n"


def test_a_horizon_that_would_need_too_much_memory_is_left_out_and_the_map_stays(monkeypatch, capsys):
    from bptt.trace.torch import one_step

    monkeypatch.setattr(one_step, "FULL_BYTES", 12 * 4 * 4)
    found = document(capsys, factory("make"))
    assert "take too much memory" in found["note"]
    assert found["ledger"]["horizon"] == {}
    assert len(found["ledger"]["parameters"]["candidate.weight"]["map"]) == 12


def test_options_of_weights_beside_a_factory_are_refused(tmp_path, capsys):
    assert run(["check", factory("make"), "--kind", "gru"]) == 2
    assert "expected it beside a file of weights only" in capsys.readouterr().err

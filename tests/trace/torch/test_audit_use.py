"""The audit as people call it: it leaves no trace, says what it cannot do, and speaks to people and programs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bptt
from bptt.cli.main import run
from bptt.errors import InputError, UnknownName
from bptt.testing import assert_reaches

AUDITED = Path(__file__).parent / "audited"


class Cut(nn.Module):
    """Detached at every step."""

    def __init__(self, every=1):
        super().__init__()
        self.cell, self.every = nn.GRUCell(3, 4), every

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 4), []
        for t, row in enumerate(x):
            h = self.cell(row, h if t % self.every else h.detach())
            outs.append(h)
        return torch.stack(outs)


def test_the_tables_are_the_contributions_along_a_direction():
    """⟨C[k, t], V⟩ by the tracer, which shares no code with either side of the audit."""
    from bptt.trace.torch.audit.runs import direction

    torch.manual_seed(0)
    model, x = nn.RNN(3, 4).double(), torch.randn(5, 2, 3, dtype=torch.float64)
    table = bptt.audit(model, x).tables["weight_hh_l0"]
    weights = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with bptt.trace(model, map=True, keep="full", engine="torch") as traced:
        traced.backward((model(x)[0] * weights).sum((1, 2)))
    names = [name for name, _ in model.named_parameters()]
    V = direction(model.weight_hh_l0, names.index("weight_hh_l0")).numpy()
    for k in range(5):
        for t in range(5):
            expected = float((traced.ledger.contribution("weight_hh_l0", k + 1, t + 1) * V).sum())
            assert table.claims[k, t] == pytest.approx(expected, rel=1e-10, abs=1e-13)
            assert table.values[k, t] == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_nothing_is_left_on_the_model_or_in_the_process():
    model, x = nn.Sequential(nn.BatchNorm1d(3)), torch.randn(4, 3)
    loop = Cut()
    before = {name: value.clone() for name, value in (*model.state_dict().items(), *loop.state_dict().items())}
    random, arrays = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    apply = torch.autograd.Function.__dict__["apply"]
    bptt.audit(model, x)
    bptt.audit(loop, torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)))
    after = dict((*model.state_dict().items(), *loop.state_dict().items()))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and not p._backward_hooks for p in (*model.parameters(), *loop.parameters()))
    assert torch.equal(torch.get_rng_state(), random)
    assert (np.random.get_state()[1] == arrays).all()  # noqa: NPY002
    assert torch.autograd.Function.__dict__["apply"] is apply
    assert torch.get_default_dtype() == torch.float32
    assert not torch.overrides._get_current_function_mode_stack()


def test_everything_is_put_back_after_an_error_inside():
    def losses(out):
        raise ValueError("mine")

    apply = torch.autograd.Function.__dict__["apply"]
    with pytest.raises(ValueError, match="mine"):
        bptt.audit(nn.RNN(3, 4), torch.randn(5, 2, 3), losses)
    assert torch.autograd.Function.__dict__["apply"] is apply
    assert torch.get_default_dtype() == torch.float32
    assert not torch.overrides._get_current_function_mode_stack()


class Clock(nn.Module):
    """Another number in every run."""

    count = 0

    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x):
        Clock.count += 1
        h = x.new_zeros(x.shape[1], 4)
        for row in x:
            h = self.cell(row, h) * (1 + 0.01 * Clock.count)
        return h


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((nn.RNN(3, 4),), "no batch"),
        ((3, torch.ones(2)), "got int, expected a torch.nn.Module"),
        ((nn.Tanh(), torch.ones(2)), "no parameters"),
        ((Clock(), torch.ones(4, 1, 3)), "two runs with different losses, expected a deterministic program"),
        ((nn.RNN(3, 4), torch.full((4, 1, 3), float("nan"))), "a loss 1 that is not finite"),
        ((nn.RNN(3, 4), torch.ones(4, 1, 3), lambda out: out[0]), "expected \\(K,\\), one loss per step"),
    ],
)
def test_what_cannot_be_audited_is_said_in_one_line(arguments, says):
    with pytest.raises(InputError, match=says) as caught:
        bptt.audit(*arguments)
    assert "\n" not in str(caught.value)


def test_a_step_must_send_a_loss_back_and_have_no_losses_beside_it():
    with pytest.raises(InputError, match="no scalar loss that was sent back"):
        bptt.audit(nn.RNN(3, 4), torch.ones(4, 1, 3), step=lambda model, x: model(x))
    with pytest.raises(InputError, match="losses and a step"):
        bptt.audit(nn.RNN(3, 4), torch.ones(4, 1, 3), print, step=print)


def test_a_kink_is_no_finding():
    """At a pre-activation of 1e-6 a step of ε crosses the kink of relu; a smaller one does not."""

    class Kinks(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            h, outs = x.new_zeros(x.shape[1], 1), []
            for row in x:
                h = torch.relu(self.w * row + 0.5 * h)
                outs.append(h)
            return torch.stack(outs)

    x = torch.tensor([1.0, -0.5 + 1e-6, 1.0, 0.3]).reshape(4, 1, 1)
    assert bptt.audit(Kinks(), x).ok


@pytest.mark.parametrize("bias", [True, False])
def test_a_relu_at_exactly_zero_is_no_finding(bias):
    """Padding of zeros under biases of zero: both slopes are right, and autograd takes one."""
    torch.manual_seed(0)
    model, x = nn.RNN(3, 4, nonlinearity="relu", bias=bias), torch.randn(6, 2, 3)
    x[:2] = 0
    if bias:
        nn.init.zeros_(model.bias_ih_l0)
        nn.init.zeros_(model.bias_hh_l0)
    assert bptt.audit(model, x).ok


def test_a_cut_beside_a_relu_at_exactly_zero_is_found():
    class Net(Cut):
        def forward(self, x):
            return torch.relu(super().forward(x) * (x.sum() > 1e9) + x.sum(-1, keepdim=True)) + super().forward(x)

    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    x[0] = 0
    assert [finding.code for finding in bptt.audit(Net(), x).findings] == ["BPA101"]


def test_what_a_dead_unit_does_not_say_is_no_finding():
    torch.manual_seed(0)
    x = torch.randn(5, 2, 3)
    for dead in (2, 4):
        model = nn.RNN(3, 4, nonlinearity="relu")
        with torch.no_grad():
            model.bias_ih_l0[:dead] = -30
        assert bptt.audit(model, x).ok
    with torch.no_grad():  # alive, and the state's own weight is nothing: small moves reach no other step
        model = nn.RNN(3, 4, nonlinearity="relu")
        model.weight_hh_l0[:] = -100.0
        model.bias_ih_l0[:] = 0.1
    assert bptt.audit(model, x.abs()).ok


def test_assert_reaches_makes_its_own_batch():
    torch.manual_seed(0)
    for model in (
        nn.LSTM(3, 8, batch_first=True), nn.GRU(3, 8), Cut(every=100),
    ):  # fmt: skip
        assert_reaches(model, lag=12)


def test_a_batch_is_made_for_the_first_layer():
    from bptt.trace.torch.batches import make_batch

    tagger = nn.Sequential(nn.Embedding(5, 3), nn.GRU(3, 4, batch_first=True))
    ids = make_batch(tagger, 9)
    assert ids.shape == (2, 9)
    assert ids.dtype == torch.int64
    assert ids.max() < 5
    assert make_batch(nn.Linear(3, 2).double(), 9).shape == (9, 2, 3)
    assert make_batch(nn.Linear(3, 2).double(), 9).dtype == torch.float64
    assert make_batch(nn.LSTMCell(3, 2), 7, 1).shape == (7, 1, 3)


def test_a_bar_appears_on_a_terminal_when_it_takes_long(monkeypatch, capsys):
    from bptt.trace.torch.audit import show

    monkeypatch.setenv("FORCE_COLOR", "1")
    for after, wanted in ((0.0, True), (60.0, False)):
        monkeypatch.setattr(show, "AFTER", after)
        with show.Bar(3) as bar:
            for _ in range(3):
                bar.tick()
        out, err = capsys.readouterr()
        assert out == ""
        assert ("audit: use" in err) is wanted


def test_assert_reaches_says_where_it_ends():
    with pytest.raises(
        AssertionError, match=r"BPA101 cut-every-step from \(k, t\) = \(2, 1\) at .*test_audit_use.py:\d+"
    ):
        assert_reaches(Cut(), lag=5)
    with pytest.raises(AssertionError, match="BPA102 cut-in-chunks"):
        assert_reaches(Cut(every=4), lag=10)
    with pytest.raises(AssertionError, match="reaches 3 steps back, expected 5: values reach 3, in 4 steps"):
        assert_reaches(nn.GRU(3, 4), lag=5, x=torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(InputError, match="a first layer of Conv1d, expected an embedding"):
        assert_reaches(nn.Conv1d(3, 4, 1), lag=5)
    with pytest.raises(InputError, match="lag: got 0"):
        assert_reaches(nn.GRU(3, 4), lag=0)


@pytest.fixture
def _plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "110")


@pytest.mark.usefixtures("_plain")
def test_the_command_exits_with_one_for_a_finding_and_zero_without(capsys):
    detached = f"{AUDITED / 'detach_every_step.py'}:make"
    assert run(["audit", detached]) == 1
    text = capsys.readouterr().out
    for part in (
        "BPA101 cut-every-step",
        "(k, t) = (2, 1)",
        "detach_every_step.py:",
        "detach()",
        "cell.weight_hh",
        "0█",
    ):
        assert part in text
    assert run(["audit", f"{AUDITED / 'healthy_models.py'}:fused_rnn"]) == 0
    assert "Nothing is wrong. The gradient reaches 5 steps back" in capsys.readouterr().out


@pytest.mark.usefixtures("_plain")
def test_codes_choose_what_is_shown_and_what_fails(capsys):
    detached = f"{AUDITED / 'detach_every_step.py'}:make"
    assert run(["audit", detached, "--ignore", "BPA101"]) == 0
    assert run(["audit", detached, "--select", "BPA2,BPA3"]) == 0
    assert run(["audit", detached, "--fail-on", "BPA3"]) == 1 - 1
    assert run(["audit", detached, "--fail-on", "never"]) == 0
    assert run(["audit", detached, "--select", "BPA1", "--fail-on", "BPA101"]) == 1
    capsys.readouterr()
    assert run(["audit", detached, "--ignore", "BPB"]) == 2
    assert "--ignore: got 'BPB', expected one of BPA101" in capsys.readouterr().err


@pytest.mark.usefixtures("_plain")
def test_json_is_one_document_with_all_of_it(capsys):
    assert run(["audit", f"{AUDITED / 'stale_state_gradient.py'}:make", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    (finding,) = document["findings"]
    assert finding["code"] == "BPA202"
    assert finding["border"] == [3, 1]
    assert finding["line"].endswith("stale_state_gradient.py:28")
    assert {row["name"] for row in document["parameters"]} >= {"cell.weight_hh", "input"}
    assert document["maps"]["cell.weight_ih"][2] == "x██···"


@pytest.mark.usefixtures("_plain")
def test_bad_input_is_one_line_and_two(capsys):
    for spec in ("nowhere:make", f"{AUDITED / 'detach_every_step.py'}:nothing", "no colon"):
        assert run(["audit", spec]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1


def test_an_unknown_code_is_named():
    from bptt.trace.torch.audit.findings import chosen

    assert chosen("BPA101 BPA2", "x") == ("BPA101", "BPA2")
    with pytest.raises(UnknownName):
        chosen(["BPX"], "x")

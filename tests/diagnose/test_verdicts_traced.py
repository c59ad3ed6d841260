"""Verdicts on PyTorch's models, by their ledgers alone."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import bptt
from bptt.diagnose import judge, light


def codes(ledger):
    found = bptt.diagnose(ledger)
    json.dumps(found.to_dict(), allow_nan=False)
    return {one.code for one in found.findings}


class Reader(nn.Module):
    """Embedding, recurrent layers, and a readout at each step, as a language model has them."""

    def __init__(self, kind, hidden=16, layers=1):
        super().__init__()
        self.embedding = nn.Embedding(8, 8)
        self.body = getattr(nn, kind)(8, hidden, layers)
        self.out = nn.Linear(hidden, 8)

    def forward(self, ids):
        return self.out(self.body(self.embedding(ids))[0])


class Loop(nn.Module):
    """A loop written by hand; detached at each step, or at one."""

    def __init__(self, cell="GRUCell", detach=(), hidden=8):
        super().__init__()
        self.cell, self.out, self.detach = getattr(nn, cell)(3, hidden), nn.Linear(hidden, 1), detach

    def forward(self, x):
        h, out = torch.zeros(x.shape[1], self.out.in_features), []
        for t, row in enumerate(x):
            h = self.cell(row, h.detach() if t in self.detach else h)
            out.append(self.out(h))
        return torch.stack(out)


def language(kind, T=16, layers=1, **more):
    torch.manual_seed(0)
    model, ids = Reader(kind, layers=layers), torch.randint(0, 8, (T + 1, 6))
    with bptt.trace(model, **more) as trace:
        logits = model(ids[:-1])
        losses = (
            nn.functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten(), reduction="none").view(T, -1).mean(1)
        )
        trace.backward(losses / T) if more.get("map") else losses.mean().backward()
    return trace.ledger


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_language_model_is_let_alone(kind, layers):
    assert codes(language(kind, layers=layers)) == set()


def test_a_language_model_with_a_map_is_let_alone():
    assert codes(language("LSTM", map=True)) == set()


def looped(T=16, map=False, last=False, **more):
    torch.manual_seed(0)
    model, x = Loop(**more), torch.randn(T, 4, 3)
    with bptt.trace(model, map=map) as trace:
        losses = (model(x) - 1).square().mean((1, 2))
        losses = losses[-1:] if last else losses
        trace.backward(losses) if map else losses.sum().backward()
    return trace.ledger


@pytest.mark.parametrize("more", [{}, {"map": True}, {"last": True}, {"cell": "RNNCell"}])
def test_a_loop_by_hand_is_let_alone(more):
    assert codes(looped(**more)) == set()


def test_a_loop_that_is_detached_at_each_step_is_named():
    assert codes(looped(map=True, detach=range(16))) == {"BP105"}


def test_a_loop_that_is_cut_in_the_middle_has_dead_uses_before_it():
    assert codes(looped(T=20, last=True, detach=(14,))) == {"BP201"}


def test_a_loop_by_hand_vanishes_per_use():
    torch.manual_seed(0)
    model = Loop("RNNCell")
    with torch.no_grad():
        model.cell.weight_hh.mul_(0.3)
    with bptt.trace(model) as trace:
        model(torch.randn(40, 4, 3))[-1].square().mean().backward()
    (found,) = bptt.diagnose(trace.ledger).findings
    assert found.code == "BP101"
    assert found.message.startswith("per use: ‖dW_t‖ falls below 1 % of its largest within ")
    assert found.evidence["uses heard"] <= 10


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_last_step_loss_over_a_hundred_steps_vanishes(kind):
    torch.manual_seed(0)
    model = getattr(nn, kind)(3, 16)
    with bptt.trace(model) as trace:
        model(torch.randn(100, 4, 3))[0][-1].square().mean().backward()
    assert codes(trace.ledger) == {"BP101"}


def test_a_gradient_that_is_nan_from_the_loss_on_says_so():
    model = nn.LSTM(3, 4)
    with bptt.trace(model) as trace:
        (model(torch.ones(9, 2, 3))[0].sum() * torch.nan).backward()
    (found,) = bptt.diagnose(trace.ledger).findings
    assert (found.code, found.severity) == ("BP501", "error")
    assert "step 9" in found.where


def test_a_nan_among_the_inputs_is_found_on_the_way_forward():
    model, x = nn.GRU(3, 4), torch.ones(9, 2, 3)
    x[5, 0, 0] = torch.nan
    with bptt.trace(model) as trace:
        model(x)[0].sum().backward()
    (found,) = bptt.diagnose(trace.ledger).findings
    assert (found.code, found.evidence["step"], found.evidence["tensor"]) == ("BP501", 6, "z of weight_ih_l0")


def test_a_light_look_says_the_same_of_a_state():
    torch.manual_seed(0)
    model = nn.RNN(3, 16)
    with bptt.trace(model, keep="norms") as trace:
        model(torch.randn(100, 4, 3))[0][-1].square().mean().backward()
    assert [str(one) for one in judge(light(trace.ledger))] == [
        str(one) for one in bptt.diagnose(trace.ledger).findings
    ]
    assert np.isfinite(trace.ledger.residual)


@pytest.mark.parametrize(("cell", "shrink"), [("RNNCell", 0.1), ("GRUCell", 0.0)])
def test_a_map_shows_what_vanishes_where_every_step_has_a_loss(cell, shrink):
    """The whole gradient does not: each step's own loss comes in anew."""
    torch.manual_seed(0)
    model, x = Loop(cell), torch.randn(40, 4, 3)
    with torch.no_grad():
        model.cell.weight_hh.mul_(shrink)
        if cell == "GRUCell":
            model.cell.bias_hh[8:16] -= 4  # z: next to nothing is kept
    with bptt.trace(model, map=True) as trace:
        trace.backward((model(x) ** 2).mean((1, 2)) / 40)
    assert "BP101" in codes(trace.ledger)


def test_the_map_of_a_network_says_what_its_losses_walked_back_say():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("rnn", inputs=3, hidden=12, outputs=3)
    batch = bptt.Batch(rng.standard_normal((40, 4, 3)), rng.integers(0, 3, (40, 4)))
    for factor, expected in [(1.0, set()), (0.5, {"BP101"})]:
        network.params["layer0.W_hh"] *= factor
        for kept in ({"map": True}, {"keep": "full"}):
            ledger = bptt.record(network, batch, bptt.Loss(), **kept)
            assert (
                codes(ledger) == expected == {one.code for one in bptt.diagnose(network, batch, bptt.Loss()).findings}
            )


def test_a_residual_that_is_no_number_is_not_shown():
    torch.manual_seed(0)
    model = Loop()
    with torch.no_grad():
        model.cell.weight_hh[0, 0] = float("nan")
    with bptt.trace(model) as trace:
        (model(torch.randn(9, 2, 3)) ** 2).mean().backward()
    text = str(bptt.diagnose(trace.ledger))
    assert "BP501" in text
    assert "nan" not in text


@pytest.mark.parametrize("at", ["every step", "the last"])
@pytest.mark.parametrize(("scale", "expected"), [(1.4, {"BP102"}), (1.0, set())])
def test_a_loop_by_hand_that_explodes_is_named_by_the_uses_of_its_biases(at, scale, expected):
    torch.manual_seed(0)
    model, x = Loop("RNNCell"), torch.randn(50, 4, 3)
    model.cell.nonlinearity = "relu"
    with torch.no_grad():
        model.cell.weight_hh.copy_(scale * torch.eye(8))
        model.cell.bias_ih.fill_(0.2)
    with bptt.trace(model) as trace:
        y = model(x)
        (y.mean() if at == "every step" else y[-1].mean()).backward()
    assert codes(trace.ledger) == expected

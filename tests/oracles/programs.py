"""Models and training steps as people write them, for the tests of `bptt.trace`."""

import torch
from torch import nn

import bptt

X = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Layer(nn.Module):
    """A fused layer and a readout."""

    def __init__(self, kind=nn.LSTM, layers=1, **more):
        super().__init__()
        torch.manual_seed(3)
        self.rnn, self.out = kind(3, 4, layers, **more), nn.Linear(4, 2)
        self.double()

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class Loop(nn.Module):
    """A cell of torch's, step by step, and a readout."""

    def __init__(self, kind=nn.LSTMCell):
        super().__init__()
        torch.manual_seed(3)
        self.cell, self.out = kind(3, 4), nn.Linear(4, 2)
        self.double()

    def forward(self, x):
        s, outs = None, []
        for row in x:
            s = self.cell(row, s)
            outs.append(self.out(s[0] if isinstance(s, tuple) else s))
        return torch.stack(outs)


def plain(model):
    """A step without anything special."""
    (model(X.to(next(model.parameters()).dtype)) ** 2).sum().backward()


def left(model, step):
    """Every number that a step leaves: gradients, buffers, random state."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    step(model)
    found = {f"d{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    found = {n: g.clone() for n, g in found.items()}
    found |= {f"buffer {n}": b.detach().clone() for n, b in model.named_buffers()}
    return found | {"random": torch.get_rng_state()}


def both(model, step, **options):
    """(untraced, traced, the ledger) of one step, twice from the same numbers."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    untraced = left(model, step)
    model.load_state_dict(before)
    with bptt.trace(model, **options) as trace:
        traced = left(model, step)
    return untraced, traced, trace.ledger


def difference(untraced, traced):
    """The largest difference, relative to the largest gradient; infinite where something is absent."""
    if untraced.keys() != traced.keys() or not torch.equal(untraced["random"], traced["random"]):
        return float("inf")
    scale = max((float(a.abs().max()) for n, a in untraced.items() if n.startswith("d")), default=1.0)
    return max(float((a.double() - traced[n].double()).abs().max()) / scale for n, a in untraced.items() if a.numel())


def steps(ledger):
    return {name: ledger.steps(name) for name in ledger.names}

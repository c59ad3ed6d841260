"""A checkpoint makes its calls twice, and the ledger counts them once: both kinds, nested, around cells and layers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import bptt
from bptt.trace.torch.patches import patched


class Chunks(nn.Module):
    """A recurrent layer or cell over chunks of a sequence, each a checkpoint; `deep` puts another one inside."""

    def __init__(self, fused, reentrant, deep=False):
        super().__init__()
        self.layer = nn.LSTM(3, 4) if fused else nn.LSTMCell(3, 4)
        self.fused, self.reentrant, self.deep = fused, reentrant, deep

    def chunk(self, x, h, c):
        if self.deep:
            return checkpoint(self.walk, x, h, c, use_reentrant=self.reentrant)
        return self.walk(x, h, c)

    def walk(self, x, h, c):
        if self.fused:
            out, (h, c) = self.layer(x, (h[None], c[None]))
            return out, h[0], c[0]
        outs = []
        for row in x:
            h, c = self.layer(row, (h, c))
            outs.append(h)
        return torch.stack(outs), h, c

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 4)
        outs = []
        for part in x.chunk(3):
            walk = self.chunk if self.reentrant is not None else self.walk
            again = {} if self.reentrant is None else {"use_reentrant": self.reentrant}
            out, h, c = checkpoint(walk, part, h, c, **again) if again else walk(part, h, c)
            outs.append(out)
        return torch.cat(outs)


def ledger_of(fused, reentrant, deep=False):
    torch.manual_seed(0)
    model = Chunks(fused, reentrant, deep).double()
    x = torch.randn(9, 2, 3, dtype=torch.float64, requires_grad=True)
    with bptt.trace(model) as trace:
        model(x).square().sum().backward()
    return trace.ledger


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("fused", [False, True])
def test_uses_in_a_checkpoint_are_those_of_the_same_model_without(fused, reentrant, deep):
    plain, found = ledger_of(fused, None), ledger_of(fused, reentrant, deep)
    assert found.residual < 1e-12
    for name in plain.names:
        assert found.steps(name) == plain.steps(name) == 9
        np.testing.assert_allclose(found.step_gradients(name), plain.step_gradients(name), rtol=1e-9, atol=1e-12)


def test_traces_that_end_in_another_order_than_they_began_leave_compiled_code_compiled():
    """As in two threads."""
    import torch._dynamo.eval_frame as frames

    before = frames._stance.stance
    first, second = patched(bptt.trace(torch.nn.RNN(1, 1)).tracer), patched(bptt.trace(torch.nn.RNN(1, 1)).tracer)
    first.__enter__()
    second.__enter__()
    assert frames._stance.stance == "force_eager"
    first.__exit__(None, None, None)
    assert frames._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert frames._stance.stance == before

"""What a trace is: exact, and without a trace."""

import pytest
import torch
from torch import nn

import bptt


class Loop(nn.Module):
    """A cell of torch's, step by step."""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind(3, 4)

    def forward(self, x):
        state, outs = None, []
        for row in x:
            state = self.cell(row, state)
            outs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outs)


def gradients(model, x):
    model.zero_grad(set_to_none=True)
    (model(x) ** 2).mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_traced_loop_has_the_same_bits_and_a_ledger_that_adds_up(kind):
    model, x = Loop(kind), torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    plain = gradients(model, x)
    with bptt.trace(model) as trace:
        traced = gradients(model, x)
    assert all(torch.equal(plain[name], traced[name]) for name in plain)
    assert trace.ledger.residual < 1e-6
    assert {name: trace.ledger.steps(name) for name in trace.ledger.names} == dict.fromkeys(plain, 6)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, "ifgo"), (nn.GRUCell, "rzn")])
def test_the_gates_of_a_cell_are_rows_of_its_weights(kind, gates):
    model, x = Loop(kind), torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    with bptt.trace(model) as trace:
        plain = gradients(model, x)
    for i, gate in enumerate(gates):
        for name in ("weight_ih", "weight_hh", "bias_hh"):
            rows = plain[f"cell.{name}"][4 * i : 4 * i + 4].numpy()
            steps = trace.ledger.step_gradients(f"{name}.{gate}")
            assert steps.shape == (6, *rows.shape)
            assert abs(steps.sum(0) - rows).max() < 1e-6

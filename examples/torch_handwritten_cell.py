"""A cell written by hand, in a loop of Python: its map and its horizon, without a change to it.

    python examples/torch_handwritten_cell.py

The minimal gated unit (Zhou et al. 2016): one gate f that both forgets and lets in. Where f is small the state stays as
it is, and so does the gradient; the bias of the gate decides. Two networks that differ in this bias only, 0 and −3, 32
steps, a loss at every step.

Seed 0: with bias 0, 8 steps hold 99 % of the gradient of the candidate's weight; with −3 it takes 31 of the 32.
"""

import torch
from torch import Tensor, nn

import bptt

STEPS, SEED = 32, 0


class MinimalGatedUnit(nn.Module):
    """f = σ(W_f [x, h] + b_f);  h' = (1 − f) h + f tanh(W [x, f h] + b)."""

    def __init__(self, inputs: int, hidden: int, gate_bias: float):
        super().__init__()
        self.gate, self.candidate = nn.Linear(inputs + hidden, hidden), nn.Linear(inputs + hidden, hidden)
        nn.init.constant_(self.gate.bias, gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, D) → (T, B, H)."""
        h, outs = x.new_zeros(x.shape[1], self.gate.out_features), []
        for row in x:
            f = torch.sigmoid(self.gate(torch.cat([row, h], 1)))
            h = (1 - f) * h + f * torch.tanh(self.candidate(torch.cat([row, f * h], 1)))
            outs.append(h)
        return torch.stack(outs)


def look(gate_bias: float) -> bptt.Ledger:
    """The ledger of one step, with the loss of every step on its own."""
    torch.manual_seed(SEED)
    cell, x = MinimalGatedUnit(4, 16, gate_bias), torch.randn(STEPS, 8, 4)
    targets = torch.randn(STEPS, 8, 16)
    with bptt.trace(cell, keep="full") as trace:
        trace.backward((cell(x) - targets).square().mean((1, 2)))
    return trace.ledger


def main() -> dict[str, float]:
    """Trace both; returns their horizons."""
    from rich.console import Console

    from bptt.report.terminal import shaded_map

    reach, W = {}, "candidate.weight"
    for bias in (0.0, -3.0):
        ledger = look(bias)
        reach[f"bias {bias:g}"] = bptt.horizon(ledger, W)
        print(f"bias of the gate {bias:g}: ‖C[k,t]‖ of {W}, rows are losses, columns are uses")
        Console(width=80).print(shaded_map(ledger.map(W), 80))
        print(
            f"  {reach[f'bias {bias:g}']} of {STEPS} steps hold 99 % of its gradient; residual {ledger.residual:.0e}\n"
        )
    return reach


if __name__ == "__main__":
    main()

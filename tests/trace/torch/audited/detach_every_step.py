"""The state is detached at every step, so that nothing is learnt over time."""

import torch
from torch import nn

CODE, BORDER = "BPA101", (2, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.H = 4

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], self.H), []
        for row in x:
            h = self.cell(row, h)
            outs.append(h)
            h = h.detach()  # here
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

"""A gradient "stabiliser" that halves what comes back to every state, in backward alone."""

import torch
from torch import nn

CODE, BORDER = "BPA402", (1, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 4), []
        for row in x:
            h = self.cell(row, h)
            outs.append(h * 0.5 + h.detach() * 0.5)  # here
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

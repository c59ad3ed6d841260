"""A weight that is used as .data on every second step."""

import torch
from torch import nn

CODE, BORDER = "BPA106", (2, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.U = nn.Parameter(torch.randn(3, 4) / 2), nn.Parameter(torch.randn(4, 4) / 2)

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 4), []
        for t, row in enumerate(x):
            U = self.U.data if t % 2 else self.U  # here
            h = torch.tanh(row @ self.W + h @ U)
            outs.append(h)
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

"""The recurrent weight is used through detach(): it will never be trained."""

import torch
from torch import nn

CODE, BORDER = "BPA105", (2, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.U = nn.Parameter(torch.randn(3, 4) / 2), nn.Parameter(torch.randn(4, 4) / 2)

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 4), []
        for row in x:
            h = torch.tanh(row @ self.W + h @ self.U.detach())  # here
            outs.append(h)
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

"""A step of one's own whose backward counts the way through the state twice."""

import torch
from torch import nn

CODE, BORDER = "BPA201", (2, 1)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h.clone()

    @staticmethod
    def backward(ctx, d):  # here
        return d + d


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 4), []
        for row in x:
            h = self.cell(row, Twice.apply(h))
            outs.append(h)
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

"""A step of one's own whose backward returns no gradient for the state (PyTorch#11662, MXNet#21143)."""

import torch
from torch import nn

CODE, BORDER = "BPA101", (2, 1)


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h, W, U):
        new = torch.tanh(x @ W + h @ U)
        ctx.save_for_backward(x, h, W, new)
        return new

    @staticmethod
    def backward(ctx, d):  # here
        x, h, W, new = ctx.saved_tensors
        da = d * (1 - new**2)
        return da @ W.t(), None, x.t() @ da, h.t() @ da


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.U = nn.Parameter(torch.randn(3, 4) / 2), nn.Parameter(torch.randn(4, 4) / 2)

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 4), []
        for row in x:
            h = Step.apply(row, h, self.W, self.U)
            outs.append(h)
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

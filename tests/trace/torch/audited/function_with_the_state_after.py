"""A step of one's own that saves h_t where backward needs h_{t-1}: each gradient is that of the step beside it."""

import torch
from torch import nn

CODE, BORDER = "BPA302", (1, 1)


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h, W, U):
        new = torch.tanh(x @ W + h @ U)
        ctx.save_for_backward(x, new, W, U)
        return new

    @staticmethod
    def backward(ctx, d):  # here
        x, h, W, U = ctx.saved_tensors
        da = d * (1 - h**2)
        return da @ W.t(), da @ U.t(), x.t() @ da, h.t() @ da


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

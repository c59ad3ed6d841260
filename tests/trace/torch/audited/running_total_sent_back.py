"""retain_graph, and a running total goes back at every step: early losses are counted again and again."""

import torch
from torch import nn

CODE, BORDER = "BPA203", (2, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x, h):
        return self.cell(x, h)


def step(model, xs):
    h, total = xs.new_zeros(2, 4), 0.0
    for x in xs:
        h = model(x, h)
        total = total + (h**2).sum()
        total.backward(retain_graph=True)  # here


def make():
    torch.manual_seed(0)
    return {"model": Net(), "batch": torch.randn(6, 2, 3), "step": step}

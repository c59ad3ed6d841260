"""Truncation by hand as on discuss.pytorch.org/t/15500: the .grad of a state still holds what an earlier loss left."""

import torch
from torch import nn

CODE, BORDER = "BPA202", (3, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x, h):
        return self.cell(x, h)


def step(model, xs):
    states = [(None, xs.new_zeros(2, 4))]
    for j, x in enumerate(xs):
        state = states[-1][1].detach()
        state.requires_grad = True
        new = model(x, state)
        states.append((state, new))
        loss = (new**2).sum()
        loss.backward(retain_graph=True)
        for i in range(j):
            states[-i - 2][1].backward(states[-i - 1][0].grad, retain_graph=True)  # here


def make():
    torch.manual_seed(0)
    return {"model": Net(), "batch": torch.randn(6, 2, 3), "step": step}

"""A training loop in chunks: right in each, and no loss reaches the chunk before."""

import torch
from torch import nn

CODE, BORDER = "BPA102", (2, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x, h):
        return self.cell(x, h)


def step(model, xs):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    h = xs.new_zeros(2, 4)
    for chunk in xs.split(2):
        h, loss = h.detach(), 0.0  # here
        for x in chunk:
            h = model(x, h)
            loss = loss + (h**2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def make():
    torch.manual_seed(0)
    return {"model": Net(), "batch": torch.randn(6, 2, 3), "step": step}

"""Two chunks, two updates, and no zero_grad between them."""

import torch
from torch import nn

CODE, BORDER = "BPA204", None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x, h):
        return self.cell(x, h)


def step(model, xs):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    h = xs.new_zeros(2, 4)
    for chunk in xs.split(3):
        h = h.detach()
        loss = 0.0
        for x in chunk:
            h = model(x, h)
            loss = loss + (h**2).sum()
        loss.backward()
        optimiser.step()  # here


def make():
    torch.manual_seed(0)
    return {"model": Net(), "batch": torch.randn(6, 2, 3), "step": step}

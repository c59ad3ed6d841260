"""The state goes through NumPy on its way to the next step."""

import torch
from torch import nn

CODE, BORDER = "BPA101", (2, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(7, 4)
        self.H = 4

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], self.H), []
        for row in x:
            new = torch.tanh(self.cell(torch.cat([row, h], 1)))
            outs.append(new)
            h = torch.from_numpy(new.detach().cpu().numpy() * 0.9)  # here
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

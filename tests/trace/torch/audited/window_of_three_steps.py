"""Every loss is walked back three steps and no further, whatever the values do."""

import torch
from torch import nn

CODE, BORDER = "BPA103", (4, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x):
        states = [x.new_zeros(x.shape[1], 4)]
        for row in x:
            states.append(self.cell(row, states[-1]).detach())  # here
        outs = []
        for t in range(len(x)):
            h = states[max(0, t - 2)]
            for row in x[max(0, t - 2) : t + 1]:
                h = self.cell(row, h)
            outs.append(h)
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

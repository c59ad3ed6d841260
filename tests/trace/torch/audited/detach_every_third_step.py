"""The state is detached every three steps, as in a loop over chunks."""

import torch
from torch import nn

CODE, BORDER = "BPA102", (3, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], 4), []
        for t, row in enumerate(x):
            if t in (2, 5):
                h = h.detach()  # here
            h = self.cell(row, h)
            outs.append(h)
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(8, 2, 3)

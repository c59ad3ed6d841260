"""The state is updated under no_grad, as in code that was written for inference; only the readout learns."""

import torch
from torch import nn

CODE, BORDER = "BPA105", (1, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        state, outs = None, []
        for row in x:
            with torch.no_grad():
                state = self.cell(row, state)  # here
            outs.append(self.head(state[0]))
        return torch.stack(outs)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(6, 2, 3)

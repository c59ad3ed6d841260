"""The same network in `torch.nn`, float64; the weights are carried over here, gate by gate, and nowhere else.

PyTorch stacks gates as rows of W, keeps two biases per gate, and has no peepholes and no "reset before".
"""

import numpy as np
import torch

TWINS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


class Twin(torch.nn.Module):
    """`problem` as a torch module; lengths by packing."""

    def __init__(self, problem):
        super().__init__()
        self.problem = problem
        options = {"num_layers": problem.layers, "bidirectional": problem.bidirectional, "dtype": torch.float64}
        if problem.kind == "rnn":
            options["nonlinearity"] = problem.options.get("nonlinearity", "tanh")
        if problem.options.get("projection"):
            options["proj_size"] = problem.options["projection"]
        self.cells = TWINS[problem.kind](problem.inputs, problem.hidden, **options)
        self.readout = None
        if problem.outputs:
            self.readout = torch.nn.Linear(problem.params["readout.W"].shape[0], problem.outputs, dtype=torch.float64)
        with torch.no_grad():
            for name, value in self.pairs().items():
                value.copy_(torch.tensor(self.from_ours(name)))

    def pairs(self):
        """Our name → torch's parameter; the second bias of a GRU under `b_hh`."""
        out = {}
        for layer in range(self.problem.layers):
            for way, suffix in [("", ""), ("reverse.", "_reverse")][: 2 if self.problem.bidirectional else 1]:
                known = {"W_xh": "weight_ih", "W_hh": "weight_hh", "b": "bias_ih", "b_hh": "bias_hh"}
                known |= {"W_hr": "weight_hr"} if self.problem.options.get("projection") else {}
                for ours, theirs in known.items():
                    out[f"layer{layer}.{way}{ours}"] = getattr(self.cells, f"{theirs}_l{layer}{suffix}")
        if self.readout is not None:
            out |= {"readout.W": self.readout.weight, "readout.b": self.readout.bias}
        return out

    def from_ours(self, name):
        params, hidden = self.problem.params, self.problem.hidden
        if name.endswith(".b_hh"):  # only the candidate of a GRU has a bias of its own here
            second = np.zeros_like(params[name.replace("b_hh", "b")])
            if self.problem.kind == "gru":
                second[2 * hidden :] = params[name.replace("b_hh", "b_hn")]
            return second
        return params[name].T

    def to_ours(self, gradients):
        """Gradients by torch's parameters, in order of `pairs`, under our names."""
        out = {}
        for name, value in zip(self.pairs(), gradients, strict=True):
            if not name.endswith(".b_hh"):
                out[name] = value.numpy().T
            elif self.problem.kind == "gru":
                out[name.replace("b_hh", "b_hn")] = value.numpy()[2 * self.problem.hidden :]
        return out

    def start(self):
        """Initial states as torch wants them, (layers · ways, B, S), as leaves."""
        parts = zip(*self.problem.states.values(), strict=True)
        return [torch.tensor(np.stack(part), requires_grad=True) for part in parts]

    def forward(self, x, start):
        lengths = self.problem.lengths
        given = x if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        h, _ = self.cells(given, tuple(start) if self.problem.kind == "lstm" else start[0])
        if lengths is not None:
            h, _ = torch.nn.utils.rnn.pad_packed_sequence(h, total_length=self.problem.T)
        return h if self.readout is None else self.readout(h)

    def inputs(self):
        x = self.problem.x
        x = np.eye(self.problem.inputs)[x] if x.ndim == 2 else x
        return torch.tensor(x, requires_grad=True)

    def losses(self, y, weights):
        """L_k, (T,), with torch's own loss functions; weights (T, B)."""
        targets = torch.tensor(self.problem.targets)
        if self.problem.loss == "cross_entropy":
            each = torch.nn.functional.cross_entropy(y.flatten(0, 1), targets.flatten(), reduction="none")
            each = each.reshape(targets.shape)
        else:
            each = torch.nn.functional.mse_loss(y, targets, reduction="none").sum(-1)
        return (torch.tensor(weights) * each).sum(1)

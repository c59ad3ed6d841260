"""`nn.RNN`, `nn.GRU` and `nn.LSTM` written out, every use of every weight with a copy of its own, for autograd.

Sequences are walked one by one, each for its own length, so there is no padding, and states are plain vectors. A zero
is added to every state; the derivative by it is ∂J/∂s. It shares no code with the package, and follows the equations of
torch's documentation, not those of its kernels.
"""

from dataclasses import dataclass, field

import torch


@dataclass
class Untied:
    """A fused layer's twin for T steps of B sequences.

    copies: name → (T, *shape of W), leaves.  bumps: (layer, direction) → parts (T + 1, B, S), leaves of zeros.
    """

    module: torch.nn.RNNBase
    T: int
    B: int
    copies: dict = field(default_factory=dict)
    bumps: dict = field(default_factory=dict)

    def __post_init__(self):
        m = self.module
        for name, p in m.named_parameters():
            self.copies[name] = torch.stack([p.detach().clone() for _ in range(self.T)]).requires_grad_()
        widths = [m.proj_size or m.hidden_size] + ([m.hidden_size] if m.mode == "LSTM" else [])
        for layer in range(m.num_layers):
            for way in range(self.ways):
                self.bumps[layer, way] = [
                    torch.zeros(self.T + 1, self.B, w, dtype=p.dtype, requires_grad=True) for w in widths
                ]

    @property
    def ways(self):
        return 2 if self.module.bidirectional else 1

    def run(self, x, states, lengths, masks=None):
        """y as a list of (T_b, W) for each sequence, and the parts of the last states (layers · ways, B, S).

        x: list of (T_b, D).  states: parts (layers · ways, B, S).  masks: layer → list of (T_b, W), 0 or 1 / (1 − p).
        """
        m, ends = self.module, []
        for layer in range(m.num_layers):
            each = [self._walk(layer, way, x, states, lengths) for way in range(self.ways)]
            ends += [end for _, end in each]
            x = [torch.cat([outs[b] for outs, _ in each], 1) for b in range(self.B)]
            if masks is not None and layer < m.num_layers - 1:
                x = [a * mask for a, mask in zip(x, masks[layer], strict=True)]
        return x, [torch.stack(part) for part in zip(*ends, strict=True)]

    def _walk(self, layer, way, x, states, lengths):
        outs, ends, at = [], [], layer * self.ways + way
        for b, L in enumerate(lengths):
            s = [part[at, b] for part in states]
            h = {}
            order = range(self.T - 1, -1, -1) if way else range(self.T)
            s = self._bumped(layer, way, 0, b, s)
            for i, t in enumerate(order):
                if t < L:
                    s = self._step(layer, way, t, x[b][t], s)
                s = self._bumped(layer, way, i + 1, b, s)
                if t < L:
                    h[t] = s[0]
            outs.append(torch.stack([h[t] for t in range(L)]))
            ends.append(s)
        return outs, [torch.stack(part) for part in zip(*ends, strict=True)]

    def _bumped(self, layer, way, i, b, s):
        return [part + bump[i, b] for part, bump in zip(s, self.bumps[layer, way], strict=True)]

    def _step(self, layer, way, t, x, s):
        def of(slot):
            name = f"{slot}_l{layer}" + ("_reverse" if way else "")
            return self.copies[name][t] if name in self.copies else torch.zeros((), dtype=x.dtype)

        inner, recurrent = of("weight_ih") @ x + of("bias_ih"), of("weight_hh") @ s[0] + of("bias_hh")
        mode = self.module.mode
        if mode.startswith("RNN"):
            a = inner + recurrent
            return [torch.tanh(a) if mode == "RNN_TANH" else torch.relu(a)]
        if mode == "GRU":
            (r, z, n), (u_r, u_z, u_n) = inner.chunk(3), recurrent.chunk(3)
            r, z = torch.sigmoid(r + u_r), torch.sigmoid(z + u_z)
            n = torch.tanh(n + r * u_n)
            return [(1 - z) * n + z * s[0]]
        i, f, g, o = (inner + recurrent).chunk(4)
        c = torch.sigmoid(f) * s[1] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return [of("weight_hr") @ h if self.module.proj_size else h, c]

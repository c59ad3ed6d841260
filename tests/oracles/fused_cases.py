"""One call of a fused layer of torch, of any sort: drawn, built, run plainly or traced, and untied."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from oracles.untied_torch import Untied


@dataclass(frozen=True)
class Case:
    """packed: "", "sorted" or "unsorted".  state: "none", "given", "wanted" (with a gradient) or "learned".

    touches: what the loss looks at: "outputs", "states", "both", "forward" or "reverse" (one direction's outputs).
    """

    kind: str = "lstm"
    layers: int = 1
    both: bool = False
    batch_first: bool = False
    bias: bool = True
    proj: int = 0
    dropout: float = 0.0
    unbatched: bool = False
    packed: str = ""
    state: str = "none"
    dtype: str = "float64"
    engine: str = "torch"
    x_grad: bool = True
    touches: str = "both"
    T: int = 4
    B: int = 3
    D: int = 2
    H: int = 3
    seed: int = 0


@st.composite
def cases(draw, dtypes=("float32", "float64"), engines=("compiled", "torch")):
    kind = draw(st.sampled_from(["rnn tanh", "rnn relu", "gru", "lstm"]))
    layers, both = draw(st.integers(1, 3)), draw(st.booleans())
    unbatched = draw(st.sampled_from([False, False, True]))
    packed = "" if unbatched else draw(st.sampled_from(["", "sorted", "unsorted"]))
    return Case(
        kind, layers, both, draw(st.booleans()), draw(st.booleans()),
        draw(st.sampled_from([0, 2])) if kind == "lstm" else 0,
        draw(st.sampled_from([0.0, 0.4])) if layers > 1 else 0.0, unbatched, packed,
        draw(st.sampled_from(["none", "given", "wanted", "learned"])), draw(st.sampled_from(dtypes)),
        draw(st.sampled_from(engines)), draw(st.booleans()),
        draw(st.sampled_from(["outputs", "states", "both"] + (["forward", "reverse"] if both else []))),
        draw(st.integers(1, 5)), 1 if unbatched else draw(st.integers(1, 3)), draw(st.integers(1, 3)),
        draw(st.integers(3, 4)), draw(st.integers(0, 99)),
    )  # fmt: skip


class Net(nn.Module):
    """The layer, and its initial state where that is learned."""

    def __init__(self, case):
        super().__init__()
        kind = {"rnn tanh": nn.RNN, "rnn relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[case.kind]
        more = {"proj_size": case.proj} if case.proj else {"nonlinearity": case.kind[4:]} if kind is nn.RNN else {}
        self.rnn = kind(
            case.D, case.H, case.layers, bias=case.bias, batch_first=case.batch_first, dropout=case.dropout,
            bidirectional=case.both, **more,
        )  # fmt: skip
        self.start = nn.ParameterList()
        if case.state == "learned":
            for w in widths(self.rnn):
                self.start.append(nn.Parameter(0.5 * torch.randn(scans(self.rnn), 1, w)))


def scans(rnn):
    return rnn.num_layers * (2 if rnn.bidirectional else 1)


def widths(rnn):
    return [rnn.proj_size or rnn.hidden_size] + ([rnn.hidden_size] if rnn.mode == "LSTM" else [])


class Built:
    """A case with its numbers. Everything that a loss sees is in the order of the packed batch: the longest first."""

    def __init__(self, case):
        self.case, dtype = case, getattr(torch, case.dtype)
        before = torch.get_rng_state()
        torch.manual_seed(case.seed)
        self.net = Net(case)
        for p in self.net.parameters():
            nn.init.uniform_(p, -0.9, 0.9)
        self.net.to(dtype)
        T, B, rnn = case.T, case.B, self.net.rnn
        self.x = torch.randn(T, B, case.D).to(dtype)
        self.lengths, self.order = [T] * B, list(range(B))
        if case.packed:
            self.lengths = torch.randint(1, T + 1, (B,)).tolist()
            self.lengths[int(torch.randint(0, B, ()))] = T
            if case.packed == "sorted":
                self.lengths.sort(reverse=True)
            self.order = pack_padded_sequence(
                self.x, torch.tensor(self.lengths), enforce_sorted=False
            ).sorted_indices.tolist()
        self.start = [0.7 * torch.randn(scans(rnn), B, w).to(dtype) for w in widths(rnn)]
        self.R = torch.randn(T, B, widths(rnn)[0] * (2 if case.both else 1)).to(dtype)
        if case.touches in ("forward", "reverse"):
            self.R[..., self._other_half()] = 0
        self.Q = [torch.randn(scans(rnn), B, w).to(dtype) for w in widths(rnn)]
        torch.set_rng_state(before)

    def _other_half(self):
        w = widths(self.net.rnn)[0]
        return slice(w, None) if self.case.touches == "forward" else slice(0, w)

    @property
    def sorted_lengths(self):
        return [self.lengths[b] for b in self.order]

    def given(self):
        """Fresh leaves: x, and the states that are handed in."""
        x = self.x.clone().requires_grad_(self.case.x_grad)
        wanted = self.case.state == "wanted"
        states = (
            [] if self.case.state in ("none", "learned") else [s.clone().requires_grad_(wanted) for s in self.start]
        )
        return x, states

    def call(self, x, states):
        """Outputs as a list of (T_b, W), and the last states (scans, B, S), both in packed order."""
        case, rnn = self.case, self.net.rnn
        states = [p.expand(-1, case.B, -1).contiguous() for p in self.net.start] if case.state == "learned" else states
        if case.unbatched:
            x, states = x[:, 0], [s[:, 0] for s in states]
        elif case.packed:
            x = x.transpose(0, 1) if case.batch_first else x
            x = pack_padded_sequence(
                x, torch.tensor(self.lengths), batch_first=case.batch_first, enforce_sorted=case.packed == "sorted"
            )
        elif case.batch_first:
            x = x.transpose(0, 1)
        hx = None if not states else tuple(states) if rnn.mode == "LSTM" else states[0]
        out, end = rnn(x) if hx is None else rnn(x, hx)
        end = list(end) if rnn.mode == "LSTM" else [end]
        if case.unbatched:
            return [out], [s[:, None] for s in end]
        if isinstance(out, PackedSequence):
            rows, at = [[] for _ in range(case.B)], 0
            for n in out.batch_sizes.tolist():
                for b in range(n):
                    rows[b].append(out.data[at + b])
                at += n
            return [torch.stack(r) for r in rows], [s[:, self.order] for s in end]
        out = out.transpose(0, 1) if case.batch_first else out
        return list(out.unbind(1)), end

    def losses(self, ys, ends):
        """(T,) one for each step; what the last states say belongs to the last."""
        terms = [torch.zeros((), dtype=self.x.dtype) for _ in range(self.case.T)]
        terms = [term + 0 * ends[0].sum() for term in terms]
        if self.case.touches != "states":
            for b, y in enumerate(ys):
                for t in range(len(y)):
                    terms[t] = terms[t] + (self.R[t, b] * (y[t] + y[t] ** 2)).sum()
        if self.case.touches in ("states", "both"):
            terms[-1] = terms[-1] + sum((Q * (s + s**2)).sum() for Q, s in zip(self.Q, ends, strict=True))
        return torch.stack(terms)

    def step(self, backward=lambda losses: losses.sum().backward()):
        """One training step: every number it leaves, by name."""
        self.net.zero_grad(set_to_none=True)
        torch.manual_seed(self.case.seed + 1)
        x, states = self.given()
        ys, ends = self.call(x, states)
        losses = self.losses(ys, ends)
        backward(losses)
        found = {f"y{b}": y.detach() for b, y in enumerate(ys)} | {f"end{i}": s.detach() for i, s in enumerate(ends)}
        found |= {f"d{n}": p.grad for n, p in self.net.named_parameters()} | {"losses": losses.detach()}
        found |= {f"ds{i}": s.grad for i, s in enumerate(states)} | {"dx": x.grad, "random": torch.get_rng_state()}
        return {name: value for name, value in found.items() if value is not None}

    def untied(self):
        """The twin, and its losses."""
        case, rnn = self.case, self.net.rnn
        twin = Untied(rnn, case.T, case.B)
        torch.manual_seed(case.seed + 1)
        masks = {layer: self._mask() for layer in range(case.layers - 1)} if case.dropout else None
        states = [s[:, self.order] for s in self.start]
        if case.state == "none":
            states = [torch.zeros_like(s) for s in states]
        elif case.state == "learned":
            states = [p.detach().expand(-1, case.B, -1) for p in self.net.start]
        xs = [self.x[:L, b] for L, b in zip(self.sorted_lengths, self.order, strict=True)]
        ys, ends = twin.run(xs, states, self.sorted_lengths, masks)
        return twin, self.losses(ys, ends)

    def _mask(self):
        """What torch draws for one layer's outputs, by sequence."""
        case, W = self.case, self.R.shape[-1]
        if not case.packed:
            drawn = nn.functional.dropout(torch.ones(case.T, case.B, W, dtype=self.x.dtype), case.dropout)
            return list(drawn.unbind(1))
        drawn = nn.functional.dropout(torch.ones(sum(self.lengths), W, dtype=self.x.dtype), case.dropout)
        rows, at = [[] for _ in range(case.B)], 0
        for t in range(case.T):
            for b in range(sum(t < L for L in self.lengths)):
                rows[b].append(drawn[at])
                at += 1
        return [torch.stack(r) for r in rows]

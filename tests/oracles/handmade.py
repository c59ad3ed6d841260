"""Recurrent models by hand, each written once and run twice: as a module, and with a copy of its own for every use.

A model asks for a weight by `use(name, of)`, which gives a function of no arguments. The module's gives of(W), made
once before the loop; the untied one's gives of(copy) of a new copy at every call. So what is hoisted out of a loop is
one tensor for the module, and a use at every call for the twin.
"""

import torch
import torch.nn.functional as F
from torch import nn

T, B, D, H = 4, 3, 2, 3


def numbers(*shape, seed=0, dtype=torch.float64):
    return 0.6 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Hand(nn.Module):
    """A model of `MODELS` as a module with parameters of its own."""

    def __init__(self, name, dtype=torch.float64):
        super().__init__()
        self.shapes, self.run = MODELS[name]
        for i, (n, shape) in enumerate(self.shapes.items()):
            setattr(self, n, nn.Parameter(numbers(*shape, seed=i + 1, dtype=dtype)))

    def forward(self, x):
        return self.run(self.use, x)

    def use(self, name, of=lambda W: W):
        made = of(getattr(self, name))
        return lambda: made


class Copies:
    """The twin's weights: name → every copy that was used, in their order."""

    def __init__(self, model):
        self.model, self.of = model, {name: [] for name in model.shapes}

    def use(self, name, of=lambda W: W):
        def copy():
            self.of[name].append(getattr(self.model, name).detach().clone().requires_grad_())
            return of(self.of[name][-1])

        return copy


def loop(step, **starts):
    """A model that goes over x (T, B, D) with `step(w, x, s)`, w a function for each weight."""

    def run(use, x):
        s, outs = numbers(B, H, seed=40, dtype=x.dtype), []
        w = {name: use(name, *of) for name, of in starts.items()}
        for row in x:
            s = step(w, row, s)
            outs.append(s)
        return outs

    return run


def of(**each):
    """Weights by name: () as they are, or a function that is worked out once."""
    return {name: () if f is None else (f,) for name, f in each.items()}


def model(shapes, step, **hoisted):
    return shapes, loop(step, **of(**dict.fromkeys(shapes) | hoisted))


WUB = {"W": (D, H), "U": (H, H), "b": (H,)}
ROWS = {"W": (H, D), "U": (H, H), "b": (H,)}


def columns(w, x, s):
    return torch.tanh(w["W"]() @ x.t() + w["U"]() @ s.t() + w["b"]()).t()


def vectors(w, x, s):
    return torch.stack([torch.tanh(w["W"]() @ a + w["U"]() @ h + w["b"]()) for a, h in zip(x, s, strict=True)])


def in_place(w, x, s):
    a = x @ w["W"]()
    a += s @ w["U"]()
    a.add_(w["b"]())
    return a.tanh_()


def in_place_product(w, x, s):
    a = s.clone()
    a.mul_(w["b"]()).addmm_(x, w["W"]()).addmm_(s, w["U"]())
    return torch.tanh(a)


def through_a_tensor(w, x, s):
    """Written into a buffer, column by column."""
    a = torch.zeros(B, 2 * H, dtype=x.dtype)
    a[:, :H] = x @ w["W"]()
    a[:, H:] = s @ w["U"]()
    return torch.tanh(a[:, :H] + a[:, H:] + w["b"]())


def chunked_gates(w, x, s):
    a, b = (F.linear(x, w["W"]()) + F.linear(s, w["U"](), w["b"]())).chunk(2, 1)
    return torch.sigmoid(a) * torch.tanh(b) + 0.5 * s


def peepholes(w, x, s):
    c = torch.sigmoid(x @ w["W"]() + w["p"]() * s) * s + torch.tanh(x @ w["W"]())
    return c * torch.sigmoid(torch.mul(c, w["q"]()))


def autonomous(use, x):
    """A start that is learned, and nothing else comes in."""
    U, b, s0 = use("U"), use("b"), use("s0")
    s, outs = s0(), []
    for _ in range(T):
        s = s + 0.3 * torch.tanh(F.linear(s, U(), b()))
        outs.append(s)
    return outs


def euler(use, x):
    """Two evaluations for each step, as Heun's method has it."""
    W, U = use("W"), use("U")
    s, outs = x[0] @ W(), []
    for _ in range(T):
        k = torch.tanh(s @ U())
        s = s + 0.1 * (k + torch.tanh((s + 0.2 * k) @ U()))
        outs.append(s)
    return outs


def tied(use, x):
    """A table that is read by ids, and again to write."""
    E, U = use("E"), use("U")
    s, outs = numbers(B, H, seed=40, dtype=x.dtype), []
    for t in range(T):
        s = torch.tanh(F.embedding(torch.tensor([t, 0, 1]), E()) + s @ U())
        outs.append(F.linear(s, E()))
    return outs


def padded(w, x, s):
    return torch.tanh(F.embedding(torch.tensor([0, 2, 2]), w["E"](), padding_idx=2) + s @ w["U"]())


def mixed(w, x, s):
    """One weight in two kinds of product, and by its elements."""
    return torch.tanh(x @ w["U"]()[:D] + s @ w["U"]() + F.linear(s, w["U"]()) + w["U"]()[0])


def normed(w, x, s):
    return F.layer_norm(torch.tanh(x @ w["W"]() + s @ w["U"]()), (H,), w["g"](), w["b"]())


KEEP = (torch.arange(H * H).reshape(H, H) % 3 > 0).double()

MODELS = {
    "x @ W": model(WUB, lambda w, x, s: torch.tanh(x @ w["W"]() + s @ w["U"]() + w["b"]())),
    "torch.matmul": model(
        WUB, lambda w, x, s: torch.tanh(torch.matmul(x, w["W"]()) + s.matmul(w["U"]()).add(w["b"]()))
    ),
    "torch.mm": model(WUB, lambda w, x, s: torch.tanh(torch.mm(x, w["W"]()) + s.mm(w["U"]()) + w["b"]())),
    "F.linear": model(ROWS, lambda w, x, s: torch.tanh(F.linear(x, w["W"](), w["b"]()) + F.linear(s, w["U"]()))),
    "W @ x, columns": model({"W": (H, D), "U": (H, H), "b": (H, 1)}, columns),
    "W @ x, vectors": model({"W": (H, D), "U": (H, H), "b": (H,)}, vectors),
    "addmm": model(WUB, lambda w, x, s: torch.tanh(torch.addmm(w["b"](), x, w["W"]()).addmm(s, w["U"]()))),
    "einsum": model(
        WUB,
        lambda w, x, s: torch.tanh(
            torch.einsum("bd,dh->bh", x, w["W"]()) + torch.einsum("bd,dh->bh", [s, w["U"]()]) + w["b"]()
        ),
    ),
    "broadcasting": model(
        WUB,
        lambda w, x, s: torch.tanh((x[:, :, None] * w["W"]()).sum(1) + (s[:, :, None] * w["U"]()).sum(1) + w["b"]()),
    ),
    "bmm": model(
        {"W": (D, H), "U": (1, H, H)},
        lambda w, x, s: torch.tanh(x @ w["W"]() + torch.bmm(s[:, None], w["U"]().expand(B, H, H))[:, 0]),
    ),
    "three axes": model(
        {"W": (D, H), "U": (H, H)}, lambda w, x, s: torch.tanh((x[None] @ w["W"]() + s[None] @ w["U"]())[0])
    ),
    "in place": model(WUB, in_place),
    "in place, products": model(WUB, in_place_product),
    "through a tensor": model(WUB, through_a_tensor),
    "gates": model({"W": (2 * H, D), "U": (2 * H, H), "b": (2 * H,)}, chunked_gates),
    "peepholes": model({"W": (D, H), "p": (H,), "q": (H,)}, peepholes),
    "hoisted transposes": model(
        ROWS, lambda w, x, s: torch.tanh(x @ w["W"]() + s @ w["U"]() + w["b"]()), W=lambda W: W.t(), U=lambda U: U.T
    ),
    "addmm, hoisted transposes": model(
        ROWS, lambda w, x, s: torch.tanh(torch.addmm(w["b"](), x, w["W"]()).addmm(s, w["U"]())),
        W=lambda W: W.t(), U=lambda U: U.t(),
    ),
    "a transpose of a transpose": model(
        ROWS, lambda w, x, s: torch.tanh(F.linear(x, w["W"]()) + s @ w["U"]() + w["b"]()),
        W=lambda W: W.t().transpose(0, 1), U=lambda U: U.mT.permute(1, 0),
    ),
    "hoisted slices": model(
        {"W": (D + 2, H), "U": (H, 2 * H), "b": (2, H)},
        lambda w, x, s: torch.tanh(x @ w["W"]() + s @ w["U"]() + w["b"]()),
        W=lambda W: W[1 : D + 1], U=lambda U: U.chunk(2, 1)[1], b=lambda b: b[1],
    ),
    "hoisted arithmetic": model(
        WUB, lambda w, x, s: torch.tanh(x @ w["W"]() + s @ w["U"]() + w["b"]()),
        W=lambda W: W / W.norm(), U=lambda U: U - U.t(), b=lambda b: 2 * b.exp(),
    ),
    "dropconnect": model(
        WUB, lambda w, x, s: torch.tanh(x @ w["W"]() + s @ w["U"]() + w["b"]()), U=lambda U: U * KEEP.to(U.dtype)
    ),
    "dropconnect in place": model(
        WUB, lambda w, x, s: torch.tanh(x @ w["W"]() + s @ w["U"]() + w["b"]()),
        U=lambda U: U.clone().mul_(KEEP.to(U.dtype)),
    ),
    "masked": model(
        WUB, lambda w, x, s: torch.tanh(x @ w["W"]() + s @ w["U"]() + w["b"]()),
        U=lambda U: U.masked_fill(KEEP == 0, 0.0),
    ),
    "autonomous": ({"s0": (B, H), "U": (H, H), "b": (H,)}, autonomous),
    "Heun": ({"W": (D, H), "U": (H, H)}, euler),
    "tied embedding": ({"E": (5, H), "U": (H, H)}, tied),
    "padded embedding": model({"E": (5, H), "U": (H, H)}, padded),
    "mixed": model({"U": (H, H)}, mixed),
    "layer norm": model({"W": (D, H), "U": (H, H), "g": (H,), "b": (H,)}, normed),
    "bilinear": model(
        {"W": (H, D, H), "b": (H,)}, lambda w, x, s: torch.tanh(F.bilinear(x, s, w["W"](), w["b"]()))
    ),
    "convolution": model(
        {"K": (1, 1, 3), "W": (D, H)},
        lambda w, x, s: torch.tanh(F.conv1d(s[:, None], w["K"](), padding=1)[:, 0] + x @ w["W"]()),
    ),
    "a list of tensors": model(
        {"W": (D, H), "U": (H, H)},
        lambda w, x, s: torch.tanh(torch.cat([x, s], 1) @ torch.cat([w["W"](), w["U"]()])),
    ),
    "batch of one": model(
        {"W": (D, H), "U": (H, H)}, lambda w, x, s: torch.tanh(x[0] @ w["W"]() + s[0] @ w["U"]()) + 0 * s
    ),
}  # fmt: skip

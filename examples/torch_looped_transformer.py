"""One transformer layer, applied twelve times: which of its uses learns?

    python examples/torch_looped_transformer.py

Weights can be shared over depth instead of time: "steps" are then the passes through the same
`nn.TransformerEncoderLayer`. The gradient of a weight is a sum over twelve uses of it; a ledger takes it apart. Nothing
here is recurrent for PyTorch, so there is no state; what a use adds is ‖dW_t‖, and which way it pulls is its share.

Seed 0, before training. With the norm after each block, as in 2017, the last pass adds twice what the first does, and
the gradient falls on its way back through the middle. With the norm before it, all twelve passes add about the same.
"""

import torch
from torch import Tensor, nn

import bptt
from bptt.report.terminal import bar, percent

DEPTH, SEED = 12, 0


class Looped(nn.Module):
    """The same layer again and again, as in a Universal Transformer."""

    def __init__(self, norm_first: bool):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=norm_first)
        self.readout = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, 32) → (B, S, 5)."""
        for _ in range(DEPTH):
            x = self.layer(x)
        return self.readout(x)


def look(norm_first: bool) -> bptt.Ledger:
    """The ledger of one step of an untrained model."""
    torch.manual_seed(SEED)
    model, x, targets = Looped(norm_first), torch.randn(8, 10, 32), torch.randint(0, 5, (8, 10))
    with bptt.trace(model) as trace:
        nn.functional.cross_entropy(model(x).mT, targets).backward()
    return trace.ledger


def main() -> dict[str, list]:
    """Trace both; returns ‖dW_t‖ by depth."""
    found, W = {}, "layer.linear1.weight"
    for title, norm_first in (("norm after", False), ("norm before", True)):
        ledger = look(norm_first)
        norms, shares = ledger.norms(W), ledger.shares(W)
        found[title] = norms.tolist()
        print(f"{title}: {len(ledger.names)} weights used {DEPTH} times, coherence of {W} {ledger.coherence(W):.2f}")
        for depth, (norm, share) in enumerate(zip(norms, shares, strict=True), 1):
            print(f"  pass {depth:2}  ‖dW_t‖ {norm:.4f}  share {percent(share):>7}  {bar(norm / norms.max(), 30)}")
        found[f"residual {title}"] = [ledger.residual]
    return found


if __name__ == "__main__":
    main()

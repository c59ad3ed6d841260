"""A packed batch of four lengths: what each step and each sequence adds, and that padding adds nothing.

    python examples/torch_packed_batch.py

`nn.GRU` gets sequences of 12, 9, 5 and 2 steps as a PackedSequence; the loss stands at the last step of each. Use t of
a weight is made of the sequences that are still there at step t, and the part of a sequence is exactly 0 after its end.
A short sequence has its loss a few steps from its first use, and pulls there more than a long one: at step 2 the
two-step sequence gives 0.0197 and the twelve-step one 0.0005. (At step 1 all is 0: weight_hh meets an initial state of
zeros.)
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import bptt

LENGTHS, SEED = (12, 9, 5, 2), 0


def main() -> dict[str, list]:
    """Trace one pass; returns norms per step and sequence."""
    torch.manual_seed(SEED)
    gru, readout = nn.GRU(3, 16), nn.Linear(16, 1)
    model = nn.ModuleDict({"gru": gru, "readout": readout})
    x = torch.randn(max(LENGTHS), len(LENGTHS), 3)
    x[torch.arange(max(LENGTHS))[:, None] >= torch.tensor(LENGTHS)] = 1e6  # padding that nobody may look at
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS))
    with bptt.trace(model) as trace:
        _, last = gru(packed)
        (readout(last[0]) - 1).square().mean().backward()
    ledger, W = trace.ledger, "gru.weight_hh_l0"
    ours, parts = ledger.norms(W), ledger.sequence_norms(W)
    print(f"sequences of {', '.join(map(str, LENGTHS))} steps, seed {SEED}: ‖dW_t‖ of weight_hh, and of each sequence")
    for t, (norm, row) in enumerate(zip(ours, parts, strict=True), 1):
        cells = "".join(f"{part:10.5f}" if part else f"{'·':>10}" for part in row)
        print(f"  step {t:2}  {norm:8.5f} {cells}")
    carried = ledger.states["gru.l0."]  # (T + 1, B): before step 1, then after each
    print("  what comes back to each initial state, ‖∂J/∂h_0‖:", "  ".join(f"{part:.4f}" for part in carried[0]))
    print(f"  residual {ledger.residual:.0e}")
    return {
        "norms": ours.tolist(), "parts": parts.tolist(), "initial": carried[0].tolist(), "residual": [ledger.residual]
    }  # fmt: skip


if __name__ == "__main__":
    main()

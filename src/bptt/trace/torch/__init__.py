"""PyTorch: the ledger of any `torch.nn.Module`, unmodified."""

from bptt.trace.torch.tracing import Trace, trace
from bptt.trace.torch.watching import Watch, watch

__all__ = ["Trace", "Watch", "trace", "watch"]

"""PyTorch: the ledger of any `torch.nn.Module`, unmodified."""

from bptt.trace.torch.tracing import Trace, trace

__all__ = ["Trace", "trace"]

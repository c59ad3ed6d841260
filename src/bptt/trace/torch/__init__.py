"""PyTorch: the ledger of any `torch.nn.Module`, unmodified; and whether its gradient really reaches back."""

from bptt.trace.torch.audit import Audit, audit
from bptt.trace.torch.audit.findings import chosen as audit_codes
from bptt.trace.torch.batches import make_batch
from bptt.trace.torch.factory import load
from bptt.trace.torch.tracing import Trace, trace
from bptt.trace.torch.watching import Watch, watch

__all__ = ["Audit", "Trace", "Watch", "audit", "audit_codes", "load", "make_batch", "trace", "watch"]

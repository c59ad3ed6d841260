"""Does the gradient really reach back? Finite differences against autodiff, use by use."""

from bptt.trace.torch.audit.auditing import audit
from bptt.trace.torch.audit.findings import RULES, Finding
from bptt.trace.torch.audit.result import Audit

__all__ = ["RULES", "Audit", "Finding", "audit"]

"""Questions put to a ledger or a model: how far back does the gradient reach."""

from bptt.diagnose.horizon import horizon, truncation_bias

__all__ = ["horizon", "truncation_bias"]

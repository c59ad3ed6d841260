"""Networks made of cells, their losses, and the weight layouts of other frameworks."""

from bptt.model.batch import Batch
from bptt.model.losses import Loss, LossValue
from bptt.model.network import Network, Scan, States, require_finite

__all__ = ["Batch", "Loss", "LossValue", "Network", "Scan", "States", "require_finite"]

"""The largest Lyapunov exponent while a network learns, on the batch of the probe."""

import math
from typing import Any

from bptt.diagnose.exponents import sample_exponent
from bptt.errors import NotFiniteError
from bptt.model import Network
from bptt.train.config import Config
from bptt.train.probe import probe_batch
from bptt.train.problem import Problem


class JacobianSample:
    """What is asked every `jacobian_every` iterations."""

    def __init__(self, problem: Problem, config: Config):
        self.problem, self.config = problem, config
        self.batch = None

    def look(self, network: Network) -> dict[str, Any]:
        """exponent: per step, None where nothing of the state is handed on or where a number is not finite.

        error: its standard error over the sequences.
        """
        if self.batch is None:
            self.batch = probe_batch(self.problem, self.config)
        try:
            exponent, error = sample_exponent(network, self.batch, engine=self.config.engine)
        except NotFiniteError:  # the training itself says so, if it meets the same
            return {"exponent": None, "error": None}
        return {"exponent": exponent, "error": error} if math.isfinite(exponent) else {"exponent": None, "error": None}

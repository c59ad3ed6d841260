"""What the machine can do at most: a square float32 product by NumPy's BLAS."""

from benchmarks.contenders import Work
from benchmarks.problem import Problem

SIZE = 2048
OPERATIONS = 2 * SIZE**3


def sgemm(problem: Problem, threads: int) -> Work:
    """2048 × 2048 times 2048 × 2048; the problem does not matter."""
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))
    out = np.empty_like(a)
    return Work(lambda: np.matmul(a, b, out=out), None)

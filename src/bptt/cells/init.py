"""Initialisations by name, each with its source.

    glorot       U(±√(6 / (in + out))), Glorot & Bengio 2010, equation 16; for each gate's block on its own
    orthogonal   Q of a Gaussian matrix, Saxe et al. 2013, arXiv 1312.6120; for each gate's block on its own
    identity     the identity, and inputs N(0, 0.001²), Le, Jaitly, Hinton 2015, arXiv 1504.00941 (IRNN, with relu)
    forget bias  b_f = 1, Jozefowicz et al. 2015, and before them Gers et al. 2000
    chrono       b_f = log u, b_i = −b_f with u ~ U(1, T_max − 1), Tallec & Ollivier 2018, arXiv 1804.11188, section 2

Input weights are always Glorot (with identity: Gaussian); the names above are about the recurrent weights.
"""

import numpy as np

from bptt.cells.base import Cell
from bptt.errors import InputError, unknown
from bptt.typing import Array, Params

SCHEMES = ("glorot", "orthogonal", "identity")
REMEMBERING = {"LSTM": "f", "GRU": "z"}  # the gate whose bias sets how long the state is kept


def glorot(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Uniform within ±√(6 / (in + out)).

    >>> float(abs(glorot(np.random.default_rng(0), (4, 2))).max()) <= 1.0
    True
    """
    bound = np.sqrt(6 / sum(shape))
    return rng.uniform(-bound, bound, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Orthonormal columns (or rows, whichever are fewer), drawn uniformly.

    >>> q = orthogonal(np.random.default_rng(0), (3, 3))
    >>> bool(np.allclose(q.T @ q, np.eye(3)))
    True
    """
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q = q * np.sign(np.diag(r))  # without this the draw favours some rotations (Mezzadri 2007)
    return q if rows >= columns else q.T


def identity(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Ones on the diagonal; draws nothing."""
    return np.eye(*shape)


def small(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """N(0, 0.001²), the input weights of an IRNN."""
    return 0.001 * rng.standard_normal(shape)


def initialise(
    cell: Cell,
    inputs: int,
    rng: np.random.Generator,
    *,
    recurrent: str = "orthogonal",
    forget_bias: float = 1.0,
    chrono: int | None = None,
) -> Params:
    """Parameters of one cell, float64.

    Args:
        cell: the cell.
        inputs: D.
        rng: the generator; the same state gives the same parameters.
        recurrent: one of `SCHEMES`, for the recurrent weights.
        forget_bias: b_f of an LSTM; other cells have no forget gate and ignore it.
        chrono: T_max, the longest lag to remember, in steps; replaces the forget bias. For a GRU it sets b_z.

    Raises:
        UnknownName: `recurrent` is not one of `SCHEMES`.
        InputError: `chrono` below 3, or on a cell without gates.
    """
    if recurrent not in SCHEMES:
        raise unknown("initialisation", recurrent, SCHEMES)
    draw = {"glorot": glorot, "orthogonal": orthogonal, "identity": identity}[recurrent]
    draw_input = small if recurrent == "identity" else glorot
    params: Params = {}
    for name, shape in cell.shapes(inputs).items():
        if name == "W_hr":
            params[name] = glorot(rng, (shape[0], shape[1]))
        elif len(shape) == 2:
            blocks = len(cell.gates)
            block = (shape[0], shape[1] // blocks)
            params[name] = np.hstack([(draw_input if name == "W_xh" else draw)(rng, block) for _ in range(blocks)])
        else:
            params[name] = np.zeros(shape)
    _set_memory(cell, params, rng, forget_bias, chrono)
    return params


def _set_memory(cell: Cell, params: Params, rng: np.random.Generator, forget_bias: float, chrono: int | None) -> None:
    kind = cell.name.split(" ")[0]
    if chrono is None:
        if kind == "LSTM":
            _gate(cell, params["b"], "f")[:] = forget_bias
        return
    if kind not in REMEMBERING:
        raise InputError("chrono initialisation", got=cell.name, expected="an LSTM or a GRU, whose gates it sets")
    if chrono < 3:
        raise InputError("chrono initialisation", got=f"T_max = {chrono}", expected="at least 3 steps")
    keep = np.log(rng.uniform(1, chrono - 1, cell.hidden))
    _gate(cell, params["b"], REMEMBERING[kind])[:] = keep
    if kind == "LSTM":
        _gate(cell, params["b"], "i")[:] = -keep


def _gate(cell: Cell, b: Array, gate: str) -> Array:
    at = cell.gates.index(gate) * cell.hidden
    return b[at : at + cell.hidden]

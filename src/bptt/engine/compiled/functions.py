"""exp, σ and tanh by themselves, in place over n elements of a flat array; the cells have them inside their equations.

    eˣ       = 2ⁿ eʳ, n = ⌊x / ln 2 + ½⌋, eʳ a polynomial (float32) or a quotient of polynomials (float64)
    σ(x)     = 1 / (1 + e⁻ˣ)
    tanh(x)  = x + x³ P(x²) for |x| < 0.625, with a quotient for P in float64;   ±(1 − 2 / (e²|ˣ| + 1)) beyond

The constants are those of Moshier's approximations (Cephes, 1984–1992); the code is `emit.Code`'s. At most 3 units in
the last place of float32 and of float64 over all the range (`tests/engine/test_functions.py`). NaN stays NaN.
"""

from bptt.engine.compiled.emit import elementwise
from bptt.engine.compiled.kernel import kernel

_exp = elementwise(1, lambda code, at: code.store(code.exp(code.load(at[0])), at[0]))
_sigmoid = elementwise(1, lambda code, at: code.store(code.sigmoid(code.load(at[0])), at[0]))
_tanh = elementwise(1, lambda code, at: code.store(code.tanh(code.load(at[0])), at[0]))


@kernel
def exponentials(A, at, n):
    """eˣ in place of A[at : at + n]."""
    _exp(A, at, n)


@kernel
def sigmoid(A, at, n):
    """σ(x) in place of A[at : at + n]."""
    _sigmoid(A, at, n)


@kernel
def tanh(A, at, n):
    """tanh x in place of A[at : at + n]."""
    _tanh(A, at, n)

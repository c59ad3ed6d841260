"""The dimension key, and the names of arrays.

One letter, one meaning, in the whole package:

    T  step of the sequence          B  sequence of the batch       K  loss step (k)
    D  input feature                 H  hidden unit                 P  projected unit (P = H without projection)
    G  gate                          O  output of the readout       S  unit of the whole state (h, or h and c)

    z      input of one use          a  pre-activation              δ  derivative of the loss by a
    dX     derivative of the loss by X; has the shape of X

Arrays over a sequence are time-major: (T, B, D). Steps are counted from 1 in everything a user reads or types, as in
the field's equations; array indices count from 0 as in Python.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Params = dict[str, Array]

__all__ = ["Array", "Params"]

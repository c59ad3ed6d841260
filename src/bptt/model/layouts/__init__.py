"""Weights in and out of `Network.params`, in the layouts of PyTorch, Keras, ONNX and the NumPy course exercise.

Ours: a = x W_xh + h_prev W_hh + b, with x a row; W_xh (D, G·H), W_hh (P, G·H), b (G·H,); gates side by side, in the
order of the cell. D input · H hidden · P projected (P = H without) · G gates · O output · W width of the last layer.

                  PyTorch                Keras 3                    ONNX, one node per layer     course exercise
    ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    container     state dict             list, `get_weights()`      list of nodes' inputs        dict
    acts on       rows, a = x Wᵀ         rows, a = x W              rows, a = x Wᵀ               columns, a = W [h; x]
    W_xh          weight_ih_l0           kernel                     W (dirs, G·H, D)             Wax (H, D)
                  (G·H, D)               (D, G·H)                                                or right part of W·
    W_hh          weight_hh_l0           recurrent_kernel           R (dirs, G·H, H)             Waa (H, H)
                  (G·H, P)               (H, G·H)                                                or left part of W·
    b             bias_ih_l0 + bias_hh_l0  bias (G·H,)              B (dirs, 2·G·H),             ba (H, 1)
                  (G·H,) each                                       two halves, summed           or b· (H, 1) each
    LSTM gates    i f g o                i f c o                    i o f c                      Wf Wi Wc Wo (H, H + D)
    GRU gates     r z n                  z r h                      z r h                        –
    GRU reset     after                  reset_after=True or False  linear_before_reset=1 or 0   –
      b, b_hn     n of bias_hh is b_hn   bias (2, 3·H): input row,  second half of B: its h      –
                                         recurrent row; else (3·H,) is b_hn
    peepholes     –                      –                          P (dirs, 3·H), i o f         –
    projection    weight_hr_l0 (P, H)    –                          –                            –
    other         _l0, _l1, …;           layer by layer;            dirs = 2: forward, then      one layer, one
      layers,     _reverse               Bidirectional: forward,    reverse                      direction
      directions                         then backward
    readout       weight (O, W),         Dense: kernel (W, O),      Gemm: B (W, O), C (O,)       Wya or Wy (O, H),
                  bias (O,)              bias (O,)                                               by (O, 1)
    nonlinearity  tanh or relu           tanh or relu               Tanh or Relu                 tanh

g, c, n and h are names of the same thing, the candidate. Absent biases are read as zeros. The tests hold each column
against the framework itself: same outputs, same gradients, to 1e-12.

For each layout, three functions: `from_…` reads a network, `to_…` gives its weights, `gradients_to_…` gives gradients
by their parameters. The last takes step gradients and contributions too: leading axes of an array stay in front.
"""

from bptt.model.layouts.course import from_course, gradients_to_course, to_course, x_from_course, x_to_course
from bptt.model.layouts.keras import from_keras, gradients_to_keras, to_keras
from bptt.model.layouts.onnx import from_onnx, gradients_to_onnx, to_onnx
from bptt.model.layouts.torch import from_torch, gradients_to_torch, to_torch

__all__ = [
    "from_course",
    "from_keras",
    "from_onnx",
    "from_torch",
    "gradients_to_course",
    "gradients_to_keras",
    "gradients_to_onnx",
    "gradients_to_torch",
    "to_course",
    "to_keras",
    "to_onnx",
    "to_torch",
    "x_from_course",
    "x_to_course",
]

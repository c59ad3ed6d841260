"""What foreign arrays can get wrong, and the one clear line that says so. NumPy only."""

import re
import subprocess
import sys

import numpy as np
import pytest

from bptt.errors import InputError, ShapeError, UnknownName
from bptt.model import Network
from bptt.model.layouts import (
    from_course,
    from_keras,
    from_onnx,
    from_torch,
    gradients_to_course,
    gradients_to_onnx,
    gradients_to_torch,
    to_course,
    to_keras,
    to_onnx,
    to_torch,
    x_from_course,
)

NETWORK = Network.create("lstm", inputs=4, hidden=5, outputs=2)
WORDS = "LSTM, D=4, H=5, O=2, 212 parameters"
TORCH = to_torch(NETWORK, prefix="lstm", readout="fc")
KERAS = to_keras(NETWORK)
ONNX = to_onnx(NETWORK)
COURSE = to_course(NETWORK)


def but(arrays, changed, drop=()):
    return {name: value for name, value in arrays.items() if name not in drop} | changed


def ones(*shape):
    return np.ones(shape)


def says(caught, pattern):
    """The whole message is one line, with * for anything."""
    assert re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), str(caught.value)), str(caught.value)


def test_torch_transposed():
    with pytest.raises(ShapeError) as caught:
        from_torch(but(TORCH, {"lstm.weight_hh_l0": TORCH["lstm.weight_hh_l0"].T}), "lstm")
    says(
        caught,
        f"array 'lstm.weight_hh_l0': got shape (5, 20), expected (20, 5) for {WORDS}. "
        "It is transposed: swap its last two axes.",
    )


@pytest.mark.parametrize(
    ("name", "shape", "right"),
    [("lstm.weight_ih_l0", (4, 20), (20, 4)), ("fc.weight", (5, 2), (2, 5)), ("lstm.bias_hh_l0", (19,), (20,))],
)
def test_torch_wrong_shape(name, shape, right):
    with pytest.raises(ShapeError) as caught:
        from_torch(but(TORCH, {name: ones(*shape)}), "lstm")
    hint = " It is transposed: swap its last two axes." if len(shape) == 2 else ""
    says(caught, f"array '{name}': got shape {shape}, expected {right} for {WORDS}" + (f".{hint}" if hint else ""))


def test_torch_wrong_kind():
    with pytest.raises(ShapeError) as caught:
        from_torch(TORCH, "gru")
    says(
        caught,
        "array 'lstm.weight_hh_l0': got shape (20, 5), 4 × 5, expected 3 × 5 for kind='gru'. "
        "It looks like kind='lstm'.",
    )


TORCH_NAMES = {
    "missing": (
        but(TORCH, {}, ["lstm.bias_hh_l0"]),
        "arrays for PyTorch: got 5 of 6, expected an array 'lstm.bias_hh_l0' beside *",
    ),
    "slip": (
        but(TORCH, {"lstm.bias_hh_10": ones(20)}, ["lstm.bias_hh_l0"]),
        "array for PyTorch: got 'lstm.bias_hh_10', expected one of lstm.bias_hh_l0. Did you mean 'lstm.bias_hh_l0'?",
    ),
    "slip in the name that gives the size": (
        but(TORCH, {"lstm.weight_hh_10": ones(20, 5)}, ["lstm.weight_hh_l0"]),
        "arrays for PyTorch: got none named 'lstm.weight_hh_l0', expected it beside *. Is it 'lstm.weight_hh_10'?",
    ),
    "slip in the name that gives the prefix": (
        but(TORCH, {"lstm.weight_ih_10": ones(20, 4)}, ["lstm.weight_ih_l0"]),
        "arrays for PyTorch: got none named 'weight_ih_l0', expected it beside *. Is it 'lstm.weight_ih_10'?",
    ),
    "a layer left out": (
        but(TORCH, {"lstm.weight_ih_l2": ones(20, 5)}),
        "array for PyTorch: got 'lstm.weight_ih_l2', expected only *. Leave other layers out; *",
    ),
    "another layer": (
        but(TORCH, {"emb.weight": ones(9, 4)}),
        "array for PyTorch: got 'emb.weight', expected only *. Leave other layers out; if it is the linear readout, "
        "name it with readout='…'.",
    ),
    "two readouts": (
        but(TORCH, {"norm.weight": ones(5), "norm.bias": ones(5)}),
        "arrays for PyTorch: got layers ['fc.', 'norm.'], expected one linear readout. Choose one with readout='…', *",
    ),
    "two recurrent layers": (
        but(TORCH, {"gru.weight_ih_l0": ones(15, 4)}),
        "arrays for PyTorch: got recurrent layers ['lstm.', 'gru.'], expected one. Choose one with prefix='…', *",
    ),
    "nothing": ({}, "arrays for PyTorch: got none named 'weight_ih_l0', expected it beside others"),
}


@pytest.mark.parametrize(("arrays", "message"), TORCH_NAMES.values(), ids=TORCH_NAMES)
def test_torch_names(arrays, message):
    with pytest.raises(InputError) as caught:
        from_torch(arrays, "lstm")
    says(caught, message)


def test_torch_arguments():
    with pytest.raises(UnknownName) as caught:
        from_torch(TORCH, "lstm", prefix="rnn")
    says(caught, "arrays for PyTorch: got none named 'rnn.weight_hh_l0', *. Is it 'lstm.weight_hh_l0'?")
    with pytest.raises(UnknownName) as caught:
        from_torch(TORCH, "ltsm")
    says(caught, "cell: got 'ltsm', expected one of rnn, gru, lstm. Did you mean 'lstm'?")
    with pytest.raises(UnknownName) as caught:
        from_torch(TORCH, "lstm", nonlinearity="relu")
    says(caught, "option of lstm: got 'nonlinearity', expected one of peepholes, projection*")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a", "b"], "array 'fc.bias': got <U1, expected an array of numbers"),
        ([[1, 2], [3]], "array 'fc.bias': got a list that NumPy does not take, expected an array of numbers. Bring *"),
        (None, "array 'fc.bias': got object, expected an array of numbers"),
    ],
)
def test_no_numbers(value, message):
    with pytest.raises(InputError) as caught:
        from_torch(but(TORCH, {"fc.bias": value}), "lstm")
    says(caught, message)


GRU = to_keras(Network.create("gru", inputs=4, hidden=5, outputs=2))
KERAS_CASES = {
    "transposed": (
        [KERAS[0], KERAS[1].T, *KERAS[2:]],
        {},
        "array 'layer0.recurrent_kernel (array 1)': got shape (20, 5), expected (5, 20) for *. It is transposed: *",
    ),
    "wrong kind": (
        KERAS,
        {"kind": "gru"},
        "array 'layer0.recurrent_kernel (array 1)': got shape (5, 20), 4 × 5, expected 3 × 5 for kind='gru'. *'lstm'.",
    ),
    "wrong reset": (
        GRU,
        {"kind": "gru", "reset_after": False},
        "array 'layer0.bias (array 2)': got shape (2, 15), expected (15,) for GRU (reset before), *. "
        "use_bias, reset_after and bidirectional must be those of the layer.",
    ),
    "no bias": (
        [KERAS[0], KERAS[1]],
        {},
        "arrays for Keras: got 2 of shapes [(4, 20), (5, 20)], "
        "expected 3 arrays for each recurrent layer, then at most 2 for a Dense. use_bias, *",
    ),
    "one direction as two": (KERAS, {"bidirectional": True}, "arrays for Keras: got 5 of shapes *, expected 6 *"),
    "reset of an LSTM": (KERAS, {"reset_after": False}, "option of lstm: got 'reset', expected one of *"),
    "nothing": ([], {}, "arrays for Keras: got 0 of shapes [], *"),
}


@pytest.mark.parametrize(("arrays", "options", "message"), KERAS_CASES.values(), ids=KERAS_CASES)
def test_keras(arrays, options, message):
    with pytest.raises(InputError) as caught:
        from_keras(arrays, **{"kind": "lstm"} | options)
    says(caught, message)


NODE, GEMM = ONNX
ONNX_CASES = {
    "transposed": (
        [but(NODE, {"R": NODE["R"].swapaxes(1, 2)}), GEMM],
        f"array 'node0.R': got shape (1, 5, 20), expected (1, 20, 5) for {WORDS}. It is transposed: *",
    ),
    "transposed Gemm": (
        [NODE, but(GEMM, {"B": GEMM["B"].T})],
        f"array 'readout.B': got shape (2, 5), expected (5, 2) for {WORDS}. It is transposed: *",
    ),
    "no axis of directions": (
        but(NODE, {"W": NODE["W"][0]}),
        "array 'node0.W': got shape (20, 4), expected 3 axes for ONNX, none of them empty",
    ),
    "one bias": (
        but(NODE, {"B": ones(1, 20)}),
        "array 'node0.B': got shape (1, 20), expected (1, 40) for *. Check linear_before_reset *",
    ),
    "three directions": (
        but(NODE, {"W": ones(3, 20, 4)}),
        "array 'node0.W': got shape (3, 20, 4), expected (1, 20, 4) for *. Check *",
    ),
    "slip": (but(NODE, {"b": NODE["B"]}, ["B"]), "array for ONNX: got 'node0.b', expected only *. Leave it out."),
    "slip in R": (
        but(NODE, {"r": NODE["R"]}, ["R"]),
        "arrays for ONNX: got none named 'node0.R', expected it beside *. Is it 'node0.r'?",
    ),
    "no W": (
        [GEMM],
        "nodes for ONNX: got [['B', 'C']], expected W and R of each layer, then at most one Gemm's B and C",
    ),
    "nothing": ([], "nodes for ONNX: got [], expected *"),
    "peepholes of one layer only": (
        [but(NODE, {"P": ones(1, 15)}), but(NODE, {"W": ones(1, 20, 5)})],
        "arrays for ONNX: got 7 of 8, expected an array 'node1.P' beside *",
    ),
}


@pytest.mark.parametrize(("nodes", "message"), ONNX_CASES.values(), ids=ONNX_CASES)
def test_onnx(nodes, message):
    with pytest.raises(InputError) as caught:
        from_onnx(nodes, "lstm")
    says(caught, message)


COURSE_CASES = {
    "transposed": (
        but(COURSE, {"Wf": COURSE["Wf"].T}),
        "lstm",
        f"array 'Wf': got shape (9, 5), expected (5, 9) for {WORDS}. It is transposed: *",
    ),
    "bias as a row": (
        but(COURSE, {"bf": ones(5)}),
        "lstm",
        "array 'bf': got shape (5,), expected (5, 1) for *. Vectors are columns (n, 1), matrices act from the left.",
    ),
    "transposed readout": (
        but(COURSE, {"Wy": COURSE["Wy"].T}),
        "lstm",
        "array 'Wy': got shape (5, 2), expected (2, 5) for *. It is transposed: *",
    ),
    "slip": (
        but(COURSE, {"bc_": COURSE["bc"]}, ["bc"]),
        "lstm",
        "array for the course: got 'bc_', expected one of bc. Did you mean 'bc'?",
    ),
    "gradients instead of weights": (
        {f"d{name}": value for name, value in COURSE.items()},
        "lstm",
        "arrays for the course: got none named 'Wf', expected it beside *. Is it 'dWf'?",
    ),
    "wrong kind": (COURSE, "rnn", "arrays for the course: got none named 'Waa', expected it beside *"),
    "no such cell": (COURSE, "gru", "cell of the course: got 'gru', expected one of rnn, lstm*"),
}


@pytest.mark.parametrize(("arrays", "kind", "message"), COURSE_CASES.values(), ids=COURSE_CASES)
def test_course(arrays, kind, message):
    with pytest.raises(InputError) as caught:
        from_course(arrays, kind)
    says(caught, message)


def test_course_sequences():
    with pytest.raises(ShapeError) as caught:
        x_from_course(ones(3, 10))
    says(caught, "sequences: got shape (3, 10), expected three axes (n, m, T)")


def test_what_a_layout_has_no_place_for():
    options = {
        "peepholes": {"kind": "lstm", "peepholes": True},
        "projection": {"kind": "lstm", "projection": 2},
        "reset before the product": {"kind": "gru", "reset": "before"},
        "GRU": {"kind": "gru"},
        "relu": {"kind": "rnn", "nonlinearity": "relu"},
        "more than one layer": {"kind": "rnn", "layers": 2},
        "both directions": {"kind": "rnn", "bidirectional": True},
    }
    lacks = {
        to_torch: ["peepholes", "reset before the product"],
        to_keras: ["peepholes", "projection"],
        to_onnx: ["projection"],
        to_course: ["peepholes", "projection", "GRU", "relu", "more than one layer", "both directions"],
    }
    for export, features in lacks.items():
        for feature in features:
            network = Network.create(inputs=2, hidden=3, **options[feature])
            with pytest.raises(InputError) as caught:
                export(network)
            says(caught, f"layout of *: got {network.describe()}, expected a network without {feature}. Export *")
        for feature in options.keys() - set(features) - ({"reset before the product"} if "GRU" in features else set()):
            export(Network.create(inputs=2, hidden=3, **options[feature]))


def test_biases_are_not_dropped_silently():
    network = Network.create("lstm", inputs=2, hidden=3)  # forget bias 1
    for export in (lambda: to_torch(network, bias=False), lambda: to_keras(network, use_bias=False)):
        with pytest.raises(InputError) as caught:
            export()
        says(
            caught,
            "parameter layer0.b: got values other than 0, expected zeros, to leave it out for *. Export with biases.",
        )


GRADIENTS = {
    "none": ({}, InputError, "gradients: got none, expected at least one parameter's"),
    "name": ({"W_hh": ones(3, 9)}, UnknownName, "gradient: got 'W_hh', *. Did you mean 'layer0.W_hh'?"),
    "transposed": (
        {"layer0.W_hh": ones(4, 9, 3)},
        ShapeError,
        "gradient of layer0.W_hh: got shape (4, 9, 3), expected (..., 3, 9) for *. It is transposed: *",
    ),
    "number of axes": (
        {"layer0.W_hh": ones(9)},
        ShapeError,
        "gradient of layer0.W_hh: got shape (9,), expected (..., 3, 9) for *",
    ),
    "leading axes": (
        {"layer0.W_hh": ones(4, 3, 9), "layer0.b": ones(9)},
        ShapeError,
        "gradient of layer0.b: got leading axes (), expected (4,), as that of layer0.W_hh",
    ),
    "half of an array": (
        {"layer0.b_hn": ones(3)},
        InputError,
        "gradients: got layer0.b_hn alone, expected layer0.b beside it, "
        "since PyTorch has them in one array 'bias_hh_l0'",
    ),
}


@pytest.mark.parametrize(("gradients", "error", "message"), GRADIENTS.values(), ids=GRADIENTS)
def test_gradients(gradients, error, message):
    with pytest.raises(error) as caught:
        gradients_to_torch(Network.create("gru", inputs=2, hidden=3), gradients)
    says(caught, message)


def test_parts_of_one_array_want_each_other():
    with pytest.raises(InputError) as caught:
        gradients_to_course(NETWORK, {"layer0.W_hh": ones(5, 20)})
    says(
        caught,
        "gradients: got layer0.W_hh alone, expected layer0.W_xh beside it, since the course has them in one array 'Wf'",
    )
    both = Network.create("rnn", inputs=2, hidden=3, bidirectional=True)
    with pytest.raises(InputError) as caught:
        gradients_to_onnx(both, {"layer0.W_hh": ones(3, 3)})
    says(caught, "gradients: got layer0.W_hh alone, expected layer0.reverse.W_hh beside it, since ONNX *'node0.R'")


def test_dtypes_and_lists():
    arrays = {"weight_ih_l0": [[1, 2]], "weight_hh_l0": [[3]]}
    assert from_torch(arrays, "rnn").dtype == np.float64  # integers
    arrays = {name: np.array(value, np.float16) for name, value in arrays.items()}
    assert from_torch(arrays, "rnn").dtype == np.float32
    assert to_torch(NETWORK.astype(np.float32))["weight_ih_l0"].dtype == np.float32


def test_no_framework_is_imported():
    code = "import sys, bptt.model.layouts; print(sorted({'torch', 'keras', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_written_shares_no_memory_with_the_network():
    network = Network.create("rnn", inputs=2, hidden=3)
    arrays = to_torch(network)
    arrays["weight_hh_l0"][:] = 0
    assert network.params["layer0.W_hh"].any()
    assert all(array.flags.c_contiguous and array.flags.writeable for array in arrays.values())
    kernel = to_keras(network)
    again = from_keras(kernel, "rnn")
    kernel[0][:] = 0
    assert again.params["layer0.W_xh"].any()

"""Keras layouts against Keras itself, on its torch backend: random weights in, same outputs and gradients, and back.

Keras reads its backend when it is imported, so it runs in a process of its own: this file, as a script.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bptt.model.layouts.gates as gates
from bptt.engine import gradient, predict
from bptt.model import Batch, Loss
from bptt.model.layouts import from_keras, gradients_to_keras, to_keras

T, B, D, H, O = 5, 3, 4, 3, 2
LOSS = Loss("squared_error", "sum")
CASES = {
    "rnn": {"kind": "rnn"},
    "rnn-relu-no-bias": {"kind": "rnn", "nonlinearity": "relu", "use_bias": False},
    "rnn-both-2-layers": {"kind": "rnn", "bidirectional": True, "layers": 2},
    "gru": {"kind": "gru"},
    "gru-before": {"kind": "gru", "reset_after": False},
    "gru-no-bias": {"kind": "gru", "use_bias": False},
    "gru-both-2-layers": {"kind": "gru", "bidirectional": True, "layers": 2},
    "gru-before-both-2-layers": {"kind": "gru", "reset_after": False, "bidirectional": True, "layers": 2},
    "gru-both-no-bias-2-inputs": {"kind": "gru", "bidirectional": True, "use_bias": False, "inputs": 2},
    "lstm": {"kind": "lstm"},
    "lstm-both-2-layers": {"kind": "lstm", "bidirectional": True, "layers": 2},
    "lstm-no-bias-3-layers": {"kind": "lstm", "use_bias": False, "layers": 3},
    "no-readout": {"kind": "lstm", "readout": None},
    "readout-no-bias": {"kind": "gru", "readout": False, "use_bias": False},
}
OF_MODEL = ("inputs", "layers", "readout")  # what from_keras reads off the shapes


def arguments(case):
    return {name: value for name, value in case.items() if name not in OF_MODEL}


def written(network, case):
    """The network's weights for the case's model: without the readout's bias, where it has none."""
    arrays = to_keras(network, use_bias=case.get("use_bias", True))
    return arrays[:-1] if case.get("readout", True) is False else arrays


def build(keras, kind, nonlinearity="tanh", bidirectional=False, inputs=D, layers=1, readout=True, **options):
    make = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[kind]
    model = keras.Sequential([keras.Input((T, inputs))])
    for _ in range(layers):
        layer = make(H, return_sequences=True, activation=nonlinearity, **options)
        model.add(keras.layers.Bidirectional(layer) if bidirectional else layer)
    if readout is not None:
        model.add(keras.layers.Dense(O, use_bias=readout))
    return model


def ask_keras(path):
    """What Keras says of every case, into one file."""
    import keras
    import torch
    from keras.src.backend.common import dtypes

    # By this entry Keras 3.15 rounds float64 products to float32 on all backends but TensorFlow. Here it does not.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    assert keras.backend.backend() == "torch"
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    said = {}
    for name, case in CASES.items():
        rng = np.random.default_rng(len(said))
        model = build(keras, **case)
        model.set_weights([rng.normal(0, 0.7, w.shape) for w in model.weights])
        weights = model.get_weights()
        x, targets = rng.normal(size=(B, T, model.input_shape[-1])), rng.normal(size=(B, T, model.output_shape[-1]))
        y = model(torch.from_numpy(x))
        ((y - torch.from_numpy(targets)) ** 2).sum().backward()
        said |= {f"{name} x": x, f"{name} targets": targets, f"{name} y": y.detach().numpy()}
        said |= {f"{name} weight {n}": weight for n, weight in enumerate(weights)}
        said |= {f"{name} gradient {n}": w.value.grad.numpy() for n, w in enumerate(model.trainable_weights)}
        model.set_weights([0 * weight for weight in weights])
        model.set_weights(written(from_keras(weights, **arguments(case)), case))
        said[f"{name} y again"] = model(torch.from_numpy(x)).detach().numpy()
    np.savez(path, **said)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "said.npz"
    env = os.environ | {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, Path(__file__), path], env=env, check=True, timeout=120)
    with np.load(path) as file:
        return dict(file)


def numbered(said, name, what):
    return [said[f"{name} {what} {n}"] for n in range(len(said)) if f"{name} {what} {n}" in said]


def check(said, name):
    case = CASES[name]
    network = from_keras(numbered(said, name, "weight"), **arguments(case))
    x, targets, y = (said[f"{name} {what}"].swapaxes(0, 1) for what in ("x", "targets", "y"))
    assert (network.inputs, network.layers) == (x.shape[2], case.get("layers", 1))
    np.testing.assert_allclose(predict(network, x)[0], y, rtol=0, atol=1e-12)
    ours = gradient(network, Batch(x, targets), LOSS).gradients
    ours = gradients_to_keras(network, ours, use_bias=case.get("use_bias", True))
    if case.get("readout", True) is False:
        del ours["readout.bias"]
    theirs = numbered(said, name, "gradient")
    assert len(ours) == len(theirs)
    for (key, value), grad in zip(ours.items(), theirs, strict=True):
        np.testing.assert_allclose(value, grad, rtol=1e-12, atol=1e-12 * abs(grad).max(), err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_keras(said, name):
    check(said, name)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_the_same_model(said, name):
    np.testing.assert_allclose(said[f"{name} y again"], said[f"{name} y"], rtol=0, atol=1e-12)
    case = CASES[name]
    network = from_keras(numbered(said, name, "weight"), **arguments(case))
    again = from_keras(written(network, case), **arguments(case))
    assert again.describe() == network.describe()
    for key, value in network.params.items():
        np.testing.assert_array_equal(again.params[key], value)


@pytest.mark.parametrize(("kind", "order"), [("lstm", "igfo"), ("lstm", "iofg"), ("gru", "rzn"), ("gru", "znr")])
def test_a_swapped_gate_order_is_noticed(said, kind, order, monkeypatch):
    monkeypatch.setitem(gates.ORDERS["Keras"], kind, order)
    with pytest.raises(AssertionError, match="Not equal"):
        check(said, kind)


if __name__ == "__main__":
    ask_keras(sys.argv[1])

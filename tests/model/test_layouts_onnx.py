"""ONNX layouts against ONNX's own reference evaluator: random weights in, same outputs, and back.

The evaluator gives no gradients, so ours are held against central differences of a loss that ONNX computes.
"""

import numpy as np
import pytest

import bptt.model.layouts.gates as gates
from bptt.engine import gradient, predict
from bptt.model import Batch, Loss, Network
from bptt.model.layouts import from_onnx, gradients_to_onnx, to_onnx

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

T, B, D, H, O = 5, 2, 4, 3, 2
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
CASES = {
    f"{name}-{direction}": case | {"direction": direction}
    for name, case in {
        "rnn": {"kind": "rnn"},
        "gru-before": {"kind": "gru", "linear_before_reset": 0},
        "gru-after": {"kind": "gru", "linear_before_reset": 1},
        "lstm": {"kind": "lstm"},
        "lstm-peepholes": {"kind": "lstm", "peepholes": True},
        "lstm-no-bias": {"kind": "lstm", "bias": False},
        "lstm-2-layers-readout": {"kind": "lstm", "layers": 2, "readout": True},
    }.items()
    for direction in ("forward", "reverse", "bidirectional")
}


def random_nodes(kind, direction, layers=1, peepholes=False, bias=True, readout=False, **_):
    rng, dirs, G = np.random.default_rng(3), 1 + (direction == "bidirectional"), GATES[kind]
    nodes = []
    for layer in range(layers):
        shapes = {"W": (dirs, G * H, H * dirs if layer else D), "R": (dirs, G * H, H)}
        shapes |= {"B": (dirs, 2 * G * H)} if bias else {}
        shapes |= {"P": (dirs, 3 * H)} if peepholes else {}
        nodes.append({name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()})
    return nodes + [{"B": rng.normal(size=(H * dirs, O)), "C": rng.normal(size=O)}] * readout


def evaluate(nodes, x, kind, direction, linear_before_reset=None, **_):
    """What ONNX says, layer by layer: Y (T, dirs, B, H) becomes X (T, B, dirs·H)."""
    attributes = {} if linear_before_reset is None else {"linear_before_reset": linear_before_reset}
    for node in nodes:
        if "W" not in node:
            x = run("Gemm", {"X": x.reshape(-1, x.shape[-1])} | node, ["X", "B", "C"]).reshape(T, B, O)
            continue
        inputs = ["X", "W", "R", "B" if "B" in node else "", "", "", "", "P" if "P" in node else ""]
        while not inputs[-1]:
            inputs.pop()
        y = run(kind.upper(), {"X": x} | node, inputs, direction=direction, hidden_size=H, **attributes)
        x = y.transpose(0, 2, 1, 3).reshape(T, B, -1)
    return x


def run(op, arrays, inputs, **attributes):
    node = helper.make_node(op, inputs, ["Y"], **attributes)
    infos = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, a.shape) for n, a in arrays.items()]
    out = helper.make_tensor_value_info("Y", TensorProto.DOUBLE, None)
    model = helper.make_model(helper.make_graph([node], "g", infos, [out]))
    return ReferenceEvaluator(model).run(None, arrays)[0]


def read(nodes, kind, linear_before_reset=0, **_):
    return from_onnx(nodes, kind, linear_before_reset=linear_before_reset)


def check(case):
    nodes, x = random_nodes(**case), np.random.default_rng(4).normal(size=(T, B, D))
    network = read(nodes, **case)
    turn = slice(None, None, -1 if case["direction"] == "reverse" else 1)
    theirs = evaluate(nodes, x, **case)
    np.testing.assert_allclose(predict(network, x[turn])[0][turn], theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(evaluate(to_onnx(network), x, **case), theirs, rtol=0, atol=1e-12)
    again = read(to_onnx(network), **case)
    for name, value in network.params.items():
        np.testing.assert_array_equal(again.params[name], value)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_outputs_are_those_of_onnx(case):
    check(case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gradient_predicts_the_loss_along_any_change_of_the_inputs(case):
    """Central differences of a loss that ONNX computes, along a random direction in all inputs of all nodes."""
    rng, nodes = np.random.default_rng(5), random_nodes(**case)
    network = read(nodes, **case)
    data = Batch(rng.normal(size=(T, B, D)), rng.normal(size=(T, B, network.width)))
    turn = slice(None, None, -1 if case["direction"] == "reverse" else 1)
    turned = Batch(data.x[turn], data.targets[turn])
    grads = gradients_to_onnx(network, gradient(network, turned, Loss("squared_error", "sum")).gradients)
    for place, name in [(n, name) for n, node in enumerate(nodes) for name in node]:
        change = rng.normal(size=nodes[place][name].shape)
        ends = []
        for step in (-1e-5, 1e-5):
            moved = [dict(node) for node in nodes]
            moved[place][name] = nodes[place][name] + step * change
            ends.append(((evaluate(moved, data.x, **case) - data.targets) ** 2).sum())
        predicted = (grads[place][name] * change).sum()
        assert predicted == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-6, abs=1e-7), (place, name)


@pytest.mark.parametrize(
    ("name", "order"),
    [("lstm", "ifgo"), ("lstm", "iogf"), ("lstm-peepholes", "oifg"), ("gru-after", "rzn"), ("gru-before", "znr")],
)
def test_a_swapped_gate_order_is_noticed(name, order, monkeypatch):
    case = CASES[f"{name}-forward"]
    monkeypatch.setitem(gates.ORDERS["ONNX"], case["kind"], order)
    with pytest.raises(AssertionError, match="Not equal"):
        check(case)


def test_optional_inputs_may_be_none():
    [node] = random_nodes("lstm", "forward", bias=False)
    assert from_onnx(node | {"B": None, "P": None}, "lstm").describe() == "LSTM, D=4, H=3, 96 parameters"


def test_relu_is_an_argument():
    network = Network.create("rnn", inputs=2, hidden=3, nonlinearity="relu")
    assert from_onnx(to_onnx(network), "rnn", nonlinearity="relu").describe() == network.describe()

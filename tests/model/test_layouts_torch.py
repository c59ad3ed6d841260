"""PyTorch layouts against PyTorch itself: random weights in, same outputs and same gradients, and back."""

import numpy as np
import pytest

import bptt.model.layouts.gates as gates
from bptt.engine import gradient, predict, record
from bptt.errors import InputError
from bptt.model import Batch, Loss, Network
from bptt.model.layouts import from_torch, gradients_to_torch, to_torch

torch = pytest.importorskip("torch")

T, B, D, H, O = 6, 3, 4, 5, 2
LOSS = Loss("squared_error", "sum")
OPTIONS = {
    "rnn": {"kind": "rnn"},
    "rnn-relu": {"kind": "rnn", "nonlinearity": "relu"},
    "rnn-both-3-layers": {"kind": "rnn", "bidirectional": True, "num_layers": 3},
    "gru": {"kind": "gru"},
    "gru-both-2-layers": {"kind": "gru", "bidirectional": True, "num_layers": 2},
    "gru-no-bias": {"kind": "gru", "bias": False},
    "lstm": {"kind": "lstm"},
    "lstm-both-2-layers": {"kind": "lstm", "bidirectional": True, "num_layers": 2},
    "lstm-no-bias": {"kind": "lstm", "bias": False},
    "lstm-projection": {"kind": "lstm", "proj_size": 3},
    "lstm-projection-both-2-layers": {"kind": "lstm", "proj_size": 3, "bidirectional": True, "num_layers": 2},
    "lstm-12-layers": {"kind": "lstm", "num_layers": 12},
    "no-readout": {"kind": "lstm", "readout": None},
    "readout-no-bias": {"kind": "gru", "readout": False},
}


class Model(torch.nn.Module):
    def __init__(self, kind, readout=True, **options):
        super().__init__()
        self.lstm = getattr(torch.nn, kind.upper())(D, H, dtype=torch.float64, **options)
        width = (options.get("proj_size") or H) * (1 + options.get("bidirectional", False))
        self.fc = None if readout is None else torch.nn.Linear(width, O, bias=readout, dtype=torch.float64)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.7, generator=generator)

    def forward(self, x):
        h = self.lstm(x)[0]
        return h if self.fc is None else self.fc(h)


def batch(width, seed=1):
    rng = np.random.default_rng(seed)
    return Batch(rng.normal(size=(T, B, D)), rng.normal(size=(T, B, width)))


def read(model, kind, **options):
    given = {"nonlinearity": options["nonlinearity"]} if "nonlinearity" in options else {}
    return from_torch(model.state_dict(), kind, readout="fc" if model.fc is not None else None, **given)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_outputs_and_gradients_are_those_of_torch(options):
    model = Model(**options)
    network = read(model, **options)
    data = batch(network.width)
    y = model(torch.from_numpy(data.x))
    ((y - torch.from_numpy(data.targets)) ** 2).sum().backward()
    np.testing.assert_allclose(predict(network, data.x)[0], y.detach().numpy(), rtol=0, atol=1e-12)

    ours = gradient(network, data, LOSS).gradients
    ours = gradients_to_torch(network, ours, prefix="lstm", readout="fc", bias=options.get("bias", True))
    theirs = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    if options.get("readout", True) is False:
        del ours["fc.bias"]
    assert set(ours) == set(theirs)
    for name, grad in theirs.items():
        np.testing.assert_allclose(ours[name], grad, rtol=1e-12, atol=1e-12 * abs(grad).max(), err_msg=name)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_is_written_is_the_same_module(options):
    model, other = Model(**options), Model(**options)
    network = read(model, **options)
    arrays = to_torch(network, prefix="lstm", readout="fc", bias=options.get("bias", True))
    if options.get("readout", True) is False:
        assert not arrays.pop("fc.bias").any()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    x = torch.from_numpy(batch(O).x)
    np.testing.assert_allclose(other(x).detach().numpy(), model(x).detach().numpy(), rtol=0, atol=1e-12)
    again = read(other, **options)
    for name, value in network.params.items():
        np.testing.assert_array_equal(again.params[name], value)


@pytest.mark.parametrize(("kind", "order"), [("lstm", "igfo"), ("lstm", "iofg"), ("gru", "zrn")])
def test_a_swapped_gate_order_is_noticed(kind, order, monkeypatch):
    monkeypatch.setitem(gates.ORDERS["PyTorch"], kind, order)
    with pytest.raises(AssertionError, match="Not equal"):
        test_outputs_and_gradients_are_those_of_torch({"kind": kind})


def test_steps_and_losses_stay_in_front():
    network = Network.create("gru", inputs=D, hidden=H, outputs=O, bidirectional=True)
    data = batch(O)
    ledger = record(network, data, LOSS)
    steps = {
        name: np.stack([ledger.step_gradient(name, t) for t in range(1, T + 1)])
        for name in network.params
        if not name.startswith("readout")
    }
    theirs = gradients_to_torch(network, steps)
    assert theirs["weight_ih_l0_reverse"].shape == (T, 3 * H, D)
    whole = gradients_to_torch(network, gradient(network, data, LOSS).gradients)
    for name, value in theirs.items():
        np.testing.assert_allclose(value.sum(0), whole[name], rtol=1e-10, atol=1e-12)
    maps = np.ones((2, 3)).reshape(2, 3, 1, 1) * network.params["layer0.W_hh"]
    [(name, value)] = gradients_to_torch(network, {"layer0.W_hh": maps}).items()
    assert (name, value.shape) == ("weight_hh_l0", (2, 3, 3 * H, H))


def test_names_are_found_by_themselves():
    model = Model("lstm")
    network = from_torch(model.state_dict(), "lstm")
    assert network.describe() == "LSTM, D=4, H=5, O=2, 212 parameters"
    assert network.dtype == np.float64
    parameters = {name: p.detach().float() for name, p in model.lstm.named_parameters()}
    assert from_torch(parameters, "lstm").dtype == np.float32
    assert from_torch(dict(model.named_parameters()), "lstm", prefix="lstm.", readout="fc.").outputs == O


def test_a_tensor_that_numpy_does_not_take():
    arrays = Model("lstm").state_dict()
    arrays["fc.bias"] = arrays["fc.bias"].bfloat16()
    with pytest.raises(InputError, match=r"^array 'fc.bias': got a Tensor that NumPy does not take, .* float32"):
        from_torch(arrays, "lstm")

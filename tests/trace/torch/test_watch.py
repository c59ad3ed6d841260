"""What a watch sees is what a trace sees; training does not notice; nothing is left behind."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import bptt
from bptt.errors import InputError, UnknownName

SLOT = "_compiled_call_impl"
OWN = {
    "backward": torch.autograd.backward,
    "grad": torch.autograd.grad,
    "apply": torch.autograd.Function.__dict__["apply"],
    "checkpoint": torch.utils.checkpoint._checkpoint_without_reentrant_generator,
}


class Loop(nn.Module):
    """An LSTM cell step by step, each step in a checkpoint of one kind or in none."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.cell, self.reentrant = nn.LSTMCell(3, 4), reentrant

    def step(self, row, h, c):
        return self.cell(row, (h, c))

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 4)
        outs = []
        for row in x:
            if self.reentrant is None:
                h, c = self.step(row, h, c)
            else:
                h, c = checkpoint(self.step, row, h, c, use_reentrant=self.reentrant)
            outs.append(h)
        return torch.stack(outs)


class Layer(nn.Module):
    """A fused layer with a readout."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.lstm(x)[0])


def data(steps=6):
    return torch.randn(steps, 2, 3, generator=torch.Generator().manual_seed(1))


def made(kind, *args):
    torch.manual_seed(0)
    return kind(*args)


def train(model, steps, *, optimiser=None, x=None):
    """The user's loop."""
    optimiser = torch.optim.Adam(model.parameters(), 0.01) if optimiser is None else optimiser
    x = data() if x is None else x
    for _ in range(steps):
        optimiser.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimiser.step()
    return model


def left_behind(model):
    """Everything of ours that can be on a model or on torch."""
    found = [name for name in ("backward", "grad") if getattr(torch.autograd, name) is not OWN[name]]
    found += ["apply"] if torch.autograd.Function.__dict__["apply"] is not OWN["apply"] else []
    if torch.utils.checkpoint._checkpoint_without_reentrant_generator is not OWN["checkpoint"]:
        found.append("checkpoint")
    found += ["mode"] * len(_get_current_function_mode_stack())
    found += [f"hooks of {name}" for name, p in model.named_parameters() if p._backward_hooks]
    return found + ([SLOT] if SLOT in model.__dict__ else [])


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["norms", "factors"])
@pytest.mark.parametrize("kind", [Loop, Layer])
def test_a_record_has_the_numbers_of_a_trace_of_the_same_step(kind, keep):
    model, records = made(kind), []
    with bptt.watch(model, every=2, to=records.append, keep=keep) as probe:
        train(model, 3)
    twin = train(made(kind), 2)  # the weights before the third step
    with bptt.trace(twin) as trace:
        loss = twin(data()).square().mean()
        loss.backward()
    assert [record["step"] for record in records] == [0, 2]
    record, ledger = records[1], trace.ledger
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert set(record["parameters"]) == set(ledger.names)
    for name, numbers in record["parameters"].items():
        norms = ledger.norms(name)
        assert numbers["uses"] == len(norms)
        expected = [norms[0], norms[-1], norms.mean(), np.linalg.norm(ledger.gradient(name)), ledger.coherence(name)]
        got = [numbers[key] for key in ("first", "last", "mean", "norm", "coherence")]
        np.testing.assert_allclose(got, expected, rtol=2e-5)
        if keep == "factors":
            assert numbers["last_share"] == pytest.approx(ledger.shares(name)[-1], rel=1e-4)
    for prefix in ledger.states:
        sizes = record["states"][prefix.rstrip(".")]["lags"]["sizes"]
        norms = ledger.state_norms(prefix)[::-1]
        np.testing.assert_allclose(sizes, [norms[0], norms[1], norms[2:4].sum(), norms[4:].sum()], rtol=2e-5)
    assert probe.last is record
    np.testing.assert_allclose(probe.ledger.norms(name), ledger.norms(name), rtol=2e-5)


def test_how_far_back_is_told_along_the_direction_in_which_a_layer_walks():
    model = made(nn.GRU, 3, 4, 1, True, False, 0.0, True)  # both directions
    with bptt.watch(model, keep="factors") as probe:
        ahead, back = model(data(40))[0].chunk(2, -1)
        (ahead[-1].sum() + back[0].sum()).backward()  # the last output of either walk
    for name, turn in (("weight_hh_l0", 1), ("weight_hh_l0_reverse", -1)):
        norms, shares = probe.ledger.norms(name)[::turn], probe.ledger.shares(name)[::turn]
        reach = next(k for k in range(41) if (norms[: 40 - k] < 0.01 * norms.max()).all())
        assert 0 < reach < 30
        assert probe.last["parameters"][name]["reach"] == reach
        assert probe.last["parameters"][name]["last_share"] == pytest.approx(shares[-4:].sum(), rel=1e-5)
    for state in ("l0", "l0_reverse"):
        sizes = probe.last["states"][state]["lags"]["sizes"]
        assert sizes[0] == pytest.approx(np.sqrt(8), rel=1e-6)  # ∂J/∂s_T: ones of 4 units and 2 sequences
        assert probe.last["states"][state]["gain"] < 1


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_a_loop_trains_to_the_same_bits_on_all_steps(reentrant):
    x = data().requires_grad_()
    watched, plain = made(Loop, reentrant), train(made(Loop, reentrant), 7, x=x)
    with bptt.watch(watched, every=2) as probe:
        train(watched, 7, x=x)
    assert probe.last["step"] == 6
    assert probe.last["residual"] < 1e-6
    assert probe.last["parameters"]["cell.weight_hh"]["uses"] == 6
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))


def test_a_fused_layer_trains_to_the_same_weights_within_rounding():
    watched, plain = made(Layer).double(), train(made(Layer).double(), 7, x=data().double())
    with bptt.watch(watched, every=1) as probe:
        train(watched, 7, x=data().double())
    assert probe.last["step"] == 6
    for a, b in zip(watched.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", [Loop, Layer])
def test_a_checkpoint_around_the_whole_model_does_not_disturb(kind, reentrant):
    def go(model):
        x, optimiser = data().requires_grad_(), torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(4):
            optimiser.zero_grad()
            checkpoint(model, x, use_reentrant=reentrant).square().mean().backward()
            optimiser.step()

    plain, watched, records = made(kind), made(kind), []
    go(plain)
    with bptt.watch(watched, every=2, to=records.append):
        go(watched)
    for a, b in zip(watched.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert [r["step"] for r in records] == ([] if reentrant else [0, 2])  # the older kind calls it in the backward pass
    assert all(r["residual"] < 1e-5 for r in records)
    assert all(p["uses"] == 6 for r in records for p in r["parameters"].values())


# ---- what a pass is --------------------------------------------------------------------------------------------------


def test_all_forwards_of_one_backward_pass_are_one_record():
    model, records = made(Loop), []
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    a, b = data(), data() + 1
    with bptt.watch(model, every=3, to=records.append):
        for _ in range(4):
            optimiser.zero_grad()
            (model(a) - model(b)).square().mean().backward()
            optimiser.step()
    assert [(r["step"], r["forwards"]) for r in records] == [(0, 2), (4, 2), (6, 2)]  # 3 is in the middle of a pass
    assert all(r["parameters"]["cell.weight_hh"]["uses"] == 12 and r["residual"] < 1e-6 for r in records)


def test_a_model_that_is_one_step_is_seen_over_the_whole_sequence():
    cell, records = made(nn.GRUCell, 3, 4), []
    optimiser = torch.optim.SGD(cell.parameters(), 0.1)
    with bptt.watch(cell, every=8, to=records.append):
        for _ in range(3):
            h = torch.zeros(2, 4)
            for row in data():
                h = cell(row, h)
            optimiser.zero_grad()
            h.square().sum().backward()
            optimiser.step()
    assert [(r["step"], r["forwards"], r["parameters"]["weight_hh"]["uses"]) for r in records] == [
        (0, 6, 6),
        (12, 6, 6),
    ]


def test_accumulated_gradients_are_looked_at_one_backward_pass_at_a_time():
    model, records = made(Loop), []
    with bptt.watch(model, every=1, to=records.append):
        for _ in range(3):  # no zero_grad
            model(data()).square().mean().backward()
    norms = [r["parameters"]["cell.weight_hh"]["norm"] for r in records]
    assert [r["step"] for r in records] == [0, 1, 2]
    assert norms == [norms[0]] * 3
    assert norms[0] == pytest.approx(model.cell.weight_hh.grad.norm().item() / 3, rel=1e-5)


def test_forwards_without_gradients_and_in_evaluation_are_not_counted():
    model = made(Loop)
    with bptt.watch(model, every=5) as probe:
        model.eval()
        model(data()).sum().backward()
        model.train()
        with torch.no_grad():
            model(data())
        with torch.inference_mode():
            model(data())
        assert (probe.calls, probe.last) == (0, None)
        train(model, 1)
    assert (probe.calls, probe.last["step"]) == (1, 0)


def test_a_forward_whose_output_is_thrown_away_leaves_nothing():
    model, records = made(Loop), []
    probe = bptt.watch(model, every=2, to=records.append)
    out = model(data())
    assert "hooks of cell.weight_ih" in left_behind(model)
    del out
    assert left_behind(model) == [SLOT]
    train(model, 2)
    probe.close()
    assert [r["step"] for r in records] == [2]


def test_another_model_s_backward_pass_ends_nothing():
    model, other, records = made(Loop), nn.Linear(3, 1), []
    with bptt.watch(model, to=records.append):
        out = model(data())
        other(data()).sum().backward()
        assert not records
        out.sum().backward()
    assert [r["residual"] < 1e-6 for r in records] == [True]


def test_a_gradient_asked_for_by_the_way_is_not_the_pass_and_one_by_the_parameters_is():
    model, x, records = made(Loop), data().requires_grad_(), []
    with bptt.watch(model, every=1, to=records.append):
        loss = model(x).square().mean()
        torch.autograd.grad(loss, x, retain_graph=True)
        assert not records
        found = torch.autograd.grad(loss, list(model.parameters()))
    numbers = records[0]["parameters"]["cell.weight_ih"]
    assert numbers["norm"] == pytest.approx(found[0].norm().item(), rel=1e-5)
    assert records[0]["residual"] < 1e-6


def test_a_traced_model_is_left_to_the_trace():
    model, records = made(Loop), []
    with bptt.watch(model, every=1, to=records.append):
        with bptt.trace(model) as trace:
            model(data()).square().mean().backward()
        assert not records
        train(model, 1)
    assert trace.ledger.residual < 1e-6
    assert [r["step"] for r in records] == [1]


def test_two_watched_models_in_one_loss_both_speak():
    first, second = made(Loop), nn.LSTMCell(4, 3)
    records = []
    with bptt.watch(first, to=records.append), bptt.watch(second, to=records.append):
        out = first(data())
        state = None
        for row in out:
            state = second(row, state)
        state[0].sum().backward()
        assert [len(r["parameters"]) for r in records] == [4, 4]
        assert all(r["residual"] < 1e-6 for r in records)
        assert left_behind(first) == left_behind(second) == [SLOT]


@pytest.mark.parametrize("kind", [Loop, Layer])
@pytest.mark.parametrize("half", [False, True])
def test_a_grad_scaler_s_factor_is_taken_out(kind, half):
    model, records = made(kind), []
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    with bptt.watch(model, to=records.append, scaler=scaler):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(data()).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
    twin = made(kind)
    twin(data()).square().mean().backward()
    assert records[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in twin.named_parameters():
        if name in records[0]["parameters"]:  # a readout at all steps at once is no reused parameter
            norm = parameter.grad.norm().item()
            assert records[0]["parameters"][name]["norm"] == pytest.approx(norm, rel=0.03 if half else 1e-5)
    assert len(records[0]["parameters"]) == 4


# ---- nothing left ----------------------------------------------------------------------------------------------------


def test_after_close_nothing_is_left_and_close_may_be_said_twice():
    model = made(Loop)
    probe = bptt.watch(model, every=1)
    train(model, 2)
    probe.close()
    probe.close()
    assert left_behind(model) == []
    train(model, 2)
    assert probe.calls == 2


def test_close_between_forward_and_backward_leaves_nothing():
    model = made(Loop)
    probe = bptt.watch(model)
    loss = model(data()).sum()
    probe.close()
    assert left_behind(model) == []
    loss.backward()
    assert probe.last is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_error_leaves_only_the_counter_and_the_next_step_is_as_ever(where, error):
    model, records = made(Loop), []
    probe = bptt.watch(model, every=1, to=records.append)

    def interrupt(*_):
        raise error

    loop = train(model, 1)
    if where == "forward":
        hook = model.cell.register_forward_hook(interrupt)
    else:
        hook = model.cell.weight_hh.register_hook(interrupt)
    with pytest.raises(error):
        train(model, 1)
    hook.remove()
    assert left_behind(model) == [SLOT]
    train(loop, 1)
    assert [r["step"] for r in records] == [0, 2]
    probe.close()
    assert left_behind(model) == []


def test_ctrl_c_while_the_record_is_made_leaves_only_the_counter(monkeypatch):
    model, records = made(Loop), []

    def interrupt(*_):
        raise KeyboardInterrupt

    with bptt.watch(model, every=1, to=records.append):
        with monkeypatch.context() as patch:
            patch.setattr("bptt.trace.torch.tracing.assemble", interrupt)
            with pytest.raises(KeyboardInterrupt):
                train(model, 1)
        assert left_behind(model) == [SLOT]
        train(model, 1)
    assert [(r["step"], r["parameters"]["cell.weight_hh"]["uses"]) for r in records] == [(1, 6)]


@pytest.mark.filterwarnings("ignore:bptt.trace. not every use was seen of cell.weight_hh")
def test_a_leaf_that_a_model_hands_out_keeps_no_hook():
    class Open(Loop):
        def forward(self, x):
            return super().forward(x), self.cell.weight_hh

    model = made(Open)
    with bptt.watch(model, every=2) as probe:
        for _ in range(3):
            out, weight = model(data())
            (out.square().mean() + weight.sum()).backward()
        assert left_behind(model) == [SLOT]
    assert probe.last["step"] == 2


@pytest.mark.parametrize("keep", ["norms", "factors"])
@pytest.mark.parametrize("kind", [Loop, Layer])
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_nothing_that_grows_with_the_sequence_is_held_after_a_pass(kind, engine, keep):
    def held():
        gc.collect()
        tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
        return sum(one.numel() for one in tensors) + len(gc.get_objects()) // 100

    def numbers_freed_with_the_graph(model):
        loss = model(data(200)).square().mean()
        loss.backward()
        before = held()
        del loss
        return before - held()

    with bptt.watch(made(kind), every=100, engine=engine, keep=keep) as probe:
        found = numbers_freed_with_the_graph(probe.model)
        assert probe.last is not None
    weights = sum(p.numel() for p in made(kind).parameters())
    assert found <= numbers_freed_with_the_graph(made(kind)) + 2 * weights  # of 200 steps one array has 1600 numbers


def test_a_dropped_model_and_its_watch_go_together():
    model = made(Loop)
    gone = weakref.ref(model)
    bptt.watch(model, every=1)
    train(model, 1)
    del model
    gc.collect()
    assert gone() is None


def test_copies_and_files_of_a_watched_model_are_not_watched():
    model = made(Loop)
    with bptt.watch(model, every=1) as probe:
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert left_behind(twin) == []
            train(twin, 1)
        assert probe.calls == 0
        assert list(model.state_dict()) == list(made(Loop).state_dict())


@pytest.mark.parametrize("kind", [Loop, Layer])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_model_runs_eagerly_where_it_is_looked_at(kind, in_place):
    inner, records, compiled = made(kind), [], []
    torch.compiler.reset()  # of what other tests have compiled

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    if in_place:
        inner.compile(backend=backend)
    model = inner if in_place else torch.compile(inner, backend=backend)
    before = model.__dict__.get(SLOT)
    with bptt.watch(model, every=3, to=records.append):
        train(model, 1)
        assert not compiled
        train(model, 4)
    assert bool(compiled) == (kind is Loop)  # of a model with a fused layer torch's compiler makes nothing
    assert model.__dict__.get(SLOT) is before
    assert [r["step"] for r in records] == [0, 3]
    assert all(r["residual"] < 1e-6 and set(r["parameters"]) >= {next(iter(made(kind).state_dict()))} for r in records)


# ---- what it is told -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, InputError, "watch(…, every=…): got 0, expected a whole number from 1 on"),
        ({"every": 2.0}, InputError, "got 2.0"),
        ({"every": True}, InputError, "got True"),
        ({"start": -1}, InputError, "watch(…, start=…): got -1"),
        ({"keep": "full"}, UnknownName, "keep: got 'full', expected one of norms, factors"),
        ({"engine": "fast"}, UnknownName, "engine: got 'fast'"),
        ({"to": 7}, InputError, "watch(…, to=…): got int 7, expected a path"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_nothing_is_left(options, error, message):
    model = made(Loop)
    with pytest.raises(error) as caught:
        bptt.watch(model, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_behind(model) == []


def test_a_model_is_watched_once_at_a_time():
    model = made(Loop)
    with bptt.watch(model), pytest.raises(InputError, match="watched already"):
        bptt.watch(model)
    bptt.watch(model).close()


def test_a_model_without_parameters_is_refused():
    with pytest.raises(InputError, match="no parameters"):
        bptt.watch(nn.ReLU())


def test_a_model_that_reuses_nothing_gets_one_warning_and_trains_on():
    model = made(nn.Linear, 3, 2)
    with bptt.watch(model, every=1) as probe:
        with pytest.warns(UserWarning, match=r"bptt\.watch says nothing of step 0"):
            train(model, 1)
        train(model, 2)
    assert probe.last is None


def test_a_model_that_is_frozen_meanwhile_gets_a_warning_and_trains_on():
    model, readout, records = made(Loop), nn.Linear(4, 1), []
    with bptt.watch(model, every=1, to=records.append):
        model.requires_grad_(False)
        with pytest.warns(UserWarning, match="says nothing of step 0: .* frozen parameters only"):
            readout(model(data())).sum().backward()
        model.requires_grad_(True)
        train(model, 1)
    assert [r["step"] for r in records] == [1]


def test_steps_of_a_resumed_run_go_on_counting():
    model, records = made(Loop), []
    with bptt.watch(model, every=4, to=records.append, start=6):
        train(model, 8)
    assert [r["step"] for r in records] == [8, 12]

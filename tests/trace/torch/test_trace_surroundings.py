"""What stands around a traced step: mixed precision, compilers, processes, threads, exceptions; nothing is left."""

import os
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint as checkpoints
from torch import nn
from torch.autograd.function import Function, _SingleLevelFunction
from torch.overrides import _get_current_function_mode_stack

import bptt
from oracles.programs import Layer, Loop, X, both, difference, plain, steps


def marks(model):
    """Everything that a trace might leave on a model, or on torch."""
    hooks = [(n, p._backward_hooks, len(p._backward_hooks or ())) for n, p in model.named_parameters()]
    owners = [(m, dict(vars(m)), dict(vars(type(m)))) for m in model.modules()]
    torch_owned = Function.__dict__["apply"], vars(_SingleLevelFunction).get("apply"), vars(checkpoints).copy()
    return [(n, count) for n, _, count in hooks], owners, torch_owned, _get_current_function_mode_stack()


@pytest.mark.parametrize("model", [Layer(), Loop()])
@pytest.mark.parametrize("stop", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["before", "forward", "backward", "after"])
def test_nothing_is_left_behind(model, stop, where):
    plain(model)  # such as the list of its weights that a layer makes at its first call
    before = marks(model)

    def fail(at):
        if at == where and stop is not None:
            raise stop("planted")

    def run():
        with bptt.trace(model):
            fail("before")
            loss = (model(X) ** 2).sum()
            loss.register_hook(lambda _: fail("backward"))
            fail("forward")
            loss.backward()
            fail("after")

    if stop is None:
        run()
    else:
        with pytest.raises(stop, match="planted"):
            run()
    assert marks(model) == before
    untraced, traced, ledger = both(model, plain)
    assert difference(untraced, traced) <= 1e-12
    assert ledger.residual <= 1e-12


def test_two_models_are_traced_at_once():
    a, b = Layer(), Loop()
    alone = [both(model, plain)[2] for model in (a, b)]
    before = marks(a), marks(b)
    for model in (a, b):
        model.zero_grad()
    with bptt.trace(a) as of_a, bptt.trace(b) as of_b:
        ((a(X) ** 2).sum() + (b(X) ** 2).sum()).backward()
    assert (marks(a), marks(b)) == before
    for found, wanted in zip((of_a.ledger, of_b.ledger), alone, strict=True):
        assert steps(found) == steps(wanted)
        for name in wanted.names:
            assert abs(found.step_gradients(name) - wanted.step_gradients(name)).max() <= 1e-12


def test_models_of_other_threads_are_not_disturbed():
    before = marks(Loop())[2:]
    wrong = []

    def work(seed):
        model = (Loop, Layer)[seed % 2]()
        for _ in range(4):
            untraced, traced, ledger = both_without_seed(model)
            if not all(torch.allclose(a, b, 1e-12, 1e-12) for a, b in zip(untraced, traced, strict=True)):
                wrong.append("gradients")
            if ledger.residual > 1e-12 or set(steps(ledger).values()) != {6}:
                wrong.append("ledger")

    def both_without_seed(model):
        found = []
        for traced in (False, True):
            model.zero_grad()
            trace = bptt.trace(model)
            if traced:
                with trace:
                    plain(model)
            else:
                plain(model)
            found.append([p.grad.clone() for p in model.parameters()])
        return *found, trace.ledger

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert marks(Loop())[2:] == before


# ---- mixed precision -------------------------------------------------------------------------------------------------


def lowered(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = (model(X.float()).float() ** 2).sum()
    loss.backward()


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("more", [{}, {"bidirectional": True}])
def test_autocast_gives_a_fused_layer_the_types_it_has_untraced(kind, more):
    layer = kind(3, 4, 2, **more)
    found = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found.append(layer(X.float()))
        with bptt.trace(layer):
            found.append(layer(X.float()))
    plain_out, traced_out = (torch.utils._pytree.tree_leaves(out) for out in found)
    for a, b in zip(plain_out, traced_out, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).abs().max() <= 2**-7


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_autocast_agrees_to_the_rounding_of_bfloat16(kind):
    untraced, traced, ledger = both(Layer(kind).float(), lowered)
    assert difference(untraced, traced) <= 0.03
    assert ledger.residual <= 0.03
    assert {steps(ledger)[f"rnn.{n}"] for n in ("weight_ih_l0", "weight_hh_l0")} == {6}


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_autocast_of_a_loop_has_the_same_bits(kind):
    untraced, traced, ledger = both(Loop(kind).float(), lowered)
    assert difference(untraced, traced) == 0
    assert ledger.residual <= 0.03


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("model", [Layer(), Loop()])
def test_a_ledger_is_divided_by_the_scale_that_its_loss_had(model, autocast):
    model = model.float()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    optimiser = torch.optim.SGD(model.parameters(), 0.0)

    def step():
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = (model(X.float()).float() ** 2).sum()
        return loss

    loss = step()
    loss.backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters()}
    with bptt.trace(model, scaler=scaler) as trace:
        scaler.scale(step()).backward()
        scaler.step(optimiser)
        scaler.update()  # the scale is twice as large from here
    assert scaler.get_scale() == 2048
    ledger = trace.ledger
    assert abs(ledger.loss - loss.item()) <= (0.03 if autocast else 1e-5) * abs(loss.item())
    for name in ledger.names:
        assert (
            abs(ledger.gradient(name) - wanted[name].numpy()).max()
            <= (0.03 if autocast else 1e-5) * wanted[name].abs().max()
        )
        assert abs(ledger.step_gradients(name).sum(0) - wanted[name].numpy()).max() <= (
            (0.05 if autocast else 1e-5) * max(w.abs().max() for w in wanted.values())
        )


# ---- compilers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("of", [Layer, Loop])
def test_what_is_compiled_runs_as_written_while_it_is_traced(of, backend):
    model = torch.compile(of(), backend=backend)
    with bptt.trace(model) as trace:
        plain(model)
    _, _, wanted = both(of(), plain)
    assert steps(trace.ledger) == steps(wanted)
    assert trace.ledger.residual <= 1e-12
    for name in wanted.names:
        assert abs(trace.ledger.step_gradients(name) - wanted.step_gradients(name)).max() <= 1e-12


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
def test_a_loop_that_is_compiled_and_has_run_is_seen():
    model = Loop()
    model.cell = torch.compile(model.cell, backend="eager")
    plain(model)
    untraced, traced, ledger = both(model, plain)
    assert difference(untraced, traced) <= 1e-12
    assert set(steps(ledger).values()) == {6}
    counted = torch._dynamo.utils.counters["frames"]["total"]
    plain(model)
    assert torch._dynamo.utils.counters["frames"]["total"] == counted  # and it is compiled as before


SCRIPT = "ignore:`torch.jit:DeprecationWarning"


@pytest.mark.filterwarnings(SCRIPT)
def test_a_scripted_part_is_named_rather_than_left_out_in_silence():
    model = Loop()
    model.cell = torch.jit.script(model.cell)
    with bptt.trace(model) as trace:
        plain(model)
    with pytest.warns(
        UserWarning, match=r"not every use was seen of cell.weight_ih, cell.weight_hh.* scripted function"
    ):
        ledger = trace.ledger
    assert ledger.names == ["out.weight", "out.bias"]
    assert ledger.meta["unseen"] == ["cell.weight_ih", "cell.weight_hh", "cell.bias_ih", "cell.bias_hh"]


@pytest.mark.filterwarnings(SCRIPT)
def test_a_model_that_is_scripted_as_a_whole_is_an_error():
    model = torch.jit.script(Layer())
    with bptt.trace(model) as trace:
        plain(model)
    with pytest.raises(bptt.errors.InputError, match=r"got no call of a parameter, .* inside a scripted function"):
        _ = trace.ledger


def test_what_was_worked_out_before_the_block_is_named():
    class Early(Loop):
        def forward(self, x):
            return super().forward(x) + x[..., :2] @ self.early

    model = Early()
    model.gain = nn.Parameter(torch.ones(2, 2, dtype=X.dtype))
    model.early = model.gain.exp() @ torch.ones(2, 2, dtype=X.dtype)
    twice = model.out.weight.t() * 1.0
    with bptt.trace(model) as trace:
        ((model(X) ** 2).sum() + (X.new_ones(1, 4) @ twice).sum()).backward()
    with pytest.warns(UserWarning, match="not every use was seen of gain, out.weight"):
        assert trace.ledger.meta["unseen"] == ["gain", "out.weight"]


# ---- processes -------------------------------------------------------------------------------------------------------

DDP = textwrap.dedent("""
    import os, sys, torch, warnings
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    import bptt
    from oracles.programs import Layer, Loop, X, left, steps
    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    for kind in (Layer, Loop):
        model = DistributedDataParallel(kind())
        def step(m):
            (m(X[:, rank:rank + 1]) ** 2).sum().backward()
        untraced = left(model, step)
        untraced = {n: a.clone() for n, a in untraced.items()}
        with bptt.trace(model) as trace:
            traced = left(model, step)
        for name, a in untraced.items():
            assert torch.allclose(a.double(), traced[name].double(), 1e-12, 1e-12), name
        ledger = trace.ledger
        own = kind()
        (own(X[:, rank:rank + 1]) ** 2).sum().backward()
        for name in ledger.names:  # the ledger is this process's own: before averaging
            p = own.get_parameter(name.removeprefix("module."))
            assert abs(ledger.gradient(name) - p.grad.numpy()).max() <= 1e-10, name
        assert ledger.residual <= 1e-12 and set(steps(ledger).values()) == {6}, steps(ledger)
    dist.destroy_process_group()
    print("fine")
""")


def test_two_processes_under_ddp(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", DDP]
    tests = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    options = {"stdout": -1, "stderr": -2, "text": True, "env": os.environ | {"PYTHONPATH": tests}}
    runs = [subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], **options) for rank in (0, 1)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert all("fine" in out for out in outputs), outputs


# ---- bad input -------------------------------------------------------------------------------------------------------


def error(model, step, **options):
    """The one line that a traced step ends in."""
    with pytest.raises(bptt.errors.InputError) as caught:
        with bptt.trace(model, **options) as trace:
            step(model)
        _ = trace.ledger
    assert "\n" not in str(caught.value)
    return str(caught.value)


def frozen(model):
    return model.requires_grad_(False)


def with_part_frozen():
    model = Layer()
    frozen(model.rnn)
    return model


def quantised(kinds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(Layer().float().eval(), kinds)


def twice(model):
    loss = (model(X) ** 2).sum()
    loss.backward(retain_graph=True)
    loss.backward()


def checkpoint_twice(model):
    x = X.clone().requires_grad_()
    loss = (checkpoints.checkpoint(model, x, use_reentrant=True) ** 2).sum()
    loss.backward(retain_graph=True)
    loss.backward()


def elsewhere(model):
    model.rnn(X)
    (model.out(torch.ones(1, 4, dtype=X.dtype)) ** 2).sum().backward()


ENDS = {
    "not a module": (lambda: 3, plain, "model: got int, expected a torch.nn.Module"),
    "no parameters": (nn.Tanh, plain, "model Tanh: got no parameters, expected weights that a gradient comes to"),
    "no reused parameter": (
        lambda: nn.Linear(3, 4).double(), plain,
        "bptt.trace: got no parameter that was used more than once, expected a recurrent model",
    ),
    "never called": (
        Layer, lambda m: None,
        "bptt.trace: got no call of a parameter, expected a forward pass of the model. "
        "Call it inside the with block, with gradients enabled.",
    ),
    "called without gradients": (
        Layer, lambda m: torch.no_grad()(m)(X),
        "bptt.trace: got no call of a parameter, expected a forward pass of the model. "
        "Call it inside the with block, with gradients enabled.",
    ),
    "backward never called": (
        Layer, lambda m: m(X),
        "bptt.trace: got nothing that came back to a parameter, expected a backward pass. "
        "Call loss.backward() inside the with block, on a loss that depends on the recurrent part.",
    ),
    "backward called twice": (
        Loop, twice,
        "bptt.trace: got 2 backward passes over one forward pass, expected one. "
        "Add the losses up and go back once, or trace each pass on its own.",
    ),
    "a checkpoint, twice": (
        Loop, checkpoint_twice,
        "bptt.trace: got 2 backward passes over one forward pass, expected one. "
        "Add the losses up and go back once, or trace each pass on its own.",
    ),
    "a loss of something else": (
        Layer, elsewhere,
        "bptt.trace: got a backward pass that came to other parameters only, expected one through the recurrent part. "
        "Call loss.backward() on a loss of it.",
    ),
    "frozen": (
        lambda: frozen(Layer()), plain,
        "model Layer: got frozen parameters only, expected some that can be trained. "
        "Set requires_grad on what is to be traced.",
    ),
    "a frozen part": (
        with_part_frozen, plain,
        "bptt.trace: got no parameter that was used more than once, expected a recurrent model. "
        "Set requires_grad on rnn.weight_ih_l0 and 3 more: frozen parameters are not traced.",
    ),
    "quantised": (
        lambda: quantised({nn.LSTM, nn.Linear}), plain,
        "model Layer: got quantised weights, expected weights that a gradient comes to",
    ),
    "quantised in part": (
        lambda: quantised({nn.LSTM}), lambda m: (m(X.float()) ** 2).sum().backward(),
        "bptt.trace: got no parameter that was used more than once, expected a recurrent model. "
        "Quantised layers have no gradient: trace the model before it is quantised.",
    ),
    "complex weights": (
        lambda: nn.Linear(3, 4, dtype=torch.complex64), plain,
        "model Linear: got complex weights (weight), expected real weights with numbers in them",
    ),
    "meta device": (
        lambda: nn.LSTM(3, 4, device="meta"), plain,
        "model LSTM: got meta device (weight_ih_l0), expected real weights with numbers in them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_bad_input_is_one_line(name):
    model, step, line = ENDS[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quant", category=UserWarning)
        assert error(model(), step) == line


def test_inference_mode_is_one_line():
    with torch.inference_mode():
        line = error(Layer(), plain)
    assert line == (
        "bptt.trace: got inference mode, expected a graph to walk back. Leave torch.inference_mode() around it."
    )


def test_a_trace_is_entered_once():
    trace = bptt.trace(Layer())
    with trace:
        pass
    with (
        pytest.raises(bptt.errors.InputError, match=r"a trace that was entered before. Make a new one for each pass"),
        trace,
    ):
        pass


@pytest.mark.parametrize(("losses", "at", "line"), [
    (lambda y: y.sum(), None,
     "losses: got shape (), expected (K,), one loss per step. Add up over the batch first."),
    (lambda y: y.sum(2), None,
     "losses: got shape (6, 2), expected (K,), one loss per step. Add up over the batch first."),
    (lambda y: [y.sum()], None, "losses: got list, expected (K,), one loss per step. Add up over the batch first."),
    (lambda y: torch.ones(3), None, "losses: got numbers without a graph, expected losses of the model's outputs"),
    (lambda y: y.sum((1, 2)), [1, 2], "at: got [1, 2], expected 6 steps, counted from 1: one for each loss"),
    (lambda y: y.sum((1, 2)), [0, 1, 2, 3, 4, 5],
     "at: got [0, 1, 2, 3, 4, 5], expected 6 steps, counted from 1: one for each loss"),
])  # fmt: skip
def test_wrong_losses_are_one_line(losses, at, line):
    assert error(Loop(), lambda m: None) != ""
    with pytest.raises(bptt.errors.InputError) as caught, bptt.trace(Loop(), map=True) as trace:
        trace.backward(losses(trace.model(X)), at=at)
    assert str(caught.value) == line


def test_losses_need_a_map_and_a_map_needs_losses():
    with pytest.raises(bptt.errors.InputError) as caught, bptt.trace(Loop()) as trace:
        trace.backward(trace.model(X).sum((1, 2)))
    assert str(caught.value) == "trace.backward: got a trace without map=True. Say bptt.trace(model, map=True)."
    assert error(Loop(), plain, map=True) == (
        "bptt.trace: got map=True and no losses of their own, expected a vector of them. "
        "Call trace.backward(losses) in place of loss.backward()."
    )


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_a_second_derivative_is_refused_in_one_line(engine):
    def penalty(model):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad((model(x) ** 2).sum(), x, create_graph=True)
        slope.pow(2).sum().backward()

    model = Layer()
    if engine == "torch":
        assert "2 backward passes over one forward pass" in error(model, penalty, engine=engine)
        return
    with (
        pytest.raises(RuntimeError, match="second derivative through a fused layer") as caught,
        bptt.trace(model, engine=engine),
    ):
        penalty(model)
    assert "\n" not in str(caught.value)


CALLS = [(Layer(), "compiled"), (Layer(), "torch"), (Loop(), "torch")]


@pytest.mark.parametrize(("model", "engine"), CALLS)
def test_an_input_that_is_written_into_after_the_block_is_refused_rather_than_believed(model, engine):
    x = X.clone()
    with bptt.trace(model, engine=engine) as trace:
        (model(x) ** 2).sum().backward()
    x.zero_()
    with pytest.raises(bptt.errors.InputError, match=r"weight_ih.* that was written into since, expected the numbers"):
        _ = trace.ledger


@pytest.mark.parametrize(("model", "engine"), CALLS)
def test_inputs_are_the_ledgers_own_once_it_was_asked_for(model, engine):
    x = X.clone()
    with bptt.trace(model, engine=engine) as trace:
        (model(x) ** 2).sum().backward()
    ledger = trace.ledger
    x.zero_()
    assert ledger.residual <= 1e-12


def test_backward_after_the_block_is_one_line():
    for model in (Layer(), Loop()):
        with bptt.trace(model) as trace:
            loss = (model(X) ** 2).sum()
        loss.backward()
        with pytest.raises(
            bptt.errors.InputError, match=r"nothing that came back .* Call loss.backward\(\) inside the with"
        ):
            _ = trace.ledger

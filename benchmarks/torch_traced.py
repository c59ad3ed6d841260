"""PyTorch's own steps with our tracer around them, and the same without it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

import bptt
from benchmarks.contenders import Work
from benchmarks.problem import Problem
from benchmarks.torch_peers import CELLS, LAYERS
from bptt.model.layouts import to_torch

EVERY = 50  # steps, of which a watch looks at one


class Loop(torch.nn.Module):
    """A cell of torch's in a Python loop, as people write it."""

    def __init__(self, kind: str, X: int, H: int):
        super().__init__()
        self.cell = CELLS[kind](X, H)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        state, states = None, []
        for row in x:
            state = self.cell(row, state)
            states.append(state[0] if isinstance(state, tuple) else state)
        return (torch.stack(states),)


def loop(problem: Problem, threads: int) -> Work:
    """The loop, plain."""
    return _plain(problem, threads, _loop(problem))


def traced(problem: Problem, threads: int) -> Work:
    """nn.RNN, nn.GRU, nn.LSTM traced: the complete ledger of norms and gains, every step asked for all of it."""
    return _traced(problem, threads, _layer(problem))


def traced_loop(problem: Problem, threads: int) -> Work:
    """The loop traced, factors kept."""
    return _traced(problem, threads, _loop(problem), keep="factors")


def fifty(problem: Problem, threads: int) -> Work:
    """So many training steps of the fused layer."""
    step, answer = _plain(problem, threads, _layer(problem))
    return Work(lambda: [step() for _ in range(EVERY)][-1], answer)


def watched(problem: Problem, threads: int) -> Work:
    """The same number, one of them looked at."""
    model = _layer(problem)
    bptt.watch(model, every=EVERY, to=lambda record: None)
    step, answer = _plain(problem, threads, model)
    return Work(lambda: [step() for _ in range(EVERY)][-1], answer)


def traced_map(problem: Problem, threads: int) -> Work:
    """‖C[k, t]‖ of every parameter, with the step itself."""
    model, T = _layer(problem), problem.shape.T
    x, targets = _data(problem, threads)

    def step() -> Any:
        model.zero_grad(set_to_none=True)
        with bptt.trace(model, map=True, keep="norms") as trace:
            losses = ((model(x)[0] - targets) ** 2).mean((1, 2)) / T
            trace.backward(losses)
        for name in trace.ledger.names:
            trace.ledger.map(name)
        return losses.sum().detach(), model

    return Work(step, _answer)


def fused_calls(problem: Problem, threads: int) -> Work:
    """T backward calls over the graph of nn.LSTM: dL_k/dW of each loss, and no step of it."""
    model, T = _layer(problem), problem.shape.T
    x, targets = _data(problem, threads)
    weights = list(model.parameters())

    def step() -> Any:
        model.zero_grad(set_to_none=True)
        losses = ((model(x)[0] - targets) ** 2).mean((1, 2)) / T
        rows = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
        for weight, *parts in zip(weights, *rows, strict=True):
            weight.grad = torch.stack(parts).sum(0)
        return losses.sum().detach(), model

    return Work(step, _answer)


def _layer(problem: Problem) -> torch.nn.Module:
    layer = LAYERS[problem.kind](problem.shape.X, problem.shape.H)
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in to_torch(problem.network).items()})
    return layer


def _loop(problem: Problem) -> torch.nn.Module:
    model = Loop(problem.kind, problem.shape.X, problem.shape.H)
    arrays = to_torch(problem.network)
    model.cell.load_state_dict({name.removesuffix("_l0"): torch.from_numpy(value) for name, value in arrays.items()})
    return model


def _data(problem: Problem, threads: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.set_num_threads(threads)
    return torch.from_numpy(problem.x), torch.from_numpy(problem.targets)


def _plain(problem: Problem, threads: int, model: torch.nn.Module) -> Work:
    x, targets = _data(problem, threads)

    def step() -> Any:
        model.zero_grad(set_to_none=True)
        loss = F.mse_loss(model(x)[0], targets)
        loss.backward()
        return loss.detach(), model

    return Work(step, _answer)


def _traced(problem: Problem, threads: int, model: torch.nn.Module, keep: str = "norms") -> Work:
    x, targets = _data(problem, threads)

    def step() -> Any:
        model.zero_grad(set_to_none=True)
        with bptt.trace(model, keep=keep) as trace:
            loss = F.mse_loss(model(x)[0], targets)
            loss.backward()
        look(trace.ledger)
        return loss.detach(), model

    return Work(step, _answer)


def look(ledger: Any) -> None:
    """Ask for every norm and gain there is."""
    ask: Callable[[str], Any] = ledger.norms
    for name in ledger.names:
        ask(name)
    for prefix in ledger.states:
        ledger.gains(prefix)


def _answer(done: Any) -> tuple[float, float]:
    loss, model = done
    weight = next(p for name, p in model.named_parameters() if "weight_hh" in name)
    return float(loss), float(weight.grad.norm())

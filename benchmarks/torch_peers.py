"""PyTorch: its own layers, and what people write today to see gradients step by step."""

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.contenders import Work
from benchmarks.problem import Problem
from bptt.model.layouts import to_torch

LAYERS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
CELLS = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}


def plain(problem: Problem, threads: int) -> Work:
    """nn.RNN, nn.GRU, nn.LSTM: for an LSTM this is oneDNN's kernel for the whole sequence."""
    torch.set_num_threads(threads)
    layer = LAYERS[problem.kind](problem.shape.X, problem.shape.H)
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in to_torch(problem.network).items()})
    weights = dict(layer.named_parameters())
    x, targets = torch.from_numpy(problem.x), torch.from_numpy(problem.targets)

    def step() -> Any:
        loss = F.mse_loss(layer(x)[0], targets)
        return loss.detach(), dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    return Work(step, lambda done: (float(done[0]), float(done[1]["weight_hh_l0"].norm())))


def hooks(problem: Problem, threads: int) -> Work:
    """A Python loop over cells, and a hook on every h_t that notes ‖∂J/∂h_t‖: no step gradient of any weight."""
    cell, walk, targets = _loop(problem, threads)
    weights = list(cell.parameters())

    def step() -> Any:
        states, seen = walk(), []
        for h in states:
            h.register_hook(lambda d: seen.append(d.norm()))
        loss = F.mse_loss(torch.stack(states), targets)
        found = torch.autograd.grad(loss, weights)
        return loss.detach(), found, torch.stack(seen).flip(0)

    at = [name for name, _ in cell.named_parameters()].index("weight_hh")
    return Work(step, lambda done: (float(done[0]), float(done[1][at].norm())))


def backward_calls(problem: Problem, threads: int) -> Work:
    """Loss k × step t by T backward calls: ‖∂L_k/∂h_t‖, one call per loss, the graph kept; no weight's part in it."""
    cell, walk, targets = _loop(problem, threads)
    T = problem.shape.T

    def losses(states: list[torch.Tensor]) -> list[torch.Tensor]:
        return [F.mse_loss(h, target) / T for h, target in zip(states, targets, strict=True)]

    def step() -> Any:
        states, table = walk(), torch.zeros(T, T)
        each = losses(states)
        for k, loss in enumerate(each):
            found = torch.autograd.grad(loss, states[: k + 1], retain_graph=True)
            table[k, : k + 1] = torch.stack([d.norm() for d in found])
        return torch.stack(each).sum().detach(), table

    def answer(done: Any) -> tuple[float, float]:
        (found,) = torch.autograd.grad(torch.stack(losses(walk())).sum(), [cell.weight_hh])  # which the table has not
        return float(done[0]), float(found.norm())

    return Work(step, answer)


def _loop(problem: Problem, threads: int) -> tuple[Any, Any, torch.Tensor]:
    """A cell, a function that walks it forward and returns every h_t, and the targets."""
    torch.set_num_threads(threads)
    cell = CELLS[problem.kind](problem.shape.X, problem.shape.H)
    arrays = to_torch(problem.network)
    cell.load_state_dict({name.removesuffix("_l0"): torch.from_numpy(value) for name, value in arrays.items()})
    x, targets = torch.from_numpy(problem.x), torch.from_numpy(problem.targets)

    def walk() -> list[torch.Tensor]:
        state, states = None, []
        for row in x:
            state = cell(row, state)
            states.append(state[0] if problem.kind == "lstm" else state)
        return states

    return cell, walk, targets

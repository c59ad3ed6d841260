"""Every line of the tracer matters: with one thing wrong, some number is wrong."""

import contextlib
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import bptt
from bptt.trace.torch import assemble, calls, compiled, fused, losses, tracer, unroll, walks
from oracles.fused_cases import Built, Case
from oracles.handmade import MODELS, B, Copies, D, Hand, T, numbers
from oracles.mutate import RED, mutated
from oracles.programs import Layer, Loop, X

MATMULS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mm, Tensor.mm)


def relative(pairs):
    """The largest difference, relative to the largest number wanted; infinite where a shape is another."""
    pairs = [(np.asarray(f), np.asarray(w)) for f, w in pairs]
    if any(f.shape != w.shape for f, w in pairs):
        return float("inf")
    worst = max(np.abs(f - w).max(initial=0) for f, w in pairs) / max(np.abs(w).max(initial=0) for _, w in pairs)
    return float(np.nan_to_num(worst, nan=np.inf))


def slopes(loss, copies):
    found = torch.autograd.grad(loss, copies, retain_graph=True, allow_unused=True)
    return np.stack([np.zeros(c.shape) if g is None else g.numpy() for g, c in zip(found, copies, strict=True)])


def by_hand(name, scale=1.0):
    """A model by hand: dW_t and C[k, t] against untied copies."""

    def wrongness():
        model, x = Hand(name), numbers(T, B, D, seed=30)
        per_step = lambda outs: torch.stack([(y + y**2).sum() for y in outs])  # noqa: E731
        with bptt.trace(model, keep="full", map=True, scaler=Fixed(scale)) as trace:
            trace.backward(per_step(model(x)) * scale)
        copies = Copies(model)
        alone = per_step(MODELS[name][1](copies.use, x))
        ledger, pairs = trace.ledger, []
        if ledger.names != [n for n in copies.of if len(copies.of[n]) > 1]:
            return float("inf")
        for n in ledger.names:
            pairs.append((ledger.step_gradients(n), slopes(alone.sum(), copies.of[n])))
            pairs.append((ledger.gradient(n), slopes(alone.sum(), copies.of[n]).sum(0)))
            if scale == 1:
                pairs += [(ledger.contributions(n)[k], slopes(alone[k], copies.of[n])) for k in range(T)]
        return relative(pairs)

    return wrongness


class Fixed:
    """A GradScaler whose scale stays."""

    def __init__(self, scale):
        self.scale = scale

    def get_scale(self):
        return self.scale


def of_layer(case, each=False):
    """A fused layer: its step against the untraced one; dW_t, states and, if asked, C[k, t] against untied copies."""

    def wrongness():
        built = Built(case)
        plain = built.step()
        with bptt.trace(built.net, engine=case.engine, map=each, keep="full" if each else "factors") as trace:
            traced = built.step(*([trace.backward] if each else []))
        twin, alone = built.untied()
        pairs = [(traced[n].double().numpy(), plain[n].double().numpy()) for n in plain if n != "random"]
        ledger, J = trace.ledger, alone.sum()
        for n, copies in twin.copies.items():
            pairs.append((ledger.step_gradients("rnn." + n), slopes(J, [copies])[0]))
            if each:
                pairs += [(ledger.contributions("rnn." + n)[k], slopes(alone[k], [copies])[0]) for k in range(case.T)]
        for (layer, way), parts in twin.bumps.items():
            key = f"rnn.l{layer}" + ("_reverse." if way else ".")
            pairs += list(zip(ledger.state_parts[key], slopes_of(J, parts), strict=True))
        return relative(pairs)

    return wrongness


def slopes_of(loss, parts):
    found = torch.autograd.grad(loss, parts, retain_graph=True, allow_unused=True)
    return [np.zeros(p.shape) if g is None else g.numpy() for g, p in zip(found, parts, strict=True)]


def of_steps(model, step):
    """A step's dW_t, added up, against the gradient that it left; and against that of a plain step over all."""

    def wrongness():
        made = model()
        with bptt.trace(made) as trace:
            step(made)
        wanted = model()
        (wanted(X) ** 2).sum().backward()
        ledger = trace.ledger
        pairs = []
        for n, p in wanted.named_parameters():
            if n in ledger.names:
                pairs += [(ledger.gradient(n), p.grad.numpy()), (ledger.step_gradients(n).sum(0), p.grad.numpy())]
        return relative(pairs) if len(pairs) >= 8 else float("inf")

    return wrongness


def in_two_passes(model):
    for part in X.split(1, 1):
        (model(part) ** 2).sum().backward()


def under_a_checkpoint(model):
    x = X.clone().requires_grad_()
    (checkpoint(model, x, use_reentrant=True) ** 2).sum().backward()


RAGGED = Case(kind="gru", both=True, packed="unsorted", engine="torch", T=4, B=3, seed=3, touches="both")
LSTM = Case(kind="lstm", both=True, engine="torch", state="none")
COMPILED = Case(kind="gru", both=True, engine="compiled", state="wanted", layers=2)


def linear_of(wrong):
    return mock.patch.dict(calls.CALLS, {F.linear: wrong.linear} | dict.fromkeys(MATMULS, wrong.matmul))


def method(owner, *names):
    """Methods of the wrong module's class put in place of the right ones."""

    def patch(wrong):
        stack = contextlib.ExitStack()
        for name in names:
            stack.enter_context(mock.patch.object(owner, name, getattr(getattr(wrong, owner.__name__), name)))
        return stack

    return patch


def function(module, name):
    return lambda wrong: mock.patch.object(module, name, getattr(wrong, name))


SCAN, PRODUCT = function(fused, "unrolled_scan"), method(unroll._Listener, "product")
IDENTITY, FIRST = "device=self.losses.device)[low:high]", "slice(None, None, -1) if self.scan.reverse"
MUTATIONS = {
    "another kind of product": (calls, '"linear", _matrix(x), signal, out)', '"matmul", _matrix(x), signal, out)',
                                linear_of, by_hand("F.linear")),
    "columns not turned": (calls, "signal, out, x.dim() == 2)", "signal, out, False)", linear_of,
                           by_hand("W @ x, columns")),
    "a transpose forgotten": (calls, "_OTHER[kind] if source.flipped else kind", "kind", linear_of,
                              by_hand("hoisted transposes")),
    "a transpose of the gradient forgotten": (tracer, "g.t() if source.flipped else g", "g",
                                              method(tracer.Tracer, "ready"), by_hand("addmm, hoisted transposes")),
    "uses in the wrong order": (assemble, "lambda entry: entry.order)", "lambda entry: entry.order, reverse=True)",
                                function(assemble, "entries"), by_hand("x @ W")),
    "the scale ignored": (assemble, "_scaled(w, 1 / tracer.scale)", "_scaled(w, 1)", function(assemble, "entries"),
                          by_hand("x @ W", 8.0)),
    "a masked weight used once": (tracer, "(func in MASKS and self._masks(tensors))", "False",
                                  method(tracer.Tracer, "generic"), by_hand("dropconnect")),
    "a state taken for a weight": (tracer, "if func in PRODUCTS:", "if False:", method(tracer.Tracer, "generic"),
                                   by_hand("autonomous")),
    "parts of a gradient lost": (tracer, "if known is None else known + g.detach()", "",
                                 method(tracer.Tracer, "gradient_hook"),
                                 of_steps(Loop, in_two_passes)),
    "a checkpoint's second call not recorded": (tracer, "self.again(function, place)(", "self.again(function)(",
                                                method(tracer.Tracer, "segment"), of_steps(Layer, under_a_checkpoint)),
    "reverse forgotten": (unroll, "t = walk.T - 1 - i if scan.reverse else i", "t = i", SCAN, of_layer(LSTM)),
    "ended sequences go on": (unroll, "torch.where(live, new, old)", "new", SCAN, of_layer(RAGGED)),
    "z of the wrong step": (unroll, "heard.z[t], heard", "heard.z[t - 1], heard", PRODUCT, of_layer(LSTM)),
    "c with its own step's output": (unroll, "(parts[0], *(part.view_as(part) for part in parts[1:]))", "parts",
                                     method(unroll._Listener, "state"), of_layer(LSTM)),
    "no adjoint of the state before": (unroll, "part if part.requires_grad else Begun.apply(part, weight)", "part",
                                       method(unroll._Listener, "begun"), of_layer(LSTM)),
    "a bias counted twice": (compiled, 'params["b"] = b_ih + b_hh', 'params["b"] = b_ih + 2 * b_hh',
                             function(compiled, "ours"), of_layer(Case(kind="lstm", engine="compiled"))),
    "the other bias of a GRU": (compiled, 'gradients["b_hh"] if scan.kind == "gru" else', "",
                                function(compiled, "theirs"), of_layer(COMPILED)),
    "the other use of a GRU": (walks, 'uses["b_hh" if kind == "gru" else "b"]', 'uses["b"]',
                               function(walks, "in_slots"), of_layer(COMPILED)),
    "states of the other direction": (walks, FIRST, "slice(None) if self.scan.reverse",
                                      method(walks.Walk, "_take_states"), of_layer(COMPILED)),
    "adjoints not added": (losses, "adjoint if known is None else known + adjoint", "adjoint", function(losses, "_add"),
                           of_layer(COMPILED, each=True)),
    "losses in the wrong order": (losses, IDENTITY, IDENTITY + ".flip(0)",
                                  method(losses.Losses, "_sweep"), by_hand("x @ W")),
    "contributions not turned": (losses, "delta = delta.mT", "delta = delta", method(losses.Losses, "_sweep"),
                                 by_hand("addmm, hoisted transposes")),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_tracer_is_red(name):
    module, old, new, patch, wrongness = MUTATIONS[name]
    with patch(mutated(module, old, new)), pytest.MonkeyPatch.context() as context:
        context.setattr("bptt.trace.torch.tracing.adds_up", lambda *_: True)  # whose warning would end the test early
        try:
            found = wrongness()
        except (RuntimeError, ValueError, KeyError, IndexError, AssertionError):  # shapes that do not fit are red too
            found = float("inf")
    assert found > RED


@pytest.mark.parametrize("wrongness", {id(m[4]): m[4] for m in MUTATIONS.values()}.values())
def test_the_tracer_as_it_stands_is_green(wrongness):
    assert wrongness() <= 1e-12

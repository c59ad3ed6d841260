"""Training steps as people write them: traced, they leave what they leave untraced, and every use is in the ledger."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import bptt
from oracles.programs import Layer, Loop, X, both, difference, plain, steps

FUSED, LOOP = 1e-12, 0.0  # of what our engine walks, and of everything else
RNN = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]


def chunked(detach, each):
    def step(model):
        state, loss = None, 0
        for chunk in X.split(2):
            out, state = model.rnn(chunk, state)
            state = tuple(s.detach() for s in state) if detach else state
            loss = loss + (model.out(out) ** 2).sum()
            if each:
                loss.backward()
                loss = 0
        if not each:
            loss.backward()

    return step


def siamese(model):
    (model(X) - 2 * model(X.flip(0))).pow(2).sum().backward()


def accumulated(model):
    for part in X.split(3):
        (model(part) ** 2).sum().backward()


def by_grad(model):
    for p, g in zip(
        model.parameters(), torch.autograd.grad((model(X) ** 2).sum(), list(model.parameters())), strict=True
    ):
        p.grad = g


def functional(model):
    (torch.func.functional_call(model, dict(model.named_parameters()), (X,)) ** 2).sum().backward()


def fast_weights(model):
    moved = {name: 1.1 * p for name, p in model.named_parameters()}
    (torch.func.functional_call(model, moved, (X,)) ** 2).sum().backward()


def retained(model):
    (model(X) ** 2).sum().backward(retain_graph=True)


def with_graph(model):
    loss = (model(X) ** 2).sum()
    for p, g in zip(
        model.parameters(), torch.autograd.grad(loss, list(model.parameters()), create_graph=True), strict=True
    ):
        p.grad = g.detach()


def optimised(model):
    """The optimiser's own step inside the block: it moves the weights, and is no use of them."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    (model(X) ** 2).sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    optimiser.step()


def not_a_leaf(model):
    start = torch.ones(1, dtype=X.dtype, requires_grad=True)
    (model(X * start) ** 2).sum().backward()


STEPS = {
    "plain": (plain, 6), "siamese": (siamese, 12), "accumulated": (accumulated, 6), "autograd.grad": (by_grad, 6),
    "functional_call": (functional, 6), "fast weights": (fast_weights, 6), "retain_graph": (retained, 6),
    "create_graph": (with_graph, 6), "an optimiser inside": (optimised, 6), "not a leaf": (not_a_leaf, 6),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["compiled", "torch"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_with_a_fused_layer(name, engine):
    step, T = STEPS[name]
    untraced, traced, ledger = both(Layer(), step, engine=engine)
    assert difference(untraced, traced) <= FUSED
    assert ledger.residual <= FUSED
    assert {steps(ledger)[f"rnn.{n}"] for n in RNN} == {T}


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_with_a_loop_has_the_same_bits(name, kind):
    step, T = STEPS[name]
    untraced, traced, ledger = both(Loop(kind), step)
    assert difference(untraced, traced) == LOOP
    assert ledger.residual <= 1e-12
    assert set(steps(ledger).values()) == {T}
    assert ledger.meta["unseen"] == []


@pytest.mark.parametrize(("detach", "each"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_chunks_of_one_layer_that_hand_on_their_state_are_one_walk(detach, each, engine):
    untraced, traced, ledger = both(Layer(), chunked(detach, each), engine=engine)
    assert difference(untraced, traced) <= FUSED
    assert ledger.residual <= FUSED
    assert list(ledger.states) == ["rnn.l0."]
    assert ledger.states["rnn.l0."].shape == (7, 2)
    whole, _, one = both(Layer(), plain, engine=engine)
    if not detach:
        assert difference(whole, untraced) <= 1e-12
        assert abs(one.states["rnn.l0."] - ledger.states["rnn.l0."]).max() <= 1e-12 * one.states["rnn.l0."].max()
    assert abs(one.losses.sum() - ledger.losses.sum()) <= 1e-12 * one.losses.sum()


PARAMETRIZED = {
    "weight norm": (parametrizations.weight_norm, ["original0", "original1"]),
    "spectral norm": (parametrizations.spectral_norm, ["original"]),
    "orthogonal": (parametrizations.orthogonal, ["original"]),
}


def cached(model):
    with parametrize.cached():
        plain(model)


@pytest.mark.parametrize("step", [plain, cached])
@pytest.mark.parametrize("name", PARAMETRIZED)
def test_a_parametrized_cell_has_a_use_for_each_step(name, step):
    of, originals = PARAMETRIZED[name]
    model = Loop(nn.GRUCell)
    of(model.cell, "weight_hh")
    untraced, traced, ledger = both(model, step)
    assert difference(untraced, traced) == LOOP
    assert ledger.residual <= 1e-12
    assert {steps(ledger)[f"cell.parametrizations.weight_hh.{n}"] for n in originals} == {6}


@pytest.mark.parametrize("engine", ["compiled", "torch"])
@pytest.mark.parametrize("name", PARAMETRIZED)
def test_a_parametrized_layer_has_a_use_for_each_step(name, engine):
    of, originals = PARAMETRIZED[name]
    model = Layer()
    of(model.rnn, "weight_hh_l0")
    untraced, traced, ledger = both(model, plain, engine=engine)
    assert difference(untraced, traced) <= FUSED
    assert ledger.residual <= FUSED
    assert {steps(ledger)[f"rnn.parametrizations.weight_hh_l0.{n}"] for n in originals} == {6}


class Looped(nn.Module):
    """One block of a transformer, gone through three times."""

    def __init__(self, block):
        super().__init__()
        self.block = block.double()

    def forward(self, x):
        for _ in range(3):
            found = self.block(x, x, x) if isinstance(self.block, nn.MultiheadAttention) else self.block(x)
            x = x + found[0] if isinstance(found, tuple) else found
        return x


BLOCKS = {
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True),
    "Conv1d and BatchNorm": lambda: nn.Sequential(nn.Conv1d(5, 5, 3, padding=1), nn.BatchNorm1d(5), nn.PReLU()),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_that_is_looped_over_has_a_use_for_each_time(name):
    data = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    untraced, traced, ledger = both(Looped(BLOCKS[name]()), lambda model: (model(data) ** 2).sum().backward())
    assert difference(untraced, traced) == LOOP
    assert set(steps(ledger).values()) == {3}
    assert max(ledger.residuals[n] for n in ledger.names if abs(ledger.gradient(n)).max() > 1e-9) <= 1e-9


# ---- checkpoints -----------------------------------------------------------------------------------------------------

XG = X.clone().requires_grad_()


def over_the_layer(model, reentrant):
    (model.out(checkpoint(model.rnn, XG, use_reentrant=reentrant)[0]) ** 2).sum().backward()


def over_all(model, reentrant):
    (checkpoint(model, XG, use_reentrant=reentrant) ** 2).sum().backward()


def nested(model, reentrant, within=None):
    def inner(x):
        return checkpoint(model.rnn, x, use_reentrant=reentrant if within is None else within)[0]

    (model.out(checkpoint(inner, XG, use_reentrant=reentrant)) ** 2).sum().backward()


def mixed(model, reentrant):
    nested(model, reentrant, not reentrant)


CHECKPOINTS = {"the layer": over_the_layer, "all": over_all, "nested": nested, "nested, both kinds": mixed}


@pytest.mark.parametrize("engine", ["compiled", "torch"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_around_fused_layers(name, reentrant, engine):
    model = Layer(nn.LSTM, 2, dropout=0.5)
    untraced, traced, ledger = both(model, lambda m: CHECKPOINTS[name](m, reentrant), engine=engine)
    assert difference(untraced, traced) <= FUSED
    assert ledger.residual <= FUSED
    assert len(ledger.names) == 8
    assert set(steps(ledger).values()) == {6}


@pytest.mark.parametrize("engine", ["compiled", "torch"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_around_a_layer_with_weight_norm(reentrant, engine):
    model = Layer()
    parametrizations.weight_norm(model.rnn, "weight_hh_l0")
    untraced, traced, ledger = both(model, lambda m: over_all(m, reentrant), engine=engine)
    assert difference(untraced, traced) <= FUSED
    assert ledger.residual <= FUSED
    assert set(steps(ledger).values()) == {6}


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_around_parts_of_a_loop_keep_the_order_of_the_steps(reentrant):
    def step(wrapped):
        def run(model):
            def part(x, h, c):
                for row in x:
                    h, c = model.cell(row, (h, c))
                return F.dropout(h, 0.3), c

            s, loss = (torch.zeros(2, 4, dtype=X.dtype, requires_grad=True),) * 2, 0
            for x in XG.split(2):
                s = checkpoint(part, x, *s, use_reentrant=reentrant) if wrapped else part(x, *s)
                loss = loss + (model.out(s[0]) ** 2).sum()
            loss.backward()

        return run

    untraced, traced, ledger = both(Loop(), step(True))
    assert difference(untraced, traced) == LOOP
    assert ledger.residual <= 1e-12
    _, _, wanted = both(Loop(), step(False))
    assert steps(ledger) == steps(wanted)
    for name in wanted.names:
        assert (
            abs(ledger.step_gradients(name) - wanted.step_gradients(name)).max()
            <= 1e-12 * abs(wanted.gradient(name)).max()
        )


@pytest.mark.parametrize("engine", ["compiled", "torch"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_chunks_under_checkpoints_are_one_walk(reentrant, engine):
    def step(model):
        state, loss = (torch.zeros(1, 2, 4, dtype=X.dtype, requires_grad=True),) * 2, 0
        for chunk in XG.split(2):
            out, state = checkpoint(model.rnn, chunk, state, use_reentrant=reentrant)
            loss = loss + (model.out(out) ** 2).sum()
        loss.backward()

    if reentrant:  # which hands a tuple of states on without a gradient, untraced as well
        step = chunks_of_tensors

    untraced, traced, ledger = both(Layer(), step, engine=engine)
    assert difference(untraced, traced) <= FUSED
    assert ledger.residual <= FUSED
    assert list(ledger.states) == ["rnn.l0."]
    assert ledger.states["rnn.l0."].shape == (7, 2)
    _, _, whole = both(Layer(), plain, engine=engine)
    assert abs(ledger.states["rnn.l0."] - whole.states["rnn.l0."]).max() <= 1e-12 * whole.states["rnn.l0."].max()


def chunks_of_tensors(model):
    def run(x, h, c):
        out, (h, c) = model.rnn(x, (h, c))
        return out, h, c

    h = c = torch.zeros(1, 2, 4, dtype=X.dtype, requires_grad=True)
    loss = 0
    for chunk in XG.split(2):
        out, h, c = checkpoint(run, chunk, h, c, use_reentrant=True)
        loss = loss + (model.out(out) ** 2).sum()
    loss.backward()


def test_every_loss_alone_through_a_checkpoint_that_is_not_reentrant():
    def losses(model, wrapped):
        out = checkpoint(model, XG, use_reentrant=False) if wrapped else model(XG)
        return (out**2).sum((1, 2))

    for model in (Layer(), Loop()):
        found = []
        for wrapped in (True, False):
            with bptt.trace(model, map=True, keep="full") as trace:
                trace.backward(losses(model, wrapped))
            found.append(trace.ledger)
        for name in found[0].names:
            assert abs(found[0].contributions(name) - found[1].contributions(name)).max() <= 1e-12


# ---- functions of one's own ------------------------------------------------------------------------------------------


class Product(torch.autograd.Function):
    """x W and its gradient, in a way that no mode of torch can look into."""

    @staticmethod
    def forward(ctx, x, W):
        ctx.save_for_backward(x, W)
        return torch.from_numpy(x.detach().numpy() @ W.detach().numpy())

    @staticmethod
    def backward(ctx, d):
        x, W = ctx.saved_tensors
        return torch.from_numpy(d.numpy() @ W.numpy().T), torch.from_numpy(x.numpy().T @ d.numpy())


class Own(nn.Module):
    def __init__(self, product):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.U = (nn.Parameter(torch.randn(n, 4, dtype=X.dtype)) for n in (3, 4))
        self.product = product

    def forward(self, x):
        h, outs = torch.zeros(2, 4, dtype=X.dtype), []
        for row in x:
            h = torch.tanh(row @ self.W + self.product(h, self.U))
            outs.append(h)
        return torch.stack(outs)


def test_a_function_of_ones_own_is_a_use():
    untraced, traced, ledger = both(Own(Product.apply), plain)
    assert difference(untraced, traced) == LOOP
    _, _, wanted = both(Own(torch.matmul), plain)
    assert steps(ledger) == steps(wanted) == {"W": 6, "U": 6}
    for name in "WU":
        assert abs(ledger.step_gradients(name) - wanted.step_gradients(name)).max() <= 1e-12


def test_every_loss_alone_where_a_part_takes_no_batch():
    found = []
    for product in (Product.apply, torch.matmul):
        with bptt.trace(model := Own(product), map=True, keep="full") as trace:
            trace.backward((model(X) ** 2).sum((1, 2)))
        found.append(trace.ledger)
    for name in "WU":
        assert abs(found[0].contributions(name) - found[1].contributions(name)).max() <= 1e-12


def test_every_loss_alone_through_a_checkpoint_with_random_numbers():
    model, drop, found = Loop(), nn.Dropout(0.5), []
    for wrapped in (True, False):
        torch.manual_seed(2)
        with bptt.trace(model, map=True, keep="full") as trace:
            run = lambda x: drop(model(x))  # noqa: E731
            out = checkpoint(run, XG, use_reentrant=False) if wrapped else run(XG)
            trace.backward((out**2).sum((1, 2)))
        found.append((trace.ledger, torch.get_rng_state()))
    assert torch.equal(found[0][1], found[1][1])
    for name in found[0][0].names:
        assert abs(found[0][0].contributions(name) - found[1][0].contributions(name)).max() <= 1e-12


# ---- parts of a model, and more than one ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_frozen_parts_are_left_out_and_change_nothing(engine):
    model = Layer()
    model.rnn.weight_hh_l0.requires_grad_(False)
    untraced, traced, ledger = both(model, plain, engine=engine)
    assert difference(untraced, traced) <= FUSED
    assert ledger.names == ["rnn.weight_ih_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"]
    model = Loop()
    model.cell.weight_hh.requires_grad_(False)
    untraced, traced, ledger = both(model, plain)
    assert difference(untraced, traced) == LOOP
    assert ledger.names == ["cell.weight_ih", "cell.bias_ih", "cell.bias_hh", "out.weight", "out.bias"]


def test_a_parameter_that_two_modules_share_has_the_uses_of_both():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.LSTM(3, 4), nn.LSTM(3, 4)
            self.b.weight_hh_l0 = self.a.weight_hh_l0
            self.double()

        def forward(self, x):
            return self.a(x)[0] + 2 * self.b(x)[0]

    untraced, traced, ledger = both(Shared(), plain)
    assert difference(untraced, traced) <= FUSED
    assert ledger.residual <= FUSED
    assert steps(ledger)["a.weight_hh_l0"] == 12
    assert steps(ledger)["b.weight_ih_l0"] == 6


@pytest.mark.parametrize("model", [Layer(), Loop()])
def test_only_gradients_that_were_asked_for_are_in_the_ledger(model):
    name = "rnn.weight_hh_l0" if isinstance(model, Layer) else "cell.weight_hh"
    untraced, traced, ledger = both(
        model, lambda m: (m(X) ** 2).sum().backward(inputs=[dict(m.named_parameters())[name]])
    )
    assert difference(untraced, traced) <= FUSED
    assert ledger.names == [name]
    assert ledger.residual <= 1e-12


def test_a_layer_that_the_loss_does_not_see_has_uses_of_zero():
    class Two(Layer):
        def forward(self, x):
            self.rnn(x.flip(0))
            return super().forward(x)

    for engine in ("compiled", "torch"):
        untraced, traced, ledger = both(Two(), plain, engine=engine)
        assert difference(untraced, traced) <= FUSED
        assert steps(ledger)["rnn.weight_hh_l0"] == 12
        norms = ledger.norms("rnn.weight_hh_l0")
        assert norms[:6].max() == 0
        assert norms[7:].min() > 0


def test_uses_that_cancel_to_the_last_bit_have_a_residual_of_rounding():
    def step(model):
        (model(X) - model(X.flip(0))).pow(2).sum().backward()

    _, _, ledger = both(Layer(), step)
    assert abs(ledger.gradient("out.bias")).max() == 0
    assert ledger.norms("out.bias").min() > 0
    assert ledger.residual <= 1e-12


def test_a_learned_start_of_every_chunk_is_a_use_of_each():
    class Starts(Layer):
        def __init__(self):
            super().__init__(nn.GRU)
            self.start = nn.Parameter(torch.randn(1, 1, 4, dtype=X.dtype))

        def forward(self, x):
            return sum(self.out(self.rnn(part, self.start.expand(1, 2, 4))[0]) for part in x.split(3))

    for engine in ("compiled", "torch"):
        untraced, traced, ledger = both(Starts(), plain, engine=engine)
        assert difference(untraced, traced) <= FUSED
        assert steps(ledger)["start"] == 2
        assert ledger.residual <= 1e-12


def test_a_buffer_that_carries_the_state_is_no_weight():
    class Stateful(Own):
        def __init__(self):
            super().__init__(torch.matmul)
            self.register_buffer("h", torch.zeros(2, 4, dtype=X.dtype))

        def forward(self, x):
            outs = []
            self.h = self.h.detach()
            for row in x:
                h = self.h * 1.0
                h = h.mul_(0.9)
                self.h = torch.tanh(row @ self.W + h @ self.U)
                outs.append(self.h)
            return torch.stack(outs)

    untraced, traced, ledger = both(Stateful(), plain)
    assert difference(untraced, traced) == LOOP
    assert ledger.residual <= 1e-12
    assert steps(ledger) == {"W": 6, "U": 6}

"""Models with nothing wrong in them: each function returns what a factory returns."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

T, B, D, H = 6, 2, 3, 4


class Loop(nn.Module):
    """A function of (row, h) in a loop, with the parameters that it is given."""

    def __init__(self, update, shapes, batch_first=False, **modules):
        super().__init__()
        self.update = update
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape) / 2))
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        h, outs = x.new_zeros(x.shape[1], H), []
        for row in x:
            h = self.update(self, row, h)
            outs.append(h)
        return torch.stack(outs)


def x(*shape):
    return torch.randn(*(shape or (T, B, D)))


def fused_rnn():
    return nn.RNN(D, H, nonlinearity="relu"), x()


def fused_gru_of_two_layers():
    return nn.GRU(D, H, 2, batch_first=True), x(B, T, D)


def fused_lstm_in_both_directions():
    return nn.LSTM(D, H, bidirectional=True), x()


def fused_lstm_with_projection_and_dropout():
    return nn.LSTM(D, H, 2, proj_size=2, dropout=0.5), x()


class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, H)

    def forward(self, a, b):
        return pad_packed_sequence(self.gru(pack_sequence([a, b]))[0])[0]


def packed_sequences():
    return Packs(), (x(T, D), x(T - 2, D))


def loop_of_lstm_cells():
    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTMCell(D, H)

        def forward(self, x):
            state, outs = None, []
            for row in x:
                state = self.cell(row, state)
                outs.append(state[0])
            return torch.stack(outs)

    return Cells(), x()


def loop_of_gru_cells_with_one_loss():
    return Loop(lambda m, r, h: m.cell(r, h), {}, cell=nn.GRUCell(D, H)), x(), lambda out: (out[-1] ** 2).sum()


def written_by_hand_with_tanh():
    return Loop(lambda m, r, h: torch.tanh(r @ m.W + h @ m.U + m.b), {"W": (D, H), "U": (H, H), "b": (H,)}), x()


def written_by_hand_with_relu():
    return Loop(lambda m, r, h: torch.relu(r @ m.W + h @ m.U + m.b), {"W": (D, H), "U": (H, H), "b": (H,)}), x()


def einsum_and_transposed():
    def update(m, row, h):
        return torch.tanh(torch.einsum("bd,dh->bh", row, m.W) + torch.matmul(h, m.U.t()))

    return Loop(update, {"W": (D, H), "U": (H, H)}), x()


class Language(nn.Module):
    """Embedding, recurrent layer, and a readout that is the embedding again."""

    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(7, H), nn.GRUCell(H, H)

    def forward(self, ids):
        h, outs = torch.zeros(ids.shape[1], H), []
        for row in ids:
            h = self.rnn(self.embedding(row), h)
            outs.append(F.linear(h, self.embedding.weight))
        return torch.stack(outs)


def tied_embedding():
    ids = torch.randint(7, (T + 1, B))
    return Language(), ids[:-1], lambda out: F.cross_entropy(out.mT, ids[1:], reduction="none").sum(1)


class Attends(nn.Module):
    """Each step looks at all states before it."""

    def __init__(self):
        super().__init__()
        self.cell, self.query = nn.GRUCell(D + H, H), nn.Linear(H, H)

    def forward(self, x):
        states = [x.new_zeros(x.shape[1], H)]
        for row in x:
            past = torch.stack(states)
            weights = torch.softmax((past * self.query(states[-1])).sum(-1), 0)
            states.append(self.cell(torch.cat([row, (weights[..., None] * past).sum(0)], 1), states[-1]))
        return torch.stack(states[1:])


def attention_over_states():
    return Attends(), x()


class Looped(nn.Module):
    """One transformer block, four times: shared over depth."""

    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(H, 2, 8, batch_first=True)

    def forward(self, x):
        for _ in range(4):
            x = self.block(x)
        return x


def looped_transformer_block():
    return Looped(), x(B, 5, H), lambda out: (out**3).mean()


class Euler(nn.Module):
    def __init__(self):
        super().__init__()
        self.field = nn.Sequential(nn.Linear(H, 8), nn.Tanh(), nn.Linear(8, H))

    def forward(self, y):
        path = []
        for _ in range(8):
            y = y + 0.1 * self.field(y)
            path.append(y)
        return torch.stack(path)


def steps_of_an_ode():
    return Euler(), x(B, H)


def normalised_weights():
    return Loop(
        lambda m, r, h: torch.tanh(m.cell(torch.cat([r, h], 1))), {}, cell=weight_norm(nn.Linear(D + H, H))
    ), x()


def spectral_norm_that_writes_buffers():
    return Loop(
        lambda m, r, h: torch.tanh(m.cell(torch.cat([r, h], 1))), {}, cell=spectral_norm(nn.Linear(D + H, H))
    ), x()


def batch_norm_in_the_loop():
    return Loop(lambda m, r, h: m.norm(m.cell(r, h)), {}, cell=nn.GRUCell(D, H), norm=nn.BatchNorm1d(H)), x(T, 5, D)


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.rnn = nn.Linear(D, D).requires_grad_(False), nn.GRU(D, H)

    def forward(self, x):
        with torch.no_grad():
            seen = self.encoder(x)
        return self.rnn(x + seen)[0]


def frozen_encoder_under_no_grad():
    return Frozen(), x()


def dropout_at_every_step():
    return Loop(lambda m, r, h: m.cell(r, F.dropout(h, 0.4, True)), {}, cell=nn.RNNCell(D, H)), x()


def layer_norm_in_the_loop():
    return Loop(lambda m, r, h: m.norm(m.cell(r, h)), {}, cell=nn.GRUCell(D, H), norm=nn.LayerNorm(H)), x()


def gated_residual():
    def update(m, row, h):
        g = torch.sigmoid(m.gate(torch.cat([row, h], 1)))
        return h + g * torch.tanh(m.new(torch.cat([row, h], 1)))

    return Loop(update, {}, gate=nn.Linear(D + H, H), new=nn.Linear(D + H, H)), x()


class Policy(nn.Module):
    """A state that begins anew where an episode is done."""

    def __init__(self):
        super().__init__()
        self.cell, self.actor, self.critic = nn.LSTMCell(D, H), nn.Linear(H, 2), nn.Linear(H, 1)

    def forward(self, x, done):
        h, c, outs = x.new_zeros(x.shape[1], H), x.new_zeros(x.shape[1], H), []
        for row, end in zip(x, done, strict=True):
            h, c = self.cell(row, (h * (1 - end)[:, None], c * (1 - end)[:, None]))
            outs.append(torch.cat([self.actor(h).log_softmax(-1), self.critic(h)], 1))
        return torch.stack(outs)


def recurrent_policy():
    done = torch.zeros(T, B)
    done[3, 0] = done[2, 1] = 1
    return Policy(), (x(), done)


def checkpoint_without_reentry():
    return Loop(lambda m, r, h: checkpoint(m.cell, r, h, use_reentrant=False), {}, cell=nn.GRUCell(D, H)), x()


def checkpoint_with_reentry():
    return Loop(
        lambda m, r, h: checkpoint(m.cell, r, h, use_reentrant=True), {}, cell=nn.GRUCell(D, H)
    ), x().requires_grad_()


class Right(torch.autograd.Function):
    """A step with the backward that it should have."""

    @staticmethod
    def forward(ctx, x, h, W, U):
        new = torch.tanh(x @ W + h @ U)
        ctx.save_for_backward(x, h, W, U, new)
        return new

    @staticmethod
    def backward(ctx, d):
        x, h, W, U, new = ctx.saved_tensors
        da = d * (1 - new**2)
        return da @ W.t(), da @ U.t(), x.t() @ da, h.t() @ da


def function_done_right():
    return Loop(lambda m, r, h: Right.apply(r, h, m.W, m.U), {"W": (D, H), "U": (H, H)}), x()


class Learned(nn.Module):
    """The first state is a parameter; time comes second."""

    def __init__(self):
        super().__init__()
        self.cell, self.h0, self.batch_first = nn.RNNCell(D, H), nn.Parameter(torch.randn(H)), True

    def forward(self, x):
        h, outs = self.h0.expand(len(x), H), []
        for row in x.unbind(1):
            h = self.cell(row, h)
            outs.append(h)
        return torch.stack(outs, 1)


def learned_first_state():
    return Learned(), x(B, T, D)


def half_precision_inside():
    return Loop(
        lambda m, r, h: torch.tanh(m.cell(torch.cat([r.float(), h], 1)).to(torch.float32)), {}, cell=nn.Linear(D + H, H)
    ), x()


def whole_step_with_one_backward():
    def step(model, x):
        optimiser = torch.optim.Adam(model.parameters())
        optimiser.zero_grad()
        (model(x) ** 2).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimiser.step()

    return {"model": Loop(lambda m, r, h: m.cell(r, h), {}, cell=nn.GRUCell(D, H)), "batch": x(), "step": step}


def accumulation_of_two_losses():
    def step(model, x):
        for part in x.split(1, 1):
            (model(part) ** 2).sum().backward()

    return {"model": Loop(lambda m, r, h: m.cell(r, h), {}, cell=nn.GRUCell(D, H)), "batch": x(), "step": step}


def losses_sent_back_one_by_one():
    def step(model, x):
        for out in model(x):
            (out**2).sum().backward(retain_graph=True)

    return {"model": Loop(lambda m, r, h: m.cell(r, h), {}, cell=nn.GRUCell(D, H)), "batch": x(), "step": step}


def state_sent_on_by_hand():
    def step(model, xs):
        h, pairs = xs.new_zeros(B, H), []
        for row in xs:
            before = h.detach().requires_grad_()
            h = model.cell(row, before)
            pairs.append((before, h))
        (h**2).sum().backward(retain_graph=True)
        for (_before, out), (after, _out) in zip(pairs[-2::-1], pairs[:0:-1], strict=True):
            out.backward(after.grad)

    return {"model": Loop(lambda m, r, h: m.cell(r, h), {}, cell=nn.GRUCell(D, H)), "batch": x(), "step": step}


def states_whose_gradient_is_cleared():
    """The recipe of discuss.pytorch.org/t/15500 as it should be: no .grad of a state outlives its loss."""

    def step(model, xs):
        pairs = [(None, xs.new_zeros(B, H))]
        for j, row in enumerate(xs):
            before = pairs[-1][1].detach().requires_grad_()
            pairs.append((before, model.cell(row, before)))
            (pairs[-1][1] ** 2).sum().backward(retain_graph=True)
            for i in range(j):
                pairs[-i - 2][1].backward(pairs[-i - 1][0].grad, retain_graph=True)
            for state, _new in pairs[1:]:
                state.grad = None

    return {"model": Loop(lambda m, r, h: m.cell(r, h), {}, cell=nn.RNNCell(D, H)), "batch": x(), "step": step}


MODELS = [
    fused_rnn, fused_gru_of_two_layers, fused_lstm_in_both_directions, fused_lstm_with_projection_and_dropout,
    packed_sequences, loop_of_lstm_cells, loop_of_gru_cells_with_one_loss, written_by_hand_with_tanh,
    written_by_hand_with_relu, einsum_and_transposed, tied_embedding, attention_over_states, looped_transformer_block,
    steps_of_an_ode, normalised_weights, spectral_norm_that_writes_buffers, batch_norm_in_the_loop,
    frozen_encoder_under_no_grad, dropout_at_every_step, layer_norm_in_the_loop, gated_residual,
    recurrent_policy, checkpoint_without_reentry, checkpoint_with_reentry, function_done_right, learned_first_state,
    half_precision_inside, whole_step_with_one_backward, accumulation_of_two_losses, losses_sent_back_one_by_one,
    state_sent_on_by_hand,
    states_whose_gradient_is_cleared,
]  # fmt: skip

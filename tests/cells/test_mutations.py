"""Every line of a cell matters: a cell with one thing wrong in it is told from the oracle at once."""

import functools

import pytest

import bptt.cells.gru
import bptt.cells.lstm
import bptt.cells.rnn
from oracles.mutate import RED, mutated, unchanged, worst_error
from oracles.problems import make_problem

MODULES = {"rnn": bptt.cells.rnn, "gru": bptt.cells.gru, "lstm": bptt.cells.lstm}
CLASSES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}

STEP_RNN = {
    "transposed weight": ("times(s.h, p.W_hh) + p.b", "times(s.h, p.W_hh.T) + p.b"),
    "ignored bias": ("times(s.h, p.W_hh) + p.b", "times(s.h, p.W_hh)"),
    "forgotten carry": ("+ times(s.h, p.W_hh) + p.b", "+ p.b"),
    "ignored input": ("a = times(x, p.W_xh) + times", "a = 0 * times(x, p.W_xh) + times"),
    "stale state": ("return RNNState(h), RNNTape", "return RNNState(s.h + 0 * h), RNNTape"),
    "stale tape": ("RNNTape(x, s.h, h)", "RNNTape(x, h, h)"),
}
BACK_RNN = {
    "transposed weight": ("RNNState(times(da, p.W_hh.T))", "RNNState(times(da, p.W_hh))"),
    "forgotten carry": ("RNNState(times(da, p.W_hh.T))", "RNNState(0 * ds.h)"),
    "derivative skipped on the way back": ("RNNState(times(da, p.W_hh.T))", "RNNState(times(ds.h, p.W_hh.T))"),
    "use with the wrong input": ("Matmul(h_prev, da)", "Matmul(h, da)"),
    "use with the wrong delta": ("Matmul(x, da)", "Matmul(x, ds.h)"),
    "bias with the wrong delta": ("Elementwise(None, da)", "Elementwise(None, ds.h)"),
    "wrong dx": ("times_transposed(da, p.W_xh, x)", "times_transposed(ds.h, p.W_xh, x)"),
}
GRU_BOTH = {
    "swapped gates": ("r = sigmoid(a[:, :H] + u[:, :H])\n        z =", "z = sigmoid(a[:, :H] + u[:, :H])\n        r ="),
    "swapped recurrent gates": ("r = sigmoid(a[:, :H] + u[:, :H])", "r = sigmoid(a[:, :H] + u[:, H : 2 * H])"),
    "ignored bias": ("a = times(x, p.W_xh) + p.b", "a = times(x, p.W_xh)"),
    "z keeps the new": ("h = n + z * (h_prev - n)", "h = h_prev + z * (n - h_prev)"),
    "forgotten carry": ("h = n + z * (h_prev - n)", "h = n - z * n"),
    "stale state": ("return GRUState(h), GRUTape", "return GRUState(h_prev + 0 * h), GRUTape"),
    "z as n in the tape": ("GRUTape(x, h_prev, r, z, q, n)", "GRUTape(x, h_prev, z, r, q, n)"),
    "forgotten leak back": ("dh_prev, dz, dn = ds.h * z,", "dh_prev, dz, dn = 0 * ds.h,"),
    "wrong dz": ("ds.h * (h_prev - n), ds", "ds.h * h_prev, ds"),
    "wrong dn": ("ds.h * (1 - z)", "ds.h * z"),
    "wrong derivative of tanh": ("da_n = dn * (1 - n * n)", "da_n = dn * (1 - n)"),
    "wrong derivative of sigmoid": ("da_z = dz * z * (1 - z)", "da_z = dz * (1 - z)"),
    "swapped deltas": ("da = np.concatenate([da_r, da_z, da_n]", "da = np.concatenate([da_z, da_r, da_n]"),
    "use with the wrong input": ('"W_xh": Matmul(x, da)', '"W_xh": Matmul(x + 0.1 * (x.dtype.kind == "f"), da)'),
    "wrong dx": (
        "return GRUState(dh_prev), times_transposed(da,",
        "return GRUState(dh_prev), times_transposed(0 * da,",
    ),
}
GRU_AFTER = {
    "transposed weight": (
        'times(h_prev, p.W_hh if self.reset == "after"',
        'times(h_prev, np.hstack([W.T for W in np.hsplit(p.W_hh, 3)]) if self.reset == "after"',
    ),
    "ignored second bias": ("q = u[:, 2 * H :] + p.b_hn", "q = u[:, 2 * H :]"),
    "reset of the wrong thing": ("n = np.tanh(a[:, 2 * H :] + r * q)", "n = np.tanh(r * a[:, 2 * H :] + q)"),
    "no derivative by r": ("dr, dq = da_n * q, da_n * r", "dr, dq = 0 * da_n * q, da_n * r"),
    "second bias with the wrong delta": ('"b_hn": Elementwise(None, dq)', '"b_hn": Elementwise(None, da_n)'),
    "recurrent use with the input's delta": (
        'recurrent = {"W_hh": Matmul(h_prev, du), "b_hn"',
        'recurrent = {"W_hh": Matmul(h_prev, np.concatenate([da_r, da_z, da_n], axis=-1)), "b_hn"',
    ),
    "forgotten carry back": ("dh_prev = dh_prev + times(du, p.W_hh.T)", "dh_prev = dh_prev"),
}
GRU_BEFORE = {
    "reset after the product": ("times(q, p.W_hh[:, 2 * H :])", "r * times(h_prev, p.W_hh[:, 2 * H :])"),
    "candidate's use with h instead of r h": ("Matmul(q, da_n)", "Matmul(h_prev, da_n)"),
    "forgotten path through r h": ("dh_prev = dh_prev + dq * r + times", "dh_prev = dh_prev + times"),
    "no derivative by r": ("dr = dq * h_prev", "dr = dq * r"),
    "forgotten carry back": ("+ dq * r + times(du, p.W_hh[:, : 2 * H].T)", "+ dq * r"),
    "transposed weight back": ("dq = times(da_n, p.W_hh[:, 2 * H :].T)", "dq = times(da_n, p.W_hh[:, 2 * H :])"),
}
LSTM_ALL = {
    "swapped gates": ("i, f, g = sigmoid(a_i), sigmoid(a_f)", "f, i, g = sigmoid(a_i), sigmoid(a_f)"),
    "swapped outer gates": ("a_i, a_f, a_g, a_o = a[:, :H]", "a_o, a_f, a_g, a_i = a[:, :H]"),
    "ignored bias": ("times(h_prev, p.W_hh) + p.b", "times(h_prev, p.W_hh)"),
    "ignored recurrence": ("+ times(h_prev, p.W_hh) + p.b", "+ p.b"),
    "forgotten carry": ("c = f * c_prev + i * g\n        if", "c = i * g\n        if"),
    "stale state": ("return LSTMState(h, c), LSTMTape", "return LSTMState(h, c_prev), LSTMTape"),
    "output without tanh": ("y = np.tanh(c)\n", "y = c\n"),
    "stale tape": ("LSTMTape(x, h_prev, c_prev, i, f, g, o, c, y, m)", "LSTMTape(x, h_prev, c, i, f, g, o, c, y, m)"),
    "wrong derivative of o": ("da_o = do * o * (1 - o)", "da_o = do * o"),
    "wrong derivative of tanh c": ("dc = ds.c + dy * (1 - y * y)", "dc = ds.c + dy * (1 - c * c)"),
    "forgotten memory path": ("dc = ds.c + dy * (1 - y * y)", "dc = dy * (1 - y * y)"),
    "forgotten output path": ("dc = ds.c + dy * (1 - y * y)", "dc = ds.c"),
    "swapped derivatives": ("di, df, dg, dc_prev = dc * g, dc * c_prev", "df, di, dg, dc_prev = dc * g, dc * c_prev"),
    "forgotten carry back": ("dc * i, dc * f  #", "dc * i, dc * 0  #"),
    "wrong derivative of g": ("dg * (1 - g * g)", "dg * g * (1 - g)"),
    "swapped deltas": ("da = np.concatenate([da_i, da_f, da_g, da_o]", "da = np.concatenate([da_i, da_f, da_o, da_g]"),
    "use with the wrong input": ('"W_hh": Matmul(h_prev, da)', '"W_hh": Matmul(0.5 * h_prev, da)'),
    "forgotten recurrent path": (
        "return LSTMState(times(da, p.W_hh.T), dc_prev)",
        "return LSTMState(0 * ds.h, dc_prev)",
    ),
    "wrong dx": ("dc_prev), times_transposed(da, p.W_xh, x)", "dc_prev), times_transposed(0.5 * da, p.W_xh, x)"),
}
LSTM_PLAIN = {
    "transposed weight": (
        "times(h_prev, p.W_hh) + p.b",
        "times(h_prev, np.hstack([W.T for W in np.hsplit(p.W_hh, 4)])) + p.b",
    ),
    "use with the new h": ('"W_hh": Matmul(h_prev, da)', '"W_hh": Matmul(o * y, da)'),
}
LSTM_PEEPHOLES = {
    "dropped peepholes": ("a_i, a_f = a_i + p.p_i * c_prev, a_f + p.p_f * c_prev", "pass"),
    "swapped peepholes": ("a_i + p.p_i * c_prev, a_f + p.p_f * c_prev", "a_i + p.p_f * c_prev, a_f + p.p_i * c_prev"),
    "output peephole sees the old memory": ("a_o = a_o + p.p_o * c\n", "a_o = a_o + p.p_o * c_prev\n"),
    "forgotten path through p_o": ("dc = dc + da_o * p.p_o", "pass"),
    "forgotten path through p_i": ("dc_prev + da_i * p.p_i + da_f", "dc_prev + da_f"),
    "p_o's use with the old memory": ('"p_o": (c, da_o)', '"p_o": (c_prev, da_o)'),
    "p_i's use with the wrong delta": ('"p_i": (c_prev, da_i)', '"p_i": (c_prev, da_f)'),
}
LSTM_PROJECTION = {
    "transposed projection back": ("times(ds.h, p.W_hr.T)  #", "times(ds.h, p.W_hr)  #"),
    "projection's use with y": ('uses["W_hr"] = Matmul(m, ds.h)', 'uses["W_hr"] = Matmul(y, ds.h)'),
    "projection's use with the memory": ('uses["W_hr"] = Matmul(m, ds.h)', 'uses["W_hr"] = Matmul(c, ds.h)'),
}
TANH = {"wrong derivative": ("1 - h * h if", "1 - h if")}
RELU = {
    "leaky": ("np.where(a.real <= 0, 0, a)", "np.where(a.real <= 0, 0.1 * a, a)"),
    "derivative 1 everywhere": ("else h > 0)", "else h >= 0)"),
}
MUTATIONS = {
    "rnn tanh": STEP_RNN | {"back: " + k: v for k, v in BACK_RNN.items()} | TANH,
    "rnn relu": STEP_RNN | {"back: " + k: v for k, v in BACK_RNN.items()} | RELU,
    "gru after": GRU_BOTH | GRU_AFTER,
    "gru before": GRU_BOTH | GRU_BEFORE,
    "lstm": LSTM_ALL | LSTM_PLAIN,
    "lstm peepholes": LSTM_ALL | LSTM_PEEPHOLES,
    "lstm both": LSTM_ALL | LSTM_PEEPHOLES | LSTM_PROJECTION,
}


@functools.cache
def problem_for(cell):
    """Two layers, so that dx matters; weights of a size at which no gate saturates and few relu units die."""
    # projection 2 of 2 hidden units: a transposed W_hr must be wrong by its numbers and not by its shape
    H = 2 if cell == "lstm both" else 3
    return make_problem(cell, seed=3, T=4, B=2, D=2, H=H, layers=2, loss="squared_error", reduction="sum", scale=0.6)


def cell_from(module, cell):
    problem = problem_for(cell)
    return getattr(module, CLASSES[problem.kind])(problem.hidden, **problem.options)


@pytest.mark.parametrize("cell", MUTATIONS)
def test_the_cell_as_it_stands_is_green(cell):
    module = unchanged(MODULES[problem_for(cell).kind])
    assert worst_error(problem_for(cell), cell=cell_from(module, cell)) < 1e-13


@pytest.mark.parametrize(("cell", "mutation"), [(cell, name) for cell, table in MUTATIONS.items() for name in table])
def test_a_mutated_cell_is_red(cell, mutation):
    module = mutated(MODULES[problem_for(cell).kind], *MUTATIONS[cell][mutation])
    assert worst_error(problem_for(cell), cell=cell_from(module, cell)) > RED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("np.where(open_, 1, e) / (1 + e)", "np.where(open_, 1, e) / (1 + e * e)"),
        ("np.exp(np.where(open_, -a, a))", "np.exp(np.where(open_, -2 * a, 2 * a))"),
        ("return W[x]", "return W[x - 1]"),
        ("(x.reshape(-1, x.shape[-1]) @ W)", "(x[::-1].reshape(-1, x.shape[-1]) @ W)"),
        ("times(da, W.T)\n", "2 * times(da, W.T)\n"),
    ],
)
def test_a_mutated_base_is_red(old, new, monkeypatch):
    base = mutated(bptt.cells.base, old, new)
    for name in ("sigmoid", "times", "times_transposed"):
        monkeypatch.setattr(bptt.cells.lstm, name, getattr(base, name))
    problem = make_problem("lstm", seed=3, T=4, B=2, D=3, layers=2, ids="W[x]" in old)
    assert worst_error(problem) > RED

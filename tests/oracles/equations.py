"""Forward equations, one gate at a time, for one sequence; written from the papers, analytic in everything.

P copies of the sequence are computed side by side, so every array here has a leading axis of P, or of 1 where all
copies agree: x (P, D), W (P, M, N), b (P, N), each part of a state (P, S).

    rnn    Elman 1990
    gru    Cho et al. 2014, arXiv 1406.1078, equations 5 to 8 ("before"); PyTorch's documentation of nn.GRU ("after")
    lstm   Gers, Schraudolph, Schmidhuber 2002 (peepholes); Sak et al. 2014, arXiv 1402.1128 (projection)
"""

import numpy as np


def logistic(a):
    return 1 / (1 + np.exp(-a))


def dot(v, W):
    """v W for every copy."""
    return (v[:, :, None] * W).sum(1)


def from_input(x, W):
    """x W; a whole number x stands for a one-hot row."""
    return W[:, x, :] if isinstance(x, int) else dot(x, W)


def block(W, number, size):
    """The columns of one gate."""
    return W[..., number * size : (number + 1) * size]


def rnn(p, x, s, hidden, nonlinearity="tanh"):
    (h,) = s
    a = from_input(x, p["W_xh"]) + dot(h, p["W_hh"]) + p["b"]
    if nonlinearity == "tanh":
        return (np.tanh(a),)
    return (np.where(a.real > 0, a, 0.0),)


def gru(p, x, s, hidden, reset="after"):
    (h,) = s
    W, U, b = ([block(p[name], gate, hidden) for gate in range(3)] for name in ("W_xh", "W_hh", "b"))
    r = logistic(from_input(x, W[0]) + dot(h, U[0]) + b[0])
    z = logistic(from_input(x, W[1]) + dot(h, U[1]) + b[1])
    if reset == "after":
        candidate = np.tanh(from_input(x, W[2]) + b[2] + r * (dot(h, U[2]) + p["b_hn"]))
    else:
        candidate = np.tanh(from_input(x, W[2]) + b[2] + dot(r * h, U[2]))
    return (z * h + (1 - z) * candidate,)


def lstm(p, x, s, hidden, peepholes=False, projection=None):
    h, c = s
    i, f, g, o = (
        from_input(x, block(p["W_xh"], gate, hidden))
        + dot(h, block(p["W_hh"], gate, hidden))
        + block(p["b"], gate, hidden)
        for gate in range(4)
    )
    if peepholes:
        i = i + p["p_i"] * c
        f = f + p["p_f"] * c
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    if peepholes:
        o = o + p["p_o"] * c
    h = logistic(o) * np.tanh(c)
    return (h if projection is None else dot(h, p["W_hr"]), c)


STEP = {"rnn": rnn, "gru": gru, "lstm": lstm}


def cross_entropy(y, target):
    """−log softmax(y)[target], (P,)."""
    return np.log(np.exp(y).sum(-1)) - y[:, target]


def squared_error(y, target):
    """Σ (y − target)², (P,)."""
    return ((y - target) ** 2).sum(-1)


LOSS = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def loss_weights(problem):
    """w[k][b]: what the loss of sequence b at step k counts in J, one by one."""
    T, B = problem.x.shape[:2]
    w = [[0.0] * B for _ in range(T)]
    for b in range(B):
        for k in range(problem.length(b)):
            if problem.steps == "last" and k != problem.length(b) - 1:
                continue
            w[k][b] = 1.0 if problem.mask is None else float(problem.mask[k, b])
    if problem.reduction == "mean":
        total = sum(map(sum, w)) * (problem.width if problem.loss == "squared_error" else 1)
        w = [[value / total for value in row] for row in w]
    return w

"""Sampled truncation bias against all contributions, and how often its interval holds the truth."""

import functools

import costs
import intervals
import numpy as np
import pytest

import bptt
from bptt.diagnose import sampled
from bptt.diagnose.estimate import draw, interval, squared_norm, student
from bptt.diagnose.lagged import windowed_by_lag
from bptt.diagnose.sampled import log_grid, measure_truncation, own_sizes, sample_truncation
from bptt.diagnose.truncation import SCHEMES, Truncation, truncation
from bptt.errors import InputError, NotFiniteError, UnknownName

SEEDS = 200
TO_HOLD = SEEDS * 0.95 - 2 * np.sqrt(SEEDS * 0.95 * 0.05)


def problem(kind="rnn", T=12, B=3, H=5, seed=0, mask=None, **options):
    rng = np.random.default_rng(seed)
    network = bptt.Network.create(kind, inputs=3, hidden=H, outputs=3, seed=seed, **options)
    batch = bptt.Batch(rng.standard_normal((T, B, 3)), rng.integers(0, 3, (T, B)), mask=mask)
    return network, batch, bptt.Loss()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("rnn", {}), ("gru", {"layers": 2}), ("lstm", {"peepholes": True}), ("gru", {"bidirectional": True})],
)
def test_all_losses_give_the_exact_bias(kind, options):
    network, batch, loss = problem(kind, **options)
    batch = batch._replace(lengths=np.array([12, 9, 5]))
    full = bptt.record(network, batch, loss, keep="full")
    names = [name for name in network.params if not name.startswith("readout")]
    for name, found in sample_truncation(network, batch, loss, names, samples=12).items():
        for one in found:
            known = truncation(full, name, one.scheme)
            at = np.searchsorted(known.K, one.K)
            assert (one.exact, one.losses, one.of, one.K[-1]) == (True, 12, 12, known.K[-1])
            np.testing.assert_allclose(one.bias, known.bias[at], atol=1e-13)
            np.testing.assert_allclose(one.cosine, known.cosine[at], atol=1e-12)
            assert one.low is one.bias
            assert one.high is one.bias


@pytest.mark.parametrize("engine", ["reference", "auto"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("rnn", {}), ("gru", {"layers": 2}), ("lstm", {"projection": 3}), ("gru", {"layers": 2, "bidirectional": True})],
)
def test_sums_by_lag_give_the_exact_bias(kind, options, engine, monkeypatch):
    network, batch, loss = problem(kind, **options)
    batch = batch._replace(lengths=np.array([12, 9, 5]), mask=np.random.default_rng(1).random((12, 3)))
    full = bptt.record(network, batch, loss, keep="full")
    grid, names = np.array([1, 2, 3, 5, 8, 12]), list(network.params)
    ledger, found = windowed_by_lag(network, batch, loss, names, grid, engine=engine)
    assert ledger.residual < 1e-12
    assert not ledger.maps
    for name in names:
        known = truncation(full, name)
        np.testing.assert_allclose(found[name].bias, known.bias[grid - 1], atol=1e-13)
        np.testing.assert_allclose(found[name].cosine, known.cosine[grid - 1], atol=1e-12)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_one_backward_pass_per_loss_gives_the_same_sums(kind):
    """Brute force: the gradient of each loss alone under a window, by the reference."""
    network, batch, loss = problem(kind, T=7)
    dW = bptt.gradient(network, batch, loss).gradients["layer0.W_hh"]
    found = sample_truncation(network, batch, loss, schemes=["windowed"], samples=7)["layer0.W_hh"][0]
    for K, bias in zip(found.K, found.bias, strict=True):
        kept = np.zeros_like(dW)
        for k in range(7):
            mask = np.zeros((7, 3))
            mask[k] = 1 / 21
            alone = bptt.Loss(reduction="sum")
            plan = bptt.Windowed(int(K))
            one = bptt.gradient(network, batch._replace(mask=mask), alone, plan=plan, engine="reference")
            kept += one.gradients["layer0.W_hh"]
        assert bias == pytest.approx(np.linalg.norm(kept - dW) / np.linalg.norm(dW), abs=1e-12)


def test_the_square_of_the_bias_is_right_on_average():
    network, batch, loss = problem("lstm", T=16)
    known = truncation(bptt.record(network, batch, loss, keep="full"), "W_hh")
    pool = grams_of(network, batch, loss)
    squares = [
        squared_norm(part(pool, drawn), drawn) for drawn in (draw(16, 8, np.random.default_rng(s)) for s in range(3000))
    ]
    error = np.std(squares, 0) / np.sqrt(len(squares))
    assert (abs(np.mean(squares, 0) - known.bias**2) < 4 * error + 1e-12).all()


def test_the_sampled_answer_is_made_of_the_losses_that_were_drawn():
    network, batch, loss = problem("gru", T=30, H=4)
    found = sample_truncation(network, batch, loss, samples=10, seed=4)["layer0.W_hh"][0]
    drawn = draw(30, 10, np.random.default_rng(4), own_sizes(bptt.record(network, batch, loss)))
    grams = part(grams_of(network, batch, loss), drawn)[found.K - 1]
    np.testing.assert_allclose(found.bias**2, np.maximum(squared_norm(grams, drawn), 0), atol=1e-12)
    low, high = interval(grams, drawn, np.arange(30) >= found.K[:, None], 0.95)
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=1e-9)
    assert (found.exact, found.losses, found.of, found.confidence) == (False, 10, 30, 0.95)


def test_sequences_that_are_folded_keep_their_products_on_average(monkeypatch):
    network, batch, loss = problem("lstm", T=30, H=32, B=2)
    whole = sample_truncation(network, batch, loss, schemes=["windowed"], samples=10)["layer0.W_hh"][0]
    monkeypatch.setattr(sampled, "KEPT_BYTES", 10 * 20 * 4 * 1024)
    folded = sample_truncation(network, batch, loss, schemes=["windowed"], samples=10)["layer0.W_hh"][0]
    np.testing.assert_allclose(folded.bias, whole.bias, atol=0.1 * whole.bias.max())
    assert not np.allclose(folded.bias, whole.bias, atol=1e-6)


# ---- how often the interval holds -------------------------------------------------------------------------------


def grams_of(network, batch, loss):
    """⟨D_i(K), D_j(K)⟩ / ‖dW‖² of all losses, (T, N, N), from all contributions."""
    full = bptt.record(network, batch, loss, keep="full", engine="reference")
    dW = full.gradient("W_hh")
    C = full.contributions("W_hh").reshape(full.K, full.T, -1) / np.linalg.norm(dW)
    upto, pool = np.cumsum(C, 1), np.flatnonzero(loss.weights(batch, 3).any(1))
    D = np.zeros((full.T, len(pool), dW.size))
    for K in range(1, full.T + 1):
        for i, k in enumerate(pool):
            D[K - 1, i] = upto[k, k - K] if k >= K else 0
    return D @ np.swapaxes(D, 1, 2)


def part(grams, drawn):
    return grams[:, drawn.chosen][:, :, drawn.chosen]


@functools.cache
def case(name):
    rng = np.random.default_rng(7)
    kind, T, gain, mask, options = {
        "tanh, gain 0.9": ("rnn", 60, 0.9, None, {}),
        "tanh, gain 1.2": ("rnn", 80, 1.2, None, {}),
        "tanh, 0.9, some steps": ("rnn", 80, 0.9, rng.random((80, 1)) < 0.6, {}),
        "tanh, 0.9, uneven losses": ("rnn", 80, 0.9, np.exp(1.5 * rng.standard_normal((80, 1))), {}),
        "LSTM": ("lstm", 80, 1.0, None, {"forget_bias": 3.0}),
        "LSTM, some steps": ("lstm", 100, 1.0, rng.random((100, 1)) < 0.6, {"forget_bias": 2.0}),
        "GRU": ("gru", 100, 1.0, None, {}),
    }[name]
    mask = None if mask is None else np.repeat(mask.astype(float), 4, 1)
    network, batch, loss = problem(kind, T, B=4, H=8, seed=len(name), mask=mask, **options)
    network.params["layer0.W_hh"] *= gain
    grams, pool = grams_of(network, batch, loss), np.flatnonzero(loss.weights(batch, 3).any(1))
    sizes = own_sizes(bptt.record(network, batch, loss, engine="reference"))[pool]
    return pool, sizes, grams, np.sqrt(np.maximum(grams.sum((1, 2)), 0))


CASES = ("tanh, gain 0.9", "tanh, gain 1.2", "tanh, 0.9, some steps", "tanh, 0.9, uneven losses", "LSTM",
         "LSTM, some steps", "GRU")  # fmt: skip


def coverage(name, samples=32, seeds=SEEDS, interval=interval):
    """How often of `seeds` the interval held b(K), for every K of the grid, and the horizon; and its usual width."""
    pool, sizes, grams, truth = case(name)
    T = len(grams)
    K = log_grid(T, 20)
    grams, bias = grams[K - 1], truth[K - 1]
    beyond = np.flatnonzero(truth > 0.01)
    known = int(beyond[-1]) + 2 if len(beyond) else 1
    held, reached, widths = np.zeros(len(K), int), 0, []
    for seed in range(seeds):
        drawn = draw(len(pool), samples, np.random.default_rng(seed), sizes)
        some = part(grams, drawn)
        low, high = interval(some, drawn, pool >= K[:, None], 0.95)
        held += (low <= bias + 1e-9) & (bias <= high + 1e-9)
        estimate = np.sqrt(np.maximum(squared_norm(some, drawn), 0))
        reach = Truncation("", "windowed", K, estimate, estimate, low, high, False, samples, len(pool), 0.95).horizon()
        reached += reach.low <= known <= reach.high
        widths.append((high - low)[:-1] / bias[:-1])
    return held, reached, known, float(np.median(widths))


@pytest.mark.parametrize("name", CASES)
def test_the_interval_holds_the_truth_as_often_as_it_says(name):
    held, reached, _, _ = coverage(name)
    assert held.min() >= TO_HOLD
    assert reached >= TO_HOLD


def test_the_interval_fails_where_one_loss_that_is_not_drawn_is_everything():
    """The case that docs/reach.md warns of: it is not covered, and this says so."""
    size = np.full(200, 1e-3)
    size[100] = 1
    grams = np.outer(size, size)[None]
    held = 0
    for seed in range(50):
        drawn = draw(200, 16, np.random.default_rng(seed))
        low, high = interval(part(grams, drawn), drawn, np.ones((1, 200), bool), 0.95)
        held += low[0] <= size.sum() <= high[0]
    assert held < 25


# ---- the draw ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "m"), [(5, 4), (33, 32), (60, 32), (61, 7), (1000, 33)])
def test_a_draw_has_every_one_as_often_as_its_scale_says(N, m):
    counts = np.zeros(N)
    for seed in range(400):
        drawn = draw(N, m, np.random.default_rng(seed))
        assert len(np.unique(drawn.chosen)) == m
        assert drawn.chosen[-1] == N - 1
        assert drawn.sizes.sum() == N
        assert drawn.scale.sum() == pytest.approx(N)
        counts[drawn.chosen] += drawn.scale
    assert abs(counts / 400 - 1).max() < 5 * np.sqrt(drawn.scale.max() / 400)


def test_students_quantiles_are_those_of_the_tables():
    known = {3: 3.182, 5: 2.571, 10: 2.228, 1000: 1.962}
    for freedom, quantile in known.items():
        assert student(0.975, np.array([freedom]))[0] == pytest.approx(quantile, abs=0.01)


# ---- which way is taken, and bad input --------------------------------------------------------------------------


def test_measure_takes_all_contributions_where_they_fit_and_samples_where_not(monkeypatch):
    network, batch, loss = problem("lstm", T=20)
    exact = measure_truncation(network, batch, loss, samples=8)["layer0.W_hh"]
    assert [(one.scheme, one.exact) for one in exact] == [(scheme, True) for scheme in SCHEMES]
    assert exact[0].K.tolist() == exact[1].K.tolist() == list(range(1, 21))
    monkeypatch.setattr(sampled, "FULL_BYTES", 100)
    some = measure_truncation(network, batch, loss, samples=8)["layer0.W_hh"]
    for one, known in zip(some, exact, strict=True):
        assert (one.exact, one.of) == (True, 20)
        np.testing.assert_allclose(one.bias, known.bias[one.K - 1], atol=1e-12)
        np.testing.assert_allclose(one.cosine, known.cosine[one.K - 1], atol=1e-12)
    assert len(some[0].K) == len(log_grid(20, sampled.LAGS))
    monkeypatch.setattr(sampled, "WALK_PRODUCTS", 100)
    some = measure_truncation(network, batch, loss, samples=8)["layer0.W_hh"]
    assert [one.exact for one in some] == [False, True, True]
    assert some[0].losses == 8
    np.testing.assert_allclose(some[1].bias, exact[1].bias[some[1].K - 1], atol=1e-12)
    for one in measure_truncation(network, batch, loss, samples=8, at=[13, 99])["layer0.W_hh"][:2]:
        assert 13 in one.K  # that of a training, between those of the grid
        assert one.K[-1] == 20
    assert 13 not in some[1].K
    ledger = bptt.record(network, batch, loss, keep="full")
    known = measure_truncation(network, batch, loss, ledger=ledger)["layer0.W_hh"]
    np.testing.assert_array_equal(known[0].bias, exact[0].bias)
    cut = bptt.record(network, batch, loss, keep="full", plan=bptt.Chunked(3))  # as a run that truncates has it
    assert measure_truncation(network, batch, loss, samples=8, ledger=cut)["layer0.W_hh"][0].losses == 8


def test_one_loss_is_walked_back_once_and_exact():
    network, batch, _ = problem("gru", T=20)
    loss = bptt.Loss(steps="last")
    found = measure_truncation(network, batch, loss)["layer0.W_hh"]
    assert [(one.exact, one.of) for one in found[::2]] == [(True, 1), (True, 20)]
    known = truncation(bptt.record(network, batch, loss, keep="full"), "W_hh")
    np.testing.assert_allclose(found[0].bias, known.bias, atol=1e-13)


def test_initial_states_and_float32_are_taken_as_they_are():
    network, batch, loss = problem("lstm", T=9, dtype=np.float32)
    states = {"layer0.": network.cell.State(*(np.full((3, 5), 0.5, np.float32) for _ in range(2)))}
    found = sample_truncation(network, batch, loss, schemes=["windowed"], samples=9, states=states)["layer0.W_hh"][0]
    known = truncation(bptt.record(network, batch, loss, keep="full", states=states), "W_hh")
    np.testing.assert_allclose(found.bias, known.bias, atol=1e-5)


@pytest.mark.parametrize("samples", [4, 12])
def test_no_gradient_loses_nothing(samples):
    network, batch, loss = problem(T=12)
    network.params["readout.W"][:] = 0
    for one in sample_truncation(network, batch, loss, samples=samples)["layer0.W_hh"]:
        assert not one.bias.any()
        assert not one.high.any()
        assert (one.cosine == 1).all()
        assert one.horizon() == (1, 1, 1)


def test_one_step_and_one_sequence():
    for one in measure_truncation(*problem(T=1, B=1))["layer0.W_hh"]:
        assert (one.K.tolist(), one.bias.tolist(), one.exact) == ([1], [0.0], True)


def test_bad_input_is_one_line():
    network, batch, loss = problem(T=12)
    with pytest.raises(InputError, match="samples: got 3, expected at least 4, or one for each of 12 losses"):
        sample_truncation(network, batch, loss, samples=3)
    with pytest.raises(UnknownName, match=r"parameter: got 'W_hx', expected one of"):
        sample_truncation(network, batch, loss, ["W_hx"])
    with pytest.raises(InputError, match=r"'b', which fits layer0.b, readout.b"):
        sample_truncation(network, batch, loss, ["b"])
    with pytest.raises(UnknownName, match="truncation scheme: got 'window'"):
        sample_truncation(network, batch, loss, schemes=["window"])
    with pytest.raises(InputError, match="confidence: got 95"):
        sample_truncation(network, batch, loss, confidence=95)
    with pytest.raises(InputError, match="every step masked"):
        measure_truncation(network, batch._replace(mask=np.zeros((12, 3))), loss)
    batch.x[3, 1] = np.nan
    with pytest.raises(NotFiniteError, match="inputs x at step 4, sequence 2"):
        measure_truncation(network, batch, loss)


def test_the_table_of_intervals_can_be_made():
    lines = list(intervals.tables(CASES[:1], coverage, case, seeds=3))
    assert [line.count("|") for line in lines] == [8, 8, *[6] * (1 + len(intervals.WAYS))]


def test_the_table_of_costs_can_be_made():
    assert [line.count("|") for line in costs.lines(T=6, B=2, H=4, runs=1)] == [4] * (1 + len(costs.ASKED))


@pytest.mark.parametrize(
    ("how", "limits"), [("lags", {"FULL_BYTES": 0}), ("sample", {"FULL_BYTES": 0, "WALK_PRODUCTS": 0})]
)
def test_the_k_of_the_training_is_among_those_measured(how, limits, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setattr(sampled, name, value)
    network = bptt.Network.create("gru", inputs=2, hidden=4, outputs=3)
    rng = np.random.default_rng(3)
    batch = bptt.Batch(rng.standard_normal((90, 2, 2)), rng.integers(0, 3, (90, 2)))
    found = measure_truncation(network, batch, bptt.Loss(), samples=16, at=[37, 300])["layer0.W_hh"]
    whole = bptt.record(network, batch, bptt.Loss(), keep="full")
    for one in found[:2]:
        at = one.K.tolist().index(37)
        assert one.K[-1] == 90
        true = truncation(whole, "layer0.W_hh", one.scheme).bias[36]
        assert one.bias[at] == pytest.approx(true, rel=1e-9) if one.exact else one.low[at] <= true <= one.high[at]
    assert found[0].exact == (how == "lags")
    said = bptt.diagnose(network, batch, bptt.Loss(), plan="windowed:37", quick=True).truncation["layer0.W_hh"]
    assert all(37 in one.K for one in said[:2])
    with pytest.raises(InputError, match=r"^at: got 0, expected values of K, whole numbers from 1 on$"):
        measure_truncation(network, batch, bptt.Loss(), at=[0])


def test_a_loss_that_reaches_further_than_all_that_were_drawn_beside_it_is_counted_as_large_as_the_next():
    drawn = next(one for one in (draw(20, 8, np.random.default_rng(n)) for n in range(99)) if 17 not in one.chosen)
    far = np.arange(20)[None, :] >= 17  # 18 and 19 are always taken, of 17 its stretch knows nothing
    drawn_far = far[0][drawn.chosen]
    rows = np.where(drawn_far, 3.0, 0.0)[:, None]
    grams = (rows @ rows.T)[None]
    low, high = interval(grams, drawn, far, 0.95)
    near = np.arange(20)[None, :] >= 18
    assert high[0] == pytest.approx(interval(grams, drawn, near, 0.95)[1][0] + 3)
    assert low[0] == pytest.approx(interval(grams, drawn, near, 0.95)[0][0])

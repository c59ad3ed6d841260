"""What the artists of a figure hold is what was measured, and every figure says what it shows. No pixels."""

import dataclasses

import numpy as np
import pytest

import bptt
from bptt.diagnose.context import Context
from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.exponents import Exponents
from bptt.diagnose.findings import Finding
from bptt.diagnose.gain import Gain
from bptt.diagnose.gates import CellPath, Gate, Gates
from bptt.diagnose.history import History
from bptt.diagnose.spectrum import Spectrum
from bptt.diagnose.truncation import Truncation
from bptt.errors import FileError, MissingExtra, NotKeptError, UnknownName

pytest.importorskip("matplotlib")
from bptt import plot

T = 9


@pytest.fixture(scope="module")
def ledger():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("lstm", inputs=3, hidden=4, outputs=3, layers=2)
    batch = bptt.Batch(rng.integers(0, 3, (T, 2)), rng.integers(0, 3, (T, 2)))
    return bptt.record(network, batch, bptt.Loss(), keep="full", map=True)


def drawn(line):
    return np.ma.filled(np.ma.masked_invalid(np.ma.asarray(line.get_ydata(), float)), 0)


def words(ax):
    """All that can be read on some axes."""
    title, legend = ax.get_title("left"), ax.get_legend()
    labels = [] if legend is None else [text.get_text() for text in legend.get_texts()]
    return " | ".join([title, ax.get_xlabel(), ax.get_ylabel(), *labels, *(text.get_text() for text in ax.texts)])


def cells(ax):
    return np.ma.filled(ax.collections[0].get_array(), 0)


def exact(bias, scheme="windowed", *, low=None, high=None, sampled=False):
    bias = np.asarray(bias, float)
    low, high = bias if low is None else low, bias if high is None else high
    K = np.arange(1, len(bias) + 1)
    return Truncation("layer0.W_hh", scheme, K, bias, np.ones(len(bias)), low, high, not sampled, 8, 20, 0.95)


# ---- of a ledger -------------------------------------------------------------------------------------------------


def test_the_map_is_the_table_of_contributions(ledger):
    ax = plot.map(ledger, "layer1.W_hh")
    assert np.array_equal(cells(ax).reshape(T, T), ledger.map("layer1.W_hh"))
    assert "use at step t | loss at step k" in words(ax)
    assert "exactly 0: no loss" in words(ax)
    low, high = ax.get_ylim()
    assert (low, high) == (T + 0.5, 0.5), "loss 1 stands at the top"


def test_a_large_map_is_added_up_so_that_its_total_stays(ledger):
    big = np.tril(np.random.default_rng(0).random((1100, 1100)))
    long = dataclasses.replace(ledger, maps={"layer0.W_hh": big}, losses=np.ones(1100), loss_uses={}, uses={},
                               step_norms={"layer0.W_hh": big.sum(0)})  # fmt: skip
    ax = plot.map(long, "layer0.W_hh")
    shown = cells(ax).reshape(367, 367)
    assert shown.sum() == pytest.approx(big.sum())
    assert shown[10, 4] == pytest.approx(big[30:33, 12:15].sum())
    assert "each cell adds up 3 × 3" in words(ax)
    assert ax.get_xlim() == (0.5, 1100.5), "the last block ends where the sequence does"


def test_words_of_a_sentence_are_the_ticks_of_its_map():
    ax = plot.map(bptt.explain("the cat sat down"), "W_hh")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["the", "cat", "sat", "down"]


def test_steps_are_the_norms_and_what_the_state_carries(ledger):
    ax = plot.steps(ledger, "layer0.W_hh")
    norms, carried = ax.lines
    assert np.array_equal(drawn(norms), ledger.norms("layer0.W_hh"))
    assert np.array_equal(drawn(carried), ledger.state_norms(0)[1:])
    assert "step gradient ‖dW_t‖ | state ‖∂J/∂s_t‖" in words(ax)
    assert "dW_t is 0 at 1 of 9 uses" in words(ax), "the initial state is zero, and so is its use"


def test_shares_are_signed_and_sum_to_one(ledger):
    ax = plot.steps(ledger, "layer0.W_hh", show="shares")
    shown = sum(patch.get_data().values for patch in ax.patches)
    assert np.allclose(shown, ledger.shares("layer0.W_hh"))
    assert shown.sum() == pytest.approx(1)
    with pytest.raises(UnknownName, match="one of norms, shares"):
        plot.steps(ledger, "layer0.W_hh", show="share")


def test_a_lag_profile_is_the_sum_along_the_diagonals(ledger):
    ax = plot.lag_profile(ledger, "layer0.W_hh", "layer1.W_xh", horizon=4)
    table = ledger.map("layer1.W_xh")
    assert np.allclose(drawn(ax.lines[1]), [np.trace(table, -lag) for lag in range(T)])
    assert ax.lines[2].get_xdata()[0] == 3
    assert "layer0.W_hh | layer1.W_xh" in words(ax)
    assert " reaches 4 steps (1 %) " in words(ax)
    assert [line.get_label() for line in plot.lag_profile(ledger).lines] == ["layer0.W_hh", "layer1.W_hh"]


def test_gains_of_a_ledger_go_by_step(ledger):
    ax = plot.gains(ledger, layer=1)
    assert np.array_equal(drawn(ax.lines[0]), ledger.gains(1))
    assert "above 1 exploding, below 1 vanishing" in words(ax)
    assert "Gain per step back, layer1" in words(ax)


# ---- of what was diagnosed ---------------------------------------------------------------------------------------


def test_a_gain_goes_by_lag_beyond_the_range_of_floats():
    logs = -200.0 * np.arange(6)
    logs[5] = -np.inf
    ax = plot.gains(Gain("layer0.", np.ones(6), np.arange(6), logs, -200.0, 1.0, 4))
    measured, fit = ax.lines
    assert np.ma.allclose(measured.get_ydata()[:5], logs[:5] / np.log(10))
    assert np.ma.is_masked(measured.get_ydata()[5])
    assert np.allclose(np.diff(fit.get_ydata()), -200 / np.log(10))
    assert "exactly 0 at 1 of 6 lags" in words(ax)


def test_a_spectrum_is_the_geometric_mean_over_sequences():
    logs = np.sort(np.random.default_rng(0).normal(size=(5, 3, 7)), -1)[..., ::-1].copy()
    logs[4, 0, 6] = -np.inf
    ax = plot.spectrum(Spectrum("", 7, np.arange(1, 6), logs))
    labels = [line.get_label() for line in ax.lines]
    assert labels[:4] == ["σ_1", "σ_3", "σ_5", "σ_7"]
    assert np.allclose(10 ** np.asarray(ax.lines[0].get_ydata()), np.exp(logs[:, :, 0]).prod(1) ** (1 / 3))
    assert np.ma.is_masked(ax.lines[3].get_ydata()[4])
    assert "σ_1 over sequences" in words(ax)


def test_exponents_stand_with_their_errors():
    values, errors = np.array([0.2, -0.1, -np.inf]), np.array([0.05, 0.02, 0.0])
    ax = plot.exponents(Exponents("", 3, 40, values, errors, np.tile(values, (4, 1))))
    points, _, (bars,) = ax.containers[0]
    assert points.get_ydata().tolist() == [0.2, -0.1]
    spans = [segment[:, 1] for segment in bars.get_segments()]
    assert np.allclose(spans, [[0.15, 0.25], [-0.12, -0.08]])
    assert "± 1 standard error, 40 steps; 1 of 3 are −∞" in words(ax)
    alone = plot.exponents(Exponents("layer0.", 3, 1, values, 0 * errors, values[None]))
    assert "one sequence: no errors, 1 step" in words(alone)
    assert "Lyapunov exponents, layer0" in words(alone)


def test_gates_are_shares_of_all_values_and_time_scales():
    units = np.array([0.5, 0.9])
    found = Gates("layer0.", {"f": Gate(units, 0.1, 0.3, units), "g": Gate(units, 0.0, 0.2, units)},
                  np.array([2.0, np.inf]))  # fmt: skip
    ax = plot.gates(found)
    widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
    assert np.allclose(widths, [[10, 0], [60, 80], [30, 20]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["forget f\nmean 0.70", "tanh g\nmean 0.70"]
    scales = plot.gates(found, show="time scales")
    assert "1 of 2 never forget" in words(scales)
    assert drawn(scales.lines[0]).tolist() == [0, 2]


def test_the_two_paths_of_a_cell_sum_to_one():
    share = np.array([0.2, -0.1, 1.3])
    ax = plot.cell_path(CellPath("layer0.", np.arange(3), share))
    assert np.allclose(drawn(ax.lines[0]), share)
    assert np.allclose(drawn(ax.lines[0]) + drawn(ax.lines[1]), 1)
    assert "cells alone, ∏ f | through gates and h" in words(ax)


def test_truncation_has_its_interval_and_its_horizon():
    bias = np.array([0.5, 0.1, 0.02, 0.004, 0.0])
    sampled = exact(bias, low=bias / 2, high=bias * 2, sampled=True)
    ax = plot.truncation([sampled, exact(bias * 2, "chunked")], 0.05)
    assert np.array_equal(drawn(ax.lines[0]), bias)
    assert np.array_equal(drawn(ax.lines[1]), bias * 2)
    band = ax.collections[0].get_paths()[0].vertices
    assert {0.25, 1.0} <= set(band[band[:, 0] == 1][:, 1].tolist())
    reach = sampled.horizon(0.05)
    assert ax.lines[3].get_xdata()[0] == reach.steps
    assert f"horizon {reach.steps}" in words(ax)
    assert "windowed (8 of 20 losses, 95 %) | chunked" in words(ax)
    assert "tolerance 5 %" in words(ax)
    assert "no K is within 1 %" in words(plot.truncation([exact([0.5, 0.4], "last step only")]))


def test_context_is_in_percent_with_its_interval():
    increase, errors = np.array([0.5, 0.1, -0.01]), np.array([0.1, 0.02, 0.01])
    found = Context(np.array([1, 2, 4]), increase, errors, np.array([0.9, 0.3, 0.0]), 3, 2, 4, 0.01, 16)
    ax = plot.context(found)
    points, _, (bars,) = ax.containers[0]
    assert np.allclose(points.get_ydata(), 100 * increase)
    assert np.allclose(
        [s[:, 1].tolist() for s in bars.get_segments()], 100 * np.c_[increase - errors, increase + errors]
    )
    assert "uses 3 steps (2–4) at 1 %" in words(ax)


def history(**changes):
    empty = History(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0, bool), None, "full",
                    np.zeros(0), np.zeros(0))  # fmt: skip
    return dataclasses.replace(empty, **changes)


def test_training_is_iteration_by_lag_with_the_losses_above():
    profile = np.random.default_rng(0).random((3, 5))
    train = np.c_[np.arange(1, 21), np.linspace(2, 1, 20)]
    found = history(train=train, validation=np.array([[10, 1.8], [20, 1.1]]), probes=np.array([0, 10, 20]),
                    lags=np.arange(5), profiles={"layer0.W_hh": profile},
                    horizons={"layer0.W_hh": np.array([[0, 2], [10, 4], [20, 5]])})  # fmt: skip
    ax = plot.training(found, "W_hh")
    assert np.allclose(cells(ax).reshape(5, 3), profile.T)
    assert ax.lines[-1].get_ydata().tolist() == [1, 3, 4]
    above = next(other for other in ax.figure.axes if other.get_ylabel() == "loss")
    assert above.lines[0].get_ydata().tolist() == train[:, 1].tolist()
    assert above.get_xlim() == ax.get_xlim()
    with pytest.raises(UnknownName):
        plot.training(found, "W_xh")


# ---- nothing to see ----------------------------------------------------------------------------------------------


def flat(T):
    """A ledger without any gradient."""
    network = bptt.Network.create("rnn", inputs=2, hidden=3, outputs=2)
    batch = bptt.Batch(np.zeros((T, 1), int), np.zeros((T, 1), int), mask=np.ones((T, 1)))
    one = bptt.record(network, batch, bptt.Loss(), keep="full", map=True)
    nought = {name: 0 * value for name, value in one.maps.items()}
    still = {key: 0 * value for key, value in one.states.items()}
    return dataclasses.replace(one, maps=nought, uses={}, loss_uses={}, states=still,
                               step_norms={n: np.zeros(T) for n in one.names},
                               step_shares={n: np.zeros(T) for n in one.names}, recorded_residuals={"a": 0.0},
                               gradients={n: 0 * g for n, g in one.gradients.items()})  # fmt: skip


NOUGHT = np.zeros(3)
LOST = np.full(3, -np.inf)
EMPTY = {
    "map": lambda: plot.map(flat(4), "W_hh"),
    "steps": lambda: plot.steps(flat(4), "W_hh"),
    "shares": lambda: plot.steps(flat(4), "W_hh", show="shares"),
    "lags": lambda: plot.lag_profile(flat(4), "W_hh"),
    "gains by step": lambda: plot.gains(flat(4)),
    "gain": lambda: plot.gains(Gain("", NOUGHT, np.arange(3), LOST, 0.0, 0.0, 3)),
    "spectrum": lambda: plot.spectrum(Spectrum("", 3, np.arange(1, 4), np.full((3, 2, 3), -np.inf))),
    "no spectrum": lambda: plot.spectrum(Spectrum("", 3, np.arange(0), np.zeros((0, 2, 3)))),
    "exponents": lambda: plot.exponents(Exponents("", 3, 4, LOST, NOUGHT, LOST[None])),
    "gates": lambda: plot.gates(Gates("layer0.", {}, None)),
    "time scales": lambda: plot.gates(Gates("layer0.", {}, None), show="time scales"),
    "forgets at once": lambda: plot.gates(Gates("layer0.", {}, NOUGHT), show="time scales"),
    "path": lambda: plot.cell_path(CellPath("layer0.", np.arange(3), np.full(3, np.nan))),
    "truncation": lambda: plot.truncation([exact(NOUGHT)]),
    "no truncation": lambda: plot.truncation([]),
    "context": lambda: plot.context(Context(np.arange(1, 4), NOUGHT, NOUGHT, NOUGHT, 1, 1, 1, 0.01, 4)),
    "no context": lambda: plot.context(Context(np.arange(0), np.zeros(0), np.zeros(0), np.zeros(0), 1, 1, 1, 0.01, 0)),
    "training": lambda: plot.training(history(horizons={"W_hh": np.zeros((0, 2))}), "W_hh"),
}


@pytest.mark.parametrize("which", EMPTY)
def test_an_empty_picture_says_why(which, tmp_path):
    ax = EMPTY[which]()
    assert any(text.get_text() for text in ax.texts)
    plot.save(ax, tmp_path / "x.png", dpi=20)  # drawing it warns of nothing


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_sequences_are_drawn(steps, tmp_path):
    network = bptt.Network.create("rnn", inputs=2, hidden=3, outputs=2)
    batch = bptt.Batch(np.zeros((steps, 1), int), np.ones((steps, 1), int))
    one = bptt.record(network, batch, bptt.Loss(), keep="full", map=True)
    for i, ax in enumerate([plot.map(one, "W_xh"), plot.steps(one, "W_xh"), plot.steps(one, "W_xh", show="shares"),
                            plot.lag_profile(one, "W_xh", horizon=1), plot.gains(one)]):  # fmt: skip
        plot.save(ax, tmp_path / f"{i}.png", dpi=20)
    bias = np.full(1, 0.5)
    for ax in [plot.truncation([exact(bias)]), plot.exponents(Exponents("", 1, 1, bias, bias, np.ones((2, 1)))),
               plot.spectrum(Spectrum("", 1, np.arange(1, 2), np.zeros((1, 1, 1)))),
               plot.gains(Gain("", bias, np.arange(1), np.zeros(1), 0.0, 0.0, 1))]:  # fmt: skip
        plot.save(ax, tmp_path / "x.png", dpi=20)


# ---- the page, files, and what is not there ----------------------------------------------------------------------


def test_one_page_shows_everything_that_was_measured(ledger, tmp_path):
    finding = Finding("BP101", "vanishing", "warning", "layer1", "The gradient is gone after 4 steps.")
    gain = Gain("layer1.", np.ones(T), np.arange(T), -0.5 * np.arange(T), -0.5, 0.1, T)
    found = Diagnosis("runs/a", {"network": "LSTM"}, ledger, gains={"layer1.": gain},
                      truncation={"layer1.W_hh": [exact([0.5, 0.1, 0.0])]}, findings=[finding])  # fmt: skip
    page = plot.report(found)
    titles = [ax.get_title("left") for ax in page.axes]
    assert [title.split(",")[0].split(":")[0] for title in titles if title] == [
        "‖C[k", "layer1.W_hh by step", "How far back", "What is left of ∂J/∂s", "What truncation costs",
    ]  # fmt: skip
    said = [text.get_text() for part in page.subfigs for text in part.texts]
    assert "runs/a" in said
    assert "▲ warning   BP101 vanishing   layer1" in said
    assert finding.message in said
    plot.save(page, tmp_path / "page.pdf")
    nothing = plot.report(Diagnosis("x", {}))
    assert "no verdict: nothing was found to be wrong" in [t.get_text() for s in nothing.subfigs for t in s.texts]


def test_figures_can_be_drawn_on_axes_of_the_caller(ledger):
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot.steps(ledger, "layer0.W_hh", ax=left) is left
    assert plot.map(ledger, "layer0.W_hh", ax=right) is right
    own = figure.add_axes((0.1, 0.1, 0.2, 0.2))
    assert plot.training(history(horizons={"a": np.zeros((0, 2))}), "a", ax=own) is own


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_a_picture_is_written_whole_or_not_at_all(ledger, tmp_path, kind, monkeypatch):
    ax = plot.steps(ledger, "layer0.W_hh")
    plot.save(ax, tmp_path / f"a.{kind}")
    plot.save(plot.steps(ledger, "layer0.W_hh").figure, tmp_path / f"b.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    before = (tmp_path / f"a.{kind}").read_bytes()
    monkeypatch.setattr(type(ax.figure), "savefig", lambda *a, **k: (a[1].write(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        plot.save(ax, tmp_path / f"a.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", f"b.{kind}"]


def test_bad_input_is_one_clear_line(ledger, tmp_path):
    ax = plot.steps(ledger, "layer0.W_hh")
    with pytest.raises(UnknownName, match="picture format: got 'bmp', expected one of svg, png, pdf"):
        plot.save(ax, tmp_path / "a.bmp")
    with pytest.raises(FileError, match="no such folder"):
        plot.save(ax, tmp_path / "nothing" / "a.png")
    with pytest.raises(UnknownName, match="parameter"):
        plot.map(ledger, "W_oh")
    with pytest.raises(NotKeptError, match="map=True"):
        plot.map(dataclasses.replace(ledger, maps={}, loss_uses={}), "layer0.W_hh")


def test_without_matplotlib_it_is_said_what_to_install(ledger, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"matplotlib: got not installed. pip install 'bptt\[plot\]'"):
        plot.steps(ledger, "layer0.W_hh")

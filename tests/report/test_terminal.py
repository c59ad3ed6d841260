"""What terminals show is what the ledger says."""

import dataclasses

import numpy as np
import pytest

import bptt
from bptt.ledger import Ledger, Place
from bptt.report.figures import ledger_figure, save_figure
from bptt.report.ledger import ledger_report, parameters, run_report
from bptt.report.terminal import SHADES, console, level, paint, shaded_map
from bptt.uses import Linear, Ready


def text_of(renderable, width=110, **options):
    import io

    out = io.StringIO()
    screen = console(out, width)
    screen.print(renderable, **options)
    return out.getvalue()


def test_shades_are_blank_exactly_where_the_map_is_zero():
    table = np.tril(np.full((12, 12), 2.0))
    table[11, 0] = 1e-9
    lines = text_of(shaded_map(table, 110)).splitlines()[:12]
    for k, line in enumerate(lines):
        shown = [line[2 * t : 2 * t + 2].strip() for t in range(12)]
        assert [bool(sign) for sign in shown] == [t <= k for t in range(12)]
    assert lines[11][:2] == SHADES[1] * 2


def test_a_map_too_wide_is_added_up_and_says_so():
    table = np.tril(np.ones((200, 200)))
    text = text_of(shaded_map(table, 80))
    assert "each cell adds up 5 × 5 contributions" in text
    assert "█ 25.0" in text  # a full block holds 25 contributions of 1
    assert max(map(len, text.splitlines()[:-2])) <= 80


@pytest.mark.parametrize("at", np.linspace(0, 1, 11))
def test_text_on_the_scale_can_be_read(at):
    """Contrast by WCAG 2 of at least 4.5 : 1, as small text needs."""

    def luminance(color):
        if color.name in ("black", "white"):
            return float(color.name == "white")
        parts = [c / 255 for c in color.triplet]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    style = paint(float(at))
    light, dark = sorted((luminance(style.color), luminance(style.bgcolor)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_scale_spans_four_powers_of_ten():
    assert [level(v, 1.0) for v in (1.0, 1e-2, 1e-4, 1e-9, 0.0)] == [1.0, 0.5, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("keep", ["factors", "norms", "full"])
def test_every_kind_of_ledger_can_be_shown(keep):
    rng = np.random.default_rng(0)
    network = bptt.Network.create("lstm", inputs=3, hidden=4, outputs=3, layers=2, bidirectional=True)
    batch = bptt.Batch(rng.integers(0, 3, (40, 2)), rng.integers(0, 3, (40, 2)))
    ledger = bptt.record(network, batch, bptt.Loss(), keep=keep)
    text = text_of(ledger_report(ledger, "layer1.reverse.W_hh", {"layer1.W_hh": 7}))
    assert all(name in text for name in ledger.names)
    assert "7 steps" in text
    assert ("Map" in text) == (keep == "full")


def test_a_run_without_validation_can_be_shown():
    rows = [{"iteration": 3, "horizon": {"layer0.W_hh": 5}}, {"iteration": 4, "train": 1.0, "validation": 2.0}]
    text = text_of(run_report({"title": "runs/a", "settings": {"seed": 0}, "rows": rows}))
    assert "5 steps" in text
    assert "2.0000" in text


def test_no_color_means_no_escape_sequence(monkeypatch, capsys):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console().print(shaded_map(np.ones((4, 4)), 80))
    assert "38;2" not in capsys.readouterr().out


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_no_number_is_cut_in_a_narrow_terminal(width):
    network = bptt.Network.create("lstm", inputs=3, hidden=4, outputs=3, layers=2, bidirectional=True)
    rng = np.random.default_rng(0)
    batch = bptt.Batch(rng.integers(0, 3, (20, 2)), rng.integers(0, 3, (20, 2)))
    ledger = bptt.record(network, batch, bptt.Loss())
    text = text_of(parameters(ledger, {"layer1.reverse.W_hh": 7}, width), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "layer1.reverse.W_hh" in text


def by_hand(T=30, K=1, **options):
    """A ledger as a model without a recurrent layer leaves one: no state, one loss, a readout that is used once."""
    rng = np.random.default_rng(0)
    z, delta = rng.standard_normal((T, 2, 3)), rng.standard_normal((K, T, 2, 4))
    once = rng.standard_normal((K, 1, 5))
    uses = {"cell.weight": Linear(z, delta.sum(0)), "out.bias": Ready(once.sum(0))}
    C = np.einsum("ktbn,tbm->ktnm", delta, z)
    return Ledger(
        {"network": "by hand", "B": 2}, np.ones(K), {"cell.weight": C.sum((0, 1)), "out.bias": once.sum((0, 1))},
        {"cell.weight": Place()}, reverse={}, states={}, uses=uses,
        maps={"cell.weight": np.linalg.norm(C, axis=(2, 3)), "out.bias": np.linalg.norm(once, axis=2)}, **options
    )  # fmt: skip


@pytest.mark.parametrize("name", ["cell.weight", "out.bias"])
def test_a_ledger_without_a_state_is_shown_without_its_columns(name):
    text = text_of(ledger_report(by_hand(), name))
    assert "1 of 1 loss over 30 steps and 2 sequences" in text
    assert f"uses of {name}" in text
    assert "carries" not in text
    assert "∂J/∂s" not in text
    assert "gain per step" not in text


def test_the_number_of_uses_is_shown_where_it_differs():
    lines = text_of(parameters(by_hand(), {})).splitlines()
    assert "uses" in lines[0]
    assert "‖dW_T‖" in lines[0]
    at = lines[0].index("uses") + len("uses")
    assert [line[:at].split()[-1] for line in lines[1:]] == ["30", "1"]
    network = bptt.Network.create("rnn", inputs=2, hidden=2, outputs=2)
    batch = bptt.Batch(np.zeros((4, 1), int), np.zeros((4, 1), int))
    assert "uses" not in text_of(parameters(bptt.record(network, batch, bptt.Loss()), {}))


def test_a_map_with_fewer_losses_than_uses_keeps_its_shape():
    table = np.zeros((2, 30))
    table[1, :20] = 1
    lines = text_of(shaded_map(table, 110)).splitlines()
    assert lines[0].strip() == ""
    assert lines[1] == SHADES[5] * 40 + " " * 20
    wide = text_of(shaded_map(np.ones((3, 200)), 80))
    assert "each cell adds up 1 × 5 contributions" in wide
    assert wide.splitlines()[2] == SHADES[5] * 80


@pytest.mark.parametrize("options", [{}, {"K": 3, "loss_steps": np.array([4, 20, 30])}, {"T": 3, "K": 3}])
def test_a_picture_shows_what_there_is(tmp_path, options):
    pytest.importorskip("matplotlib")
    ledger = by_hand(**options)
    for name in ledger.names:
        figure = ledger_figure(ledger, name)
        titles = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
        assert titles[:2] == ["‖C[k, t]‖: what loss k says to use t", f"{name} by step"]
        assert ("How far back: Σ ‖C[k, t]‖ by lag" in titles) == ledger.has_lags(name)
        assert not any(title.startswith("Gain") for title in titles)
        save_figure(ledger, name, tmp_path / "x.svg")
        assert (tmp_path / "x.svg").stat().st_size > 5000


def test_a_picture_without_a_map_shows_the_gains_by_position():
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    network = bptt.Network.create("lstm", inputs=3, hidden=4, outputs=3, bidirectional=True)
    batch = bptt.Batch(rng.integers(0, 3, (7, 2)), rng.integers(0, 3, (7, 2)))
    ledger = bptt.record(network, batch, bptt.Loss())
    lower = ledger_figure(ledger, "reverse.W_hh").axes[-1]
    assert lower.lines[0].get_ydata().tolist() == ledger.gains("layer0.reverse")[::-1].tolist()
    assert len(ledger_figure(dataclasses.replace(by_hand(), maps={}), "cell.weight").axes) == 1

"""What terminals show is what the ledger says."""

import numpy as np
import pytest

import bptt
from bptt.report.ledger import ledger_report, parameters, run_report
from bptt.report.terminal import SHADES, console, level, paint, shaded_map


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

"""What a chart shows is what its numbers say, read back from the picture itself."""

import base64
import math
import re
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bptt.report.html.training import training
from bptt.report.svg.chart import chart
from bptt.report.svg.image import LEVELS, block_sum, levels, picture
from bptt.report.svg.ledgers import map_picture, rows_with_losses
from bptt.report.svg.marks import Band, Bars, Box, Errors, Line, Rule, path, thin
from bptt.report.svg.markup import Markup, join, tag, text
from bptt.report.svg.palette import colour
from bptt.report.svg.scales import axis, counted, decades
from bptt.report.svg.words import number
from oracles import diagnoses

BOX = Box(10, 20, 300, 100)


def points(drawn):
    """The points of all paths of a drawing."""
    return [(float(a), float(b)) for a, b in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", drawn)]


def decoded(uri):
    """Colours of an indexed PNG by its specification: rows of them, None where it is transparent."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at = {}, 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        parts[kind], at = body, at + 12 + size
    width, height, depth, kind = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    assert (depth, kind, parts[b"tRNS"]) == (8, 3, b"\0")
    raw = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not raw[:, 0].any()
    palette = [tuple(parts[b"PLTE"][i : i + 3]) for i in range(0, len(parts[b"PLTE"]), 3)]
    return [[palette[i] if i else None for i in row] for row in raw[:, 1:]]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12))
def test_a_map_added_up_in_blocks_keeps_its_total(K, T, limit):
    table = np.arange(K * T, dtype=np.float64).reshape(K, T)
    sums, down, across = block_sum(table, limit)
    assert sums.sum() == table.sum()
    assert max(sums.shape) <= limit
    assert sums.shape == (-(-K // down), -(-T // across))
    assert sums[-1, 0] == table[(len(sums) - 1) * down :, :across].sum()


def test_a_picture_has_the_colour_of_every_cell_and_none_where_it_is_zero():
    table = np.array([[0.0, 1.0, 1e-2], [1e-4, 1e-9, np.inf], [np.nan, 0.5, 0.0]])
    pixels = decoded(picture(levels(table, 1.0)))
    side = len(pixels) // 3
    cells = [[pixels[i * side + 1][j * side + 1] for j in range(3)] for i in range(3)]
    top, bottom = colour(1 - 0.5 / LEVELS), colour(0.5 / LEVELS)
    assert cells[0] == [None, top, colour((LEVELS / 2 + 0.5) / LEVELS)]
    assert cells[1] == [bottom, bottom, top]
    assert cells[2][0] is None
    assert cells[2][2] is None
    assert all(pixels[r][c] == cells[r // side][c // side] for r in range(3 * side) for c in range(0, 3 * side, 7))


def test_the_map_of_a_ledger_is_triangular_in_its_picture():
    of = diagnoses.ledger(9)
    drawn = map_picture(of, diagnoses.W)
    pixels = decoded(re.findall(r'href="([^"]+)"', drawn)[0])
    side = len(pixels) // 9
    shown = np.array([[pixels[k * side][t * side] is not None for t in range(9)] for k in range(9)])
    assert (shown == (of.map(diagnoses.W) > 0)).all()


def test_losses_without_a_contribution_are_left_out_where_few_are_left():
    table = np.zeros((50, 60))
    table[[9, 49]] = 1
    shown, losses = rows_with_losses(table)
    assert losses.tolist() == [10, 50]
    assert shown.sum() == table.sum()
    for whole in (np.ones((50, 60)), np.zeros((50, 60)), table[:9]):
        assert rows_with_losses(whole)[1].tolist() == list(range(1, len(whole) + 1))


def test_a_line_goes_through_its_points_and_breaks_where_one_is_missing():
    x, y = axis("", [[0, 10]]), axis("", [[0, 5]])
    drawn = Line([0, 2, 4, 6, 8], [0, 1, np.nan, 5, 2.5]).draw(BOX, x, y)
    assert points(drawn) == [(10, 120), (70, 100), (190, 20), (250, 70)]
    assert drawn.count("M") == 2


def test_a_logarithmic_axis_puts_equal_ratios_at_equal_distances():
    y = axis("", [[1e-8, 1.0]], log=True)
    assert y.ticks[0][1] == "10⁻⁸"
    at = y([1e-8, 1e-4, 1.0, 0.0, -1.0], 0, 80)
    assert at[:3].tolist() == pytest.approx([0, 40, 80])
    assert np.isnan(at[3:]).all()


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_round_in_order_and_within_their_axis(low, width):
    made = axis("", [[low, low + width]])
    ticks = [value for value, _ in made.ticks]
    assert ticks == sorted(set(ticks))
    slack = 1e-6 * (made.high - made.low)
    assert all(made.low - slack <= tick <= made.high + slack for tick in ticks)
    assert made.low <= low + slack
    assert low + width <= made.high + slack


@pytest.mark.parametrize("values", [[], [np.nan], [0.0], [3.0, 3.0], [-np.inf, 2.0], [1e-320], [1e300, -1e300]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_can_be_made_of_anything(values, log):
    made = axis("a", [values, None], log=log)
    assert math.isfinite(made.low)
    assert made.low < made.high < np.inf


@given(arrays.arrays(np.float64, st.integers(2, 3000), elements=st.floats(-1e3, 1e3)))
def test_thinning_keeps_the_ends_and_every_extreme(ys):
    xs = np.linspace(0, 300, len(ys))
    few_x, few = thin(xs, ys, 300)
    assert len(few) <= max(600, 4 * 301)
    assert (few[0], few[-1], few.min(), few.max()) == (ys[0], ys[-1], ys.min(), ys.max())
    assert (np.diff(few_x) >= 0).all()


def test_bars_stand_on_zero_and_the_negative_ones_in_another_style():
    x, y = counted("", 4), axis("", [[-10.0, 10.0]])
    drawn = Bars([1, 2, 3, 4], [10, -5, 0, np.nan]).draw(BOX, x, y)
    up, down = re.findall(r'd="([^"]+)" class="f([12])"', drawn)
    assert (up[1], down[1]) == ("1", "2")
    assert re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", up[0]) == [("70.0", "20.0")]
    assert re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", down[0]) == [("70.0", "95.0")]


def test_errors_and_bands_span_what_they_say():
    x, y = axis("", [[0, 10]]), axis("", [[0, 10]])
    assert "M160 100V60" in Errors([5], [4], [2]).draw(BOX, x, y)
    band = Band([0, 10], [2, 3], [4, np.nan]).draw(BOX, x, y)
    assert points(band) == [(10, 80), (10, 100)]
    assert Band([], [], []).draw(BOX, x, y) == ""


def test_a_rule_stands_where_it_says_with_its_name():
    x, y = axis("", [[0, 10]]), axis("", [[0, 10]])
    assert 'd="M100 20V120"' in Rule(x=3.0, label="here").draw(BOX, x, y)
    assert ">here</text>" in Rule(y=5.0, label="here").draw(BOX, x, y)
    assert Rule(y=float("nan"), label="nowhere").draw(BOX, x, y) == ""


def test_decades_hold_what_no_float_can():
    made = decades("", [[-900.0, 0.0]])
    assert made.ticks[0][1].startswith("10⁻")
    assert made(-450.0, 0.0, 90.0) == pytest.approx(90 * (450 + made.low) / made.low, rel=1e-9)


def test_a_chart_names_its_lines_and_its_axes():
    drawn = chart(
        "A & B", "what", axis("x here", [[0, 1]]), axis("y here", [[0, 1]]), [Line([0, 1], [0, 1], "<line>", 2)]
    )
    for words in (
        "<title>A &amp; B</title>",
        "<desc>what</desc>",
        ">x here</text>",
        ">y here</text>",
        ">&lt;line&gt;</text>",
    ):
        assert words in drawn


def test_a_path_with_a_point_by_itself_shows_it():
    assert path(np.array([1.0, 2.0, 3.0]), np.array([np.nan, 5.0, np.nan])) == "M2 5h.01"


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_is_never_called_nan_and_reads_back(value):
    shown = number(value)
    assert not re.search("nan|inf", shown)
    if math.isfinite(value) and value:
        raised = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")
        mantissa, _, exponent = shown.replace(",", "").partition("10" if re.search("10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]", shown) else "e")
        mantissa = mantissa.rstrip("×").translate(raised)
        read = Fraction(mantissa + "1" if mantissa in ("", "-") else mantissa)
        read *= Fraction(10) ** int(exponent.translate(raised) or 0)
        assert abs(read - Fraction(value)) <= abs(Fraction(value)) * Fraction(6, 1000)


@given(st.text())
def test_what_is_not_markup_is_escaped(given_text):
    for made in (text(given_text), tag("a", given_text), join(given_text)):
        inner = made.removeprefix("<a>").removesuffix("</a>")
        assert not set(inner) & set("<>\"'\x00")
    assert isinstance(tag("a", title=given_text), Markup)


def labels(drawn):
    """Text → where it stands, (x, y), of labels beside an axis, which end at it."""
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="end"[^>]*>([^<]+)<', drawn)
    return {words: (float(x), float(y)) for x, y, words in found}


def test_the_first_loss_is_the_top_row_of_a_map_and_lag_0_the_bottom_of_a_heat_map():
    drawn = map_picture(diagnoses.ledger(9), diagnoses.W)
    assert labels(drawn)["2"][1] < labels(drawn)["8"][1]
    section = training(diagnoses.full(30))
    heat = next(uri for uri in re.findall(r'href="([^"]+)"', join(*section.content)) if len(decoded(uri)) > 100)
    pixels = decoded(heat)
    middle = len(pixels[0]) // 2
    assert pixels[-1][middle] == colour(1 - 0.5 / LEVELS)  # the profiles fall off with the lag, and end in zeros
    assert pixels[0][middle] is None

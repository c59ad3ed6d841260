"""The first lines of a diagnosis say what it found; every number in them is one that was measured."""

import dataclasses
import io
import math

import numpy as np
import pytest

import bptt
from bptt.diagnose import RULES, Context, Diagnosis, Exponents, Finding, Gain, History, Truncation
from bptt.report.diagnosis import diagnosis_report
from bptt.report.terminal import console
from bptt.report.verdicts import explanation

NAME = "layer0.W_hh"
FACTS = {"network": "RNN (tanh), D=2, H=3", "data": "adding:100", "iteration": 2000, "command": "bptt check runs/a"}


def text_of(renderable, width=110):
    out = io.StringIO()
    console(out, width).print(renderable)
    return out.getvalue()


def words(text):
    return " ".join(text.split())


def ledger(T=6, scale=1.0, **options):
    rng = np.random.default_rng(0)
    network = bptt.Network.create("rnn", inputs=2, hidden=3, outputs=2)
    network.params[NAME] *= scale
    batch = bptt.Batch(rng.standard_normal((T, 2, 2)), rng.integers(0, 2, (T, 2)))
    return bptt.record(network, batch, bptt.Loss(), map=True, **options)


def curve(scheme, K, bias, low=None, high=None):
    K, bias = np.array(K), np.array(bias)
    low, high = (bias if end is None else np.array(end) for end in (low, high))
    return Truncation(NAME, scheme, K, bias, np.ones(len(K)), low, high, low is bias, 32, 100, 0.95)


def history(plan):
    none = np.zeros((0, 2))
    return History(none, none, np.zeros(0), np.zeros(0, bool), 1.0, plan, np.zeros(0, int), np.zeros(0, int))


def finding(code="BP101", severity="warning", where="layer0", remedies=("orthogonal", "chrono")):
    return Finding(code, RULES[code].name, severity, where, f"says {code} with 12 steps", remedies=remedies)


def made(**fields):
    sampled = curve("windowed", [1, 10, 30, 50, 100], [0.9, 0.5, 0.02, 0.001, 0], [0.8, 0.4, 0.008, 0, 0],
                    [1.0, 0.6, 0.03, 0.002, 0])  # fmt: skip
    chunked = curve("chunked", [1, 10, 20, 100], [0.9, 0.7, 0.25, 0])
    lags = np.arange(4)
    base = {
        "ledger": dataclasses.replace(ledger(100)),
        "truncation": {NAME: [sampled, chunked]},
        "context": Context(lags, lags / 10, lags / 100, lags / 10, 22, 18, 30, 0.01, 16),
        "exponents": Exponents("", 3, 100, np.array([-0.031, -0.5]), np.array([0.002, 0.1]), np.zeros((2, 2))),
        "gains": {"layer0.": Gain("layer0.", np.ones(100), lags, -0.05 * lags, -0.05, 0.001, 8)},
        "history": history("chunked:20"),
        "findings": [finding()],
        "notes": ["spectrum: too large"],
        "seconds": 2.34,
    }
    return Diagnosis("runs/a", FACTS, **base | fields)


def first_lines(diagnosis, name=NAME, width=110, **options):
    text = text_of(diagnosis_report(diagnosis, name, {}, width, **options), width)
    return text.split("loss J")[0]


def test_the_first_ten_lines_hold_all_that_a_reader_came_for():
    lines = text_of(diagnosis_report(made(), NAME, {}, 110), 110).splitlines()[:14]
    said = words("\n".join(lines))
    for part in (
        "runs/a ! 1 warning",
        "RNN (tanh), D=2, H=3; adding:100; iteration 2,000",
        "layer0.W_hh reaches back 35 steps (11–50, 95 %) of 100: the rest is below 1 % of dW.",
        "the model uses 22 steps (18–30)",
        "largest exponent −0.0310 ± 0.0020 a small change of the state shrinks by 3.1 % per step",
        "half-life 14 steps",
        "slope −0.0500 ± 0.0010 per lag",
        "its training loses 25.0 % of dW, cut every 20 steps",
        "! BP101 vanishing layer0 warning says BP101 with 12 steps → try: orthogonal, chrono docs/verdicts.md#bp101",
    ):
        assert part in said, part


def test_the_reach_is_that_of_the_curve_and_its_interval():
    """By hand: between 30 and 50 steps the bias falls from 0.02 to 0.001, log-linear; 1 % is met after 4.63 of 20."""
    share = math.log(0.02 / 0.01) / math.log(0.02 / 0.001)
    steps = math.ceil(30 + 20 * share)
    low = 10 + 1  # the lower curve is last beyond 1 % at K = 10
    high = 50  # the upper one at K = 30
    assert f"reaches back {steps} steps ({low}–{high}, 95 %) of 100" in words(first_lines(made()))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"truncation": {NAME: [curve("windowed", range(1, 101), [0.5] * 6 + [0.001] * 94)]}}, "back 7 steps of 100:"),
        ({"truncation": {NAME: [curve("windowed", range(1, 101), [0.001] * 100)]}}, "back 1 step of 100:"),
        ({"truncation": {NAME: [curve("windowed", range(1, 101), [0.5] * 99 + [0])]}},
         "back 100 steps of 100: over all that was shown, and perhaps further"),
        ({"truncation": {NAME: [curve("windowed", [1, 4, 9, 100], [0.5, 0.1, 0.001, 0])]}},
         "back 7 steps (5–9) of 100:"),
        ({"truncation": {}}, "is not known here"),
        ({"ledger": ledger(1), "truncation": {}}, "There is a single step"),
        ({"ledger": None, "not_finite": "layer0.h at step 3: got nan"}, "cannot be said"),
    ],
)  # fmt: skip
def test_the_one_number_in_all_cases(fields, said):
    assert said in words(first_lines(made(**fields)))


def test_a_gradient_that_is_zero_reaches_nowhere():
    zero = ledger(6)
    gone = {name: np.zeros_like(dW) for name, dW in zero.gradients.items()}
    text = words(first_lines(made(ledger=dataclasses.replace(zero, gradients=gone))))
    assert "The gradient of layer0.W_hh is exactly 0: it reaches nowhere." in text
    assert "its training loses" not in text


def test_numbers_that_are_not_finite_are_never_shown():
    broken = ledger(6)
    wrong = {name: np.full_like(dW, np.nan) for name, dW in broken.gradients.items()}
    ill = dataclasses.replace(broken, gradients=wrong, losses=np.full(6, np.inf))
    diagnosis = made(ledger=ill, exponents=Exponents("", 3, 5, np.array([-np.inf]), np.zeros(1), np.zeros((1, 1))))
    text = text_of(diagnosis_report(diagnosis, NAME, {}, 110))
    assert "nan" not in text
    assert " inf" not in text
    assert "No tables: the gradient is not made of finite numbers." in text
    assert "cannot be said" in text
    assert "largest exponent −∞ a small change of the state is gone after one step" in words(text)


@pytest.mark.parametrize(
    ("largest", "error", "said"),
    [
        (0.1, 0.01, "grows by 11 % per step"), (-0.1, 0.01, "shrinks by 9.5 % per step"),
        (0.01, 0.02, "keeps its size, within the error"), (800.0, 1.0, "grows by"),
    ],
)  # fmt: skip
def test_exponents_in_words(largest, error, said):
    exponents = Exponents("", 1, 9, np.array([largest]), np.array([error]), np.zeros((1, 1)))
    assert said in words(first_lines(made(exponents=exponents)))


@pytest.mark.parametrize(
    ("slope", "losses", "said"),
    [
        (-math.log(2) / 37, 8, "half-life 37 steps"), (math.log(2) / 5, 8, "doubles in 5 steps"),
        (-2.0, 8, "half-life less than 1 step"), (-math.log(2), 8, "half-life 1 step "),
        (-1e-9, 8, "over a million steps"),
        (math.log(0.9), 0, "gain per step 0.900 of ‖∂J/∂s‖, all losses together"),
    ],
)  # fmt: skip
def test_half_life_is_of_single_losses_alone(slope, losses, said):
    lags = np.arange(4)
    gain = Gain("layer0.", np.ones(9), lags, slope * lags, slope, 0.0, losses)
    text = words(first_lines(made(gains={"layer0.": gain})))
    assert said in text
    assert ("half-life" in text or "doubles" in text) == (losses > 0)


def test_what_the_training_loses_is_read_at_its_own_truncation():
    for plan, said in (
        ("chunked:30", "25.0 % of dW, cut every 30 steps (measured at 20)"),
        ("windowed:10", "50.0 % (40.0–60.0 %) of dW, cut every 10 steps"),
        ("chunked:1", "90.0 % of dW, cut at every step"),
    ):
        assert said in words(first_lines(made(history=history(plan))))
    for plan in ("full", "chunked:100", "checkpointed:5"):
        assert "its training loses" not in first_lines(made(history=history(plan)))
    assert "its training loses" not in first_lines(made(history=None))


def test_where_nothing_longer_is_known_the_last_use_says_what_a_gradient_of_one_step_loses():
    alone = curve("last step only", [1], [0.91])
    said = words(text_of(diagnosis_report(made(truncation={NAME: [alone]}), NAME)))
    assert "its last use alone 91.0 % of dW is lost by a gradient of one step" in said
    windowed = curve("windowed", [1, 100], [0.9, 0])
    assert "its last use" not in text_of(diagnosis_report(made(truncation={NAME: [windowed, alone]}), NAME))


def test_verdicts_come_by_gravity_and_the_headline_counts_them():
    found = [finding("BP204", "note"), finding(), finding("BP501", "error", "step 3", ()), finding("BP202")]
    text = first_lines(made(findings=found))
    places = [text.index(one) for one in ("✗ BP501", "! BP101", "! BP202", "· BP204")]
    assert places == sorted(places)
    assert text.splitlines()[0].strip() == "runs/a  ✗ 1 error, 2 warnings, 1 note"
    assert "✓ nothing found to be wrong" in first_lines(made(findings=[]))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_nothing_is_wider_than_the_terminal_and_nothing_is_cut(width):
    text = text_of(diagnosis_report(made(), NAME, {NAME: 34}, width), width)
    assert max(map(len, text.splitlines())) <= width
    head = words(text.split("loss J")[0])
    assert "…" not in head
    for part in ("35 steps (11–50, 95 %)", "14 steps", "shrinks by 3.1 % per step", "cut every 20 steps"):
        assert part in head


def test_without_colour_severity_is_still_said(monkeypatch, capsys):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console(width=100).print(diagnosis_report(made(), NAME, {}, 100))
    said = capsys.readouterr().out
    assert "38;5" not in said
    assert ";31m" not in said
    assert "BP101" in said


def test_notes_hint_and_trials_have_their_places():
    text = text_of(diagnosis_report(made(), NAME, {}, 110, hint="Add --try.", trials="THE TRIALS"), 110)
    places = [text.index(part) for part in (
        "! BP101", "Add --try.", "THE TRIALS", "loss J", "1  Parameters", "2  Steps", "Spectrum: too large.",
        "Examined in 2.3 s. Again: bptt check runs/a")]  # fmt: skip
    assert places == sorted(places)


def test_names_of_others_are_no_markup():
    text = first_lines(dataclasses.replace(made(), source="runs/[red]x[/red]", facts=FACTS | {"data": "[bold]y"}))
    assert "runs/[red]x[/red]" in text
    assert "[bold]y" in text


@pytest.mark.parametrize("code", sorted(RULES))
def test_every_rule_can_be_explained(code):
    rule = RULES[code]
    said = words(text_of(explanation(rule)))
    assert said.startswith(("✗", "!", "·"))
    assert f"{code} {rule.name} {rule.severity}" in said
    assert rule.summary in said
    for name, value in rule.thresholds.items():
        assert f"{code}.{name}={value:g}" in said
    assert all(f"→ try: {remedy}" in said for remedy in rule.remedies)


def test_rows_of_losses_that_do_not_count_are_left_out_of_the_map():
    rng = np.random.default_rng(0)
    network = bptt.Network.create("rnn", inputs=2, hidden=3, outputs=2)
    batch = bptt.Batch(rng.standard_normal((40, 2, 2)), rng.integers(0, 2, (40, 2)))
    last = bptt.record(network, batch, bptt.Loss(steps="last"), map=True)
    text = text_of(diagnosis_report(Diagnosis("x", {}, ledger=last), NAME, {}, 110))
    rows = text.split("columns are uses")[1].split("down to")[0].splitlines()[1:-1]
    assert "rows are the losses that count" in text
    assert len(rows) == 1
    assert rows[0].rstrip().endswith("█")

"""Verdicts: each defect is named, healthy models are let alone, and what is asked for decides what is said."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt.diagnose import REMEDIES, RULES, Diagnosis, Finding, Gain, Gate, Gates, Truncation, at_or_above, judge
from bptt.diagnose.exponents import Exponents
from bptt.diagnose.verdicts import chosen
from bptt.errors import InputError, UnknownName
from oracles import verdict_cases as cases

PAGE = Path(__file__).parents[2] / "docs" / "verdicts.md"
HEALTHY = cases.healthy()


def codes(found):
    return {one.code for one in (found if isinstance(found, list) else found.findings)}


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_is_let_alone(name):
    assert HEALTHY[name]().findings == []


@pytest.mark.parametrize(
    ("code", "make", "also"), cases.DEFECTS, ids=[f"{c} {m.__name__}" for c, m, _ in cases.DEFECTS]
)
def test_a_defect_is_named_and_nothing_that_is_not_there(code, make, also):
    found = make()
    assert code in codes(found)
    assert codes(found) <= {code, *also}
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert code in text


def test_every_rule_has_a_defect_that_it_names():
    assert {code for code, *_ in cases.DEFECTS} == set(RULES)


# ---- each rule at its threshold, by hand -----------------------------------------------------------------------------


def diagnosis(**more):
    return Diagnosis("by hand", {}, **more)


def gain(rate, T=100, losses=8, lags=None):
    """‖∂L_k/∂s_{k−lag}‖ = rate^lag."""
    lags = np.arange(lags or T)
    return Gain("layer0.", np.full(T, rate), lags, lags * math.log(rate), math.log(rate), 0.0, losses)


def test_vanishing_is_one_percent_within_a_quarter_of_the_steps():
    edge = 0.01 ** (1 / 25)  # exactly 1 % is left at lag 25 of 100
    (found,) = judge(diagnosis(gains={"layer0.": gain(edge * 0.999)}))
    assert (found.code, found.where) == ("BP101", "layer0")
    assert found.evidence["last lag"] == 24
    assert found.evidence["half-life"] == pytest.approx(math.log(0.5) / math.log(edge * 0.999))
    assert re.fullmatch(
        r"∂L/∂s falls below 1 % of its size within 25 of 100 steps back, × 0\.83\d with each", found.message
    )
    assert judge(diagnosis(gains={"layer0.": gain(0.01 ** (1 / 26.5))})) == []
    assert judge(diagnosis(gains={"layer0.": gain(0.01 ** (1 / 26.5))}), thresholds={"BP101.share": 0.3})


def test_exploding_is_a_thousandfold_and_what_adds_up_on_the_way_is_no_growth():
    assert codes(judge(diagnosis(gains={"layer0.": gain(1001 ** (1 / 99))}))) == {"BP102"}
    assert judge(diagnosis(gains={"layer0.": gain(999 ** (1 / 99))})) == []
    whole = gain(1.0, T=2000, losses=0)
    adding = dataclasses.replace(whole, logs=np.log1p(whole.lags), slope=0.01)  # 2000 losses, none of which fades
    assert judge(diagnosis(gains={"layer0.": adding})) == []
    last = dataclasses.replace(whole, logs=np.where(whole.lags > 0, 8.0, 0.0), slope=1e-5)  # the last one is small
    assert judge(diagnosis(gains={"layer0.": last})) == []
    assert codes(judge(diagnosis(gains={"layer0.": gain(1.2, losses=0)}))) == {"BP102"}


def test_growth_counts_sooner_where_most_updates_are_clipped():
    grows = {"layer0.": gain(20 ** (1 / 99))}
    assert judge(diagnosis(gains=grows)) == []
    found = judge(diagnosis(gains=grows, history=cases.history(np.ones(60))))
    assert codes(found) == {"BP102", "BP401"}
    assert judge(diagnosis(gains=grows, history=cases.history(np.arange(60) < 30))) == []  # the first half alone


def exponents(value, error, steps=200):
    return Exponents("", 4, steps, np.array([value, -1.0]), np.array([error, 0.1]), np.zeros((3, 2)))


def test_chaos_is_two_standard_errors_above_a_margin():
    (found,) = judge(diagnosis(exponents=exponents(0.1, 0.03)))
    assert found.code == "BP103"
    assert found.evidence["window"] == 7  # ln 2 / 0.1
    assert judge(diagnosis(exponents=exponents(0.1, 0.046))) == []
    assert judge(diagnosis(exponents=exponents(-0.1, 0.0))) == []
    assert judge(diagnosis(exponents=exponents(0.1, 0.0, steps=20))) == []  # × 7 may be transient


def truncation(low, scheme="chunked", bias=0.2):
    K = np.array([1, 5, 10, 40])
    curve = np.array([0.9, 0.5, bias, 0.0])
    lows = np.array([0.8, 0.4, low, 0.0])
    return Truncation("layer0.W_hh", scheme, K, curve, np.ones(4), lows, curve, False, 8, 40, 0.95)


def test_truncation_is_held_against_the_lower_end_at_the_training_s_own_k():
    cut = {"layer0.W_hh": [truncation(0.11), truncation(0.5, "windowed")]}
    (found,) = judge(diagnosis(truncation=cut, plan="Chunked(K=10)"))
    assert found.code == "BP104"
    assert (found.evidence["K"], found.evidence["low"]) == (10, 0.11)
    assert found.remedies == ("larger-K",)
    unsure = dataclasses.replace(truncation(0.0, bias=0.9), parameter="layer1.W_hh")
    assert judge(diagnosis(truncation=cut | {"layer1.W_hh": [unsure]}, plan="chunked:10"))[0].where == "layer0.W_hh"
    assert judge(diagnosis(truncation=cut, plan="Full()")) == []
    assert judge(diagnosis(truncation=cut, plan="Chunked(K=40)")) == []
    assert judge(diagnosis(truncation={"layer0.W_hh": [truncation(0.09)]}, plan="chunked:10")) == []
    run = cases.history(np.zeros(3), plan="windowed:10")
    assert codes(judge(diagnosis(truncation=cut, history=run))) == {"BP104"}


def gates(state="layer0.", **shares):
    made = {name: Gate(np.full(4, 0.5), low, high, np.full(4, low + high)) for name, (low, high) in shares.items()}
    return {state: Gates(state, made, None)}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"h": (0.45, 0.31)}, {"BP301"}),
        ({"h": (0.45, 0.29)}, set()),
        ({"f": (0.0, 0.9), "i": (0.0, 0.1)}, set()),  # memory
        ({"f": (0.0, 0.9), "i": (0.9, 0.0)}, set()),  # still memory: nothing comes in while all is kept
        ({"f": (0.0, 0.1), "i": (0.9, 0.0)}, {"BP302"}),
        ({"f": (0.6, 0.1)}, {"BP302"}),
        ({"z": (0.1, 0.9)}, set()),
        ({"z": (0.6, 0.1)}, {"BP302"}),
        ({"o": (0.3, 0.3)}, {"BP302"}),
    ],
)  # fmt: skip
def test_an_open_forget_gate_is_memory_and_other_ends_are_saturation(shares, expected):
    assert codes(judge(diagnosis(gates=gates(**shares)))) == expected


def test_relu_may_be_silent_half_of_the_time_but_not_for_good():
    silent = Gates("layer0.", {"h": Gate(np.full(4, 0.1), 0.7, 0.0, np.array([0.99, 0.7, 1.0, 1.0]))}, None)
    dead = Gates("layer0.", {"h": Gate(np.full(4, 0.1), 0.8, 0.0, np.array([0.5, 1.0, 1.0, 1.0]))}, None)
    assert judge(Diagnosis("by hand", {"units": "relu"}, gates={"layer0.": silent})) == []
    (found,) = judge(Diagnosis("by hand", {"units": "relu"}, gates={"layer0.": dead}))
    assert (found.code, found.message) == ("BP301", "3 of 4 units of ReLU are never above 0")


def test_the_proposed_clip_value_is_a_quantile_of_the_last_norms():
    norms = np.concatenate([np.full(30, 99.0), np.arange(1.0, 31.0)])
    (found,) = judge(diagnosis(history=cases.history(np.ones(60), norms)))
    assert found.evidence["clip value"] == pytest.approx(np.quantile(np.arange(1.0, 31.0), 0.9))
    assert judge(diagnosis(history=cases.history(np.ones(19)))) == []


# ---- ledgers ---------------------------------------------------------------------------------------------------------


def test_one_step_next_to_the_only_loss_does_not_dominate_it_vanishes():
    network, batch, loss = cases.rnn(0.1, T=30)
    ledger = bptt.record(network, batch, bptt.Loss(steps="last"), engine="reference")
    norms = ledger.norms("W_hh")
    assert norms.max() > 0.5 * norms.sum()  # so that this could fail
    assert codes(bptt.diagnose(ledger)) == {"BP101"}
    assert codes(bptt.diagnose(network, batch, loss, engine="reference")) == {"BP101"}


def test_a_masked_step_or_a_readout_without_a_loss_is_no_dead_use():
    network, batch, _ = cases.rnn(T=16)
    ledger = bptt.record(network, batch, bptt.Loss(steps="last"), engine="reference")
    assert (ledger.norms("readout.W") == 0).sum() == 15
    assert bptt.diagnose(ledger).findings == []


def test_a_nan_is_traced_to_the_first_step_forward_and_else_to_the_last_on_the_way_back():
    ledger = bptt.record(*cases.rnn(T=12), engine="reference")
    z, delta = ledger.uses["layer0.W_hh"]
    bad = z.copy()
    bad[7:, 0, 0] = np.nan
    wrong = {name: dW * np.nan for name, dW in ledger.gradients.items()}
    forward = dataclasses.replace(
        ledger, gradients=wrong, uses=ledger.uses | {"layer0.W_hh": type(ledger.uses["layer0.W_hh"])(bad, delta)}
    )
    (found,) = bptt.diagnose(forward).findings
    assert (found.code, found.where) == ("BP501", "layer0.W_hh, step 8")
    bad = delta.copy()
    bad[:5] = np.inf
    back = dataclasses.replace(
        ledger, gradients=wrong, uses=ledger.uses | {"layer0.W_hh": type(ledger.uses["layer0.W_hh"])(z, bad)}
    )
    (found,) = bptt.diagnose(back).findings
    assert (found.evidence["step"], found.evidence["tensor"]) == (5, "dW_t of layer0.W_hh")
    assert json.dumps(bptt.diagnose(back).to_dict(), allow_nan=False)


def test_rounding_of_uses_that_cancel_is_no_gap():
    found = cases.cancelling()
    assert found.ledger.residual > 1e-9  # relative to next to nothing
    assert "BP502" not in codes(found)


# ---- what is asked for -----------------------------------------------------------------------------------------------


def ill():
    return diagnosis(
        gains={"layer0.": gain(0.5)}, gates=gates(h=(0.4, 0.4)), not_finite="loss at step 3: got nan, expected finite"
    )


def test_findings_come_the_gravest_first():
    assert [one.code for one in judge(ill())] == ["BP501", "BP101", "BP301"]
    assert [one.code for one in at_or_above(judge(ill()), "error")] == ["BP501"]
    assert len(at_or_above(judge(ill()), "note")) == 3


@pytest.mark.parametrize(
    ("select", "ignore", "expected"),
    [
        ("BP1", None, ["BP101"]), ("BP101,BP501", None, ["BP501", "BP101"]), (["vanishing"], None, ["BP101"]),
        (None, "BP", []), (None, ["saturated units", "bp5"], ["BP101"]), ("BP3", "BP301", []),
    ],
)  # fmt: skip
def test_rules_are_selected_and_ignored_by_code_prefix_or_name(select, ignore, expected):
    assert [one.code for one in judge(ill(), select=select, ignore=ignore)] == expected


def test_what_is_misspelt_gets_the_nearest():
    with pytest.raises(UnknownName, match=r"select: got 'vanshing'.*Did you mean 'vanishing'\?"):
        judge(ill(), select="vanshing")
    with pytest.raises(UnknownName, match=r"ignore: got 'BP110'.*Did you mean 'BP10\d'\?"):
        judge(ill(), ignore=["BP110"])
    with pytest.raises(UnknownName, match=r"threshold: got 'BP101.shares'.*Did you mean 'BP101.share'\?"):
        judge(ill(), thresholds={"BP101.shares": 1})
    with pytest.raises(InputError, match=r"threshold BP101.share: got nan, expected a finite number"):
        judge(ill(), thresholds={"BP101.share": math.nan})
    with pytest.raises(UnknownName, match=r"severity: got 'grave'"):
        at_or_above([], "grave")
    with pytest.raises(UnknownName, match="select"):
        bptt.diagnose(bptt.explain("the cat sat"), select="BP9")


def test_a_finding_carries_what_it_was_held_against():
    (found,) = judge(ill(), select="BP101", thresholds={"BP101.share": 0.5})
    assert found.thresholds == {"left": 0.01, "share": 0.5, "steps": 8.0}
    assert found.page == "docs/verdicts.md#bp101"
    assert str(found) == f"BP101 vanishing: layer0: {found.message}"
    assert isinstance(found, Finding)


@pytest.mark.parametrize(
    ("cell", "some", "none"),
    [("rnn", {"gated-cell", "orthogonal"}, {"chrono", "forget-bias"}),
     ("lstm", {"chrono", "forget-bias"}, {"gated-cell", "orthogonal"}),
     ("gru", {"chrono"}, {"gated-cell", "forget-bias"})],
)  # fmt: skip
def test_remedies_fit_the_cell(cell, some, none):
    found = judge(dataclasses.replace(ill(), facts={"cell": cell}), select="BP101")[0]
    assert some <= set(found.remedies)
    assert not none & set(found.remedies)


def test_the_page_of_every_verdict_is_there():
    text = PAGE.read_text(encoding="utf-8")
    for code, rule in RULES.items():
        assert f'<a id="{code.lower()}"></a>' in text
        assert f"## {code} {rule.name}" in text
        for name, value in rule.thresholds.items():
            assert f"`{code}.{name}` {value:g}" in text, (code, name)


def test_every_remedy_that_a_rule_proposes_is_one():
    assert {name for rule in RULES.values() for name in rule.remedies} <= set(REMEDIES)


def test_the_page_counts_the_models_that_are_tried():
    text = PAGE.read_text(encoding="utf-8")
    assert f"| {len(HEALTHY)} | false positives 0 |" in text
    assert f"| {len(cases.DEFECTS)} | misses 0, wrong ones beside it 0 |" in text


def test_the_last_rest_of_what_is_learnt_has_no_outlier():
    network, batch, loss = cases.rnn(T=20)
    ledger = bptt.record(network, batch._replace(mask=np.full((20, 4), 1e-9) + (np.arange(20) == 7)[:, None]), loss)
    assert codes(judge(Diagnosis("by hand", {"error": 0.5}, ledger=ledger))) == {"BP203"}
    assert judge(Diagnosis("by hand", {"error": 0.005}, ledger=ledger)) == []


def test_rules_are_listed_in_the_order_of_their_codes():
    assert [rule.code for rule in chosen()] == sorted(RULES)

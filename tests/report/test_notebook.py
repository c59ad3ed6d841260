"""What a notebook gets: text always, a picture and HTML where they can be drawn, never an error."""

import dataclasses
import subprocess
import sys
import types
import xml.etree.ElementTree as xml

import numpy as np
import pytest

import bptt
from bptt.diagnose.diagnosis import Diagnosis
from bptt.diagnose.findings import Finding

CARDS = "bptt.report.cards"


@pytest.fixture(scope="module")
def ledger():
    return bptt.explain("the cat sat down")


def shown(ledger):
    finding = Finding("BP101", "vanishing", "warning", "layer0", "The gradient is gone after 4 steps.")
    return {"ledger": ledger, "diagnosis": Diagnosis("runs/a", {}, ledger, findings=[finding])}


@pytest.mark.parametrize("what", ["ledger", "diagnosis"])
def test_a_notebook_gets_text_a_picture_and_html_without_scripts(ledger, what):
    one = shown(ledger)[what]
    bundle = one._repr_mimebundle_()
    assert list(bundle) == ["text/plain", "image/svg+xml", "text/html"]
    assert bundle["text/plain"] == repr(one)
    assert "\n" not in repr(one)
    assert xml.fromstring(bundle["image/svg+xml"]).tag.endswith("svg")
    for content in bundle.values():
        assert "<script" not in content
        assert "http://" not in content.replace("http://www.w3.org/", "")
    if what == "diagnosis":
        assert "BP101" in bundle["text/html"]


@pytest.mark.parametrize("what", ["ledger", "diagnosis"])
def test_only_what_is_asked_for_is_drawn(ledger, what, monkeypatch):
    drawn = []
    drawers = {f"{what}_{kind}": lambda _, kind=kind: drawn.append(kind) or f"<{kind}/>" for kind in ("svg", "html")}
    monkeypatch.setitem(sys.modules, CARDS, types.SimpleNamespace(**drawers))
    one = shown(ledger)[what]
    assert list(one._repr_mimebundle_(include={"text/plain"})) == ["text/plain"]
    assert list(one._repr_mimebundle_(exclude={"image/svg+xml", "text/html"})) == ["text/plain"]
    assert drawn == []
    some = one._repr_mimebundle_(include=["text/plain", "text/html"], exclude=["text/plain"])
    assert (some, drawn) == ({"text/html": "<html/>"}, ["html"])


@pytest.mark.parametrize("what", ["ledger", "diagnosis"])
def test_a_drawer_that_fails_or_is_not_there_leaves_the_text_and_a_warning(ledger, what, monkeypatch):
    def fails(shown):
        raise ZeroDivisionError

    one = shown(ledger)[what]
    for drawer in (
        None,
        types.SimpleNamespace(),
        types.SimpleNamespace(**{f"{what}_svg": fails, f"{what}_html": fails}),
    ):
        monkeypatch.setitem(sys.modules, CARDS, drawer)
        with pytest.warns(RuntimeWarning, match=f"no (svg|html) of this {what}: "):
            assert one._repr_mimebundle_() == {"text/plain": repr(one)}
    half = types.SimpleNamespace(**{f"{what}_svg": fails, f"{what}_html": lambda shown: "<p>here</p>"})
    monkeypatch.setitem(sys.modules, CARDS, half)
    with pytest.warns(RuntimeWarning, match=rf"no svg of this {what}: ZeroDivisionError\(\)"):
        assert one._repr_mimebundle_() == {"text/plain": repr(one), "text/html": "<p>here</p>"}


def test_nothing_that_draws_comes_before_something_is_shown():
    code = (
        "import sys, bptt; bptt.plot.map; ledger = bptt.explain('the cat'); repr(ledger)\n"
        "assert not [name for name in sys.modules if name.startswith('bptt.report.cards')]\n"
        "ledger._repr_mimebundle_(); assert 'bptt.report.cards' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('matplotlib')]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_ledger_without_a_map_or_a_gradient_is_still_shown(ledger):
    bare = dataclasses.replace(ledger, maps={}, loss_uses={})
    nought = dataclasses.replace(
        ledger, maps={}, loss_uses={}, uses={}, gradients={n: 0 * g for n, g in ledger.gradients.items()},
        step_norms={n: np.zeros(ledger.T) for n in ledger.names}, recorded_residuals={"a": 0.0},
    )  # fmt: skip
    for one in (bare, nought):
        assert {"text/plain", "image/svg+xml", "text/html"} == set(one._repr_mimebundle_())

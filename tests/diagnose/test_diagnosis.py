"""Everything at once: what is measured, what is noted where it cannot be, and nothing that dies of a sick model."""

import json
import math
import re

import numpy as np
import pytest

import bptt
from bptt.diagnose import Diagnosis
from bptt.errors import InputError, ShapeError, UnknownName
from oracles import verdict_cases as cases


def small(kind="lstm", T=12, B=3, loss=None, **more):
    rng = np.random.default_rng(0)
    network = bptt.Network.create(kind, inputs=3, hidden=5, outputs=3, **more)
    return network, bptt.Batch(rng.standard_normal((T, B, 3)), rng.integers(0, 3, (T, B))), loss or bptt.Loss()


def plain(found):
    """What goes into a file is what JSON has, and nothing that is not a number."""
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["findings"] is not None
    return json.loads(text)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_a_network_has_every_measurement_and_no_note(kind):
    seen = []
    found = bptt.diagnose(*small(kind), engine="reference", progress=seen.append)
    assert found.notes == []
    assert None not in (found.exponents, found.spectrum, found.context, found.ledger)
    assert set(found.gains) == set(found.gates) == {"layer0."}
    assert set(found.cell_paths) == ({"layer0."} if kind == "lstm" else set())
    assert set(found.truncation) == {"layer0.W_hh"}
    assert len(seen) >= 6
    assert found.seconds > 0
    facts = found.facts
    assert (facts["T"], facts["B"], facts["cell"], facts["dtype"]) == (12, 3, kind, "float64")
    assert facts["residual"] < 1e-12
    assert facts["plan"] == "Full()"
    assert plain(found)["exponents"]["size"] == (10 if kind == "lstm" else 5)


def test_quick_leaves_out_what_takes_long():
    found = bptt.diagnose(*small(), engine="reference", quick=True)
    assert (found.spectrum, found.context, found.cell_paths, found.truncation) == (None, None, {}, {})
    assert found.exponents is not None
    assert bptt.diagnose(*small(), engine="reference", quick=True, plan="chunked:4").truncation


def test_the_same_seed_gives_the_same_numbers():
    one, other = (bptt.diagnose(*small(), engine="reference", seed=3).to_dict() for _ in range(2))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_ledger_says_what_it_can():
    network, batch, loss = small()
    ledger = bptt.record(network, batch, loss, engine="reference", source="a file")
    found = bptt.diagnose(ledger)
    assert found.source == "a file"
    assert set(found.gains) == {"layer0."}
    assert set(found.truncation) == {"layer0.W_xh", "layer0.W_hh"}
    (alone,) = found.truncation["layer0.W_hh"]  # of factors, what the last use alone would leave out
    dW = ledger.gradient("W_hh")
    lost = np.linalg.norm(ledger.step_gradient("W_hh", ledger.T) - dW) / np.linalg.norm(dW)
    assert (alone.scheme, alone.K.tolist(), alone.exact) == ("last step only", [1], True)
    np.testing.assert_allclose(alone.bias, [lost], rtol=1e-12)
    assert any(note.startswith("truncation: ") and "keep='full'" in note for note in found.notes)
    full = bptt.diagnose(bptt.record(network, batch, loss, engine="reference", keep="full"))
    assert full.notes == []
    exact = next(one for one in full.truncation["layer0.W_hh"] if one.scheme == "windowed")
    np.testing.assert_allclose(exact.bias, bptt.truncation_bias(full.ledger, "W_hh"))
    plain(full)


def test_a_network_and_its_full_ledger_agree_on_what_truncation_costs():
    network, batch, loss = small("gru")
    one = bptt.diagnose(network, batch, loss, engine="reference")
    other = bptt.diagnose(bptt.record(network, batch, loss, engine="reference", keep="full"))
    assert set(one.truncation) <= set(other.truncation)
    for name, schemes in one.truncation.items():
        for a, b in zip(schemes, other.truncation[name], strict=True):
            assert a.exact
            np.testing.assert_allclose(a.bias, b.bias[np.isin(b.K, a.K)], atol=1e-12)


def test_both_directions_have_exponents_of_one_and_a_note():
    found = bptt.diagnose(*small("gru", bidirectional=True), engine="reference")
    assert found.exponents.state == "layer0."
    assert any("both ways" in note for note in found.notes)
    assert set(found.gains) == {"layer0.", "layer0.reverse."}
    plain(found)


def test_of_both_directions_the_cell_path_is_that_of_the_last_layer():
    found = bptt.diagnose(*small("lstm", layers=2, bidirectional=True), engine="reference")
    assert list(found.cell_paths) == ["layer1."]
    assert not [note for note in found.notes if "cell path" in note]


def test_a_plan_of_the_training_is_held_against_the_whole_gradient():
    found = bptt.diagnose(*small(), engine="reference", plan=bptt.Chunked(4))
    assert found.facts["plan"] == "Chunked(K=4)"
    assert found.ledger.meta["plan"] == "Full()"
    said = bptt.diagnose(*small(), engine="reference", plan="windowed:1", facts={"plan": "in words"}, source="x")
    assert said.finding("BP105").severity == "error"
    assert (said.facts["plan"], said.source) == ("in words", "x")


def test_exit_code_and_finding():
    found = bptt.diagnose(*cases.rnn(0.5), engine="reference", quick=True)
    assert [one.code for one in found.findings] == ["BP101"]
    assert (found.exit_code(), found.exit_code("warning"), found.exit_code("note")) == (0, 1, 1)
    assert found.finding("vanishing") is found.finding("BP101") is found.findings[0]
    assert found.finding("BP203") is None
    with pytest.raises(UnknownName, match="rule: got 'BP999'"):
        found.finding("BP999")
    assert "warning: BP101 vanishing: layer0: " in str(found)
    assert repr(found) == f"Diagnosis({found.facts['network']}; BP101)"


# ---- bad input -------------------------------------------------------------------------------------------------------


def batches():
    network, batch, loss = small(T=12)
    T1 = bptt.Batch(batch.x[:1], batch.targets[:1])
    yield "one step", network, T1, loss
    yield "constant", network, batch._replace(x=np.ones_like(batch.x)), loss
    yield "zeros", network, batch._replace(x=np.zeros_like(batch.x)), loss
    yield "one sequence", network, bptt.Batch(batch.x[:, :1], batch.targets[:, :1]), loss
    yield "padding", network, batch._replace(lengths=np.array([12, 3, 1])), loss
    yield "last step", network, batch, bptt.Loss(steps="last")
    yield "mask", network, batch._replace(mask=(np.arange(12) % 5 == 2)[:, None] * np.ones((12, 3))), loss
    silent = network.astype(np.float64)
    silent.params.update({name: np.zeros_like(value) for name, value in silent.params.items()})
    yield "all zero", silent, batch, loss
    rnn, other, _ = cases.rnn(nonlinearity="relu", init="identity", T=60)
    rnn.params["layer0.W_hh"] *= 1e4
    yield "growth to 1e240", rnn, other._replace(x=np.abs(other.x)), bptt.Loss(steps="last")
    yield (
        "no readout",
        bptt.Network.create("gru", inputs=3, hidden=3),
        bptt.Batch(batch.x, batch.x),
        bptt.Loss("squared_error"),
    )
    yield (
        "exactly zero gradient",
        network,
        batch._replace(targets=bptt.predict(network, batch.x)[0]),
        bptt.Loss("squared_error"),
    )
    yield "float32", network.astype(np.float32), batch, loss


@pytest.mark.parametrize("case", list(batches()), ids=lambda case: case[0])
def test_whatever_is_shown_it_ends_in_numbers_or_notes(case):
    _, network, batch, loss = case
    found = bptt.diagnose(network, batch, loss, engine="reference")
    plain(found)
    for one in found.findings:
        assert all(not isinstance(v, float) or math.isfinite(v) for v in one.evidence.values()), one
        assert "nan" not in one.message


def test_what_is_not_finite_is_a_finding_that_names_its_origin():
    found = cases.nan_input()
    (one,) = found.findings
    assert (one.code, one.where) == ("BP501", "inputs x at step 21, sequence 2")
    assert found.ledger is None
    assert found.exit_code() == 1
    assert re.fullmatch(r"layer0\.\w+ at step \d+", cases.overflow().findings[0].where)
    plain(found)


def test_what_does_not_fit_is_an_error_and_not_a_note():
    network, batch, loss = small()
    with pytest.raises(InputError, match=r"diagnosis: got int, expected a Ledger, or a Network"):
        bptt.diagnose(3)
    with pytest.raises(InputError, match=r"no batch or no loss, expected both"):
        bptt.diagnose(network)
    with pytest.raises(ShapeError):
        bptt.diagnose(network, batch._replace(x=batch.x[..., :2]), loss)
    with pytest.raises(InputError, match="every step masked"):
        bptt.diagnose(network, batch._replace(mask=np.zeros((12, 3))), loss)
    with pytest.raises(UnknownName, match="plan"):
        bptt.diagnose(network, batch, loss, plan="half")
    for drawn in ({"samples": 0}, {"samples": 3}, {"samples": 4.5}, {"samples": True}, {"seed": -1}, {"seed": 0.5}):
        name, value = next(iter(drawn.items()))
        with pytest.raises(InputError, match=f"{name}: got {value}, expected a whole number of at least"):
            bptt.diagnose(network, batch, loss, **drawn)


def test_the_room_is_called_and_still_a_room():
    assert callable(bptt.diagnose)
    assert bptt.diagnose.horizon is bptt.horizon
    assert bptt.diagnose.Diagnosis is Diagnosis

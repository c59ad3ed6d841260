"""Rules on ledgers that were made by hand, just past their limits and just short of them."""

import dataclasses

import numpy as np
import pytest

import bptt
from bptt.diagnose import Diagnosis, Truncation, judge
from bptt.ledger import Ledger, Place


def ledger(norms, size=None, state=None, residual=0.0, dtype="float64", losses=(1.0,), shape=(3, 3), loss_map=None):
    """One parameter with these ‖dW_t‖, and ‖dW‖ = `size`; state: (T + 1,) ‖∂J/∂s_t‖."""
    norms = np.array(norms, float)
    dW = np.ones(shape) / np.sqrt(np.prod(shape)) * (norms.sum() / 2 if size is None else size)
    states = {} if state is None else {"l0.": np.array(state, float)[:, None]}
    place = Place("l0.", False) if states else Place()
    maps = {} if loss_map is None else {"W": np.array(loss_map, float)}
    meta = {"dtype": dtype, "plan": "autograd: as far as it reaches", "keep": "norms"}
    return Ledger(
        meta, np.array(losses), {"W": dW}, {"W": place}, dict.fromkeys(states, False), states, maps=maps,
        step_norms={"W": norms}, recorded_residuals={"W": residual},
    )  # fmt: skip


def codes(found, **facts):
    return [one.code for one in judge(Diagnosis("by hand", facts, ledger=found))]


EVEN = [1.0] * 12


def outlier(share, uses=10):
    """`uses` even uses, one of which in the middle has this share of the sum."""
    return [1.0] * 4 + [share / (1 - share) * (uses - 1)] + [1.0] * (uses - 5)


def test_nothing_is_said_of_even_uses():
    assert codes(ledger(EVEN)) == []
    assert codes(ledger(EVEN, state=[1.0] * 13)) == []


@pytest.mark.parametrize(
    ("norms", "said"),
    [(outlier(0.51), ["BP203"]), (outlier(0.49), []), (outlier(0.9, uses=9), []), ([0.0] * 11 + [1.0], ["BP201"])],
)
def test_one_step_dominates_past_half_of_ten_uses(norms, said):
    assert codes(ledger(norms)) == said


@pytest.mark.parametrize(
    ("ratio", "shape", "said"),
    [(0.019, (3, 3), ["BP202"]), (0.021, (3, 3), []), (0.0, (3, 3), ["BP202"]), (0.0, (7,), [])],
)
def test_uses_cancel_below_a_fiftieth_of_what_random_ones_leave(ratio, shape, said):
    assert codes(ledger(EVEN, size=ratio * np.sqrt(12), shape=shape)) == said
    assert codes(ledger(EVEN[:7], size=ratio * np.sqrt(7), shape=shape)) == []  # too few uses


@pytest.mark.parametrize(
    ("dead", "reaching", "said"),
    [(6, 1.0, ["BP201"]), (5, 1.0, []), (6, 0.0, [])],
)
def test_uses_are_dead_from_half_on_and_only_where_something_comes(dead, reaching, said):
    alive = 12 - dead
    norms = [1.0, 0.0] * min(dead, alive) + [1.0] * (alive - min(dead, alive)) + [0.0] * (dead - min(dead, alive))
    state = [1.0] + [1.0 if n else reaching for n in norms]
    assert codes(ledger(norms, state=state)) == said


@pytest.mark.parametrize(
    ("dtype", "residual", "said"),
    [("float64", 1.1e-9, ["BP502"]), ("float64", 0.9e-9, []), ("float32", 1.1e-3, ["BP502"]), ("float32", 0.9e-3, []),
     ("bfloat16", 0.9e-3, []), ("float64", np.inf, ["BP502"])],
)  # fmt: skip
def test_a_ledger_adds_up_within_the_rounding_of_its_numbers(dtype, residual, said):
    assert codes(ledger(EVEN, size=6.0, residual=residual, dtype=dtype)) == said


def fading(reach, of=16, left=0.005):
    """Nothing is gone for good, but only the last `reach` uses have 1 % of the largest."""
    return [left] * (of - reach) + [1.0] * reach


def test_without_a_state_the_uses_say_what_vanishes():
    assert codes(ledger(fading(4))) == ["BP101"]
    assert codes(ledger(fading(5))) == []
    assert codes(ledger(fading(4, left=0.011))) == []
    assert codes(ledger([0.0] * 12 + [1.0] * 4, size=2.0)) == ["BP201"]  # that is no decay: it is cut
    assert codes(ledger(fading(1, of=7))) == []


@pytest.mark.parametrize(("loss", "said"), [(9e-4, ["BP204"]), (2e-3, [])])
def test_of_a_ledger_alone_loss_and_gradient_have_to_be_small(loss, said):
    assert codes(ledger(EVEN, size=5e-4, losses=[loss], shape=(2,))) == said
    assert codes(ledger(EVEN, size=5e-3, losses=[loss], shape=(2,))) == []


@pytest.mark.parametrize(("error", "said"), [(9e-4, ["BP204"]), (2e-3, [])])
def test_the_error_at_the_output_says_more_than_the_loss(error, said):
    assert codes(ledger(EVEN), error=error) == said


def test_a_small_loss_whose_gradient_vanishes_has_vanished():
    assert codes(ledger(fading(4)), error=1e-6) == ["BP101"]


def test_a_state_is_detached_where_every_entry_off_the_diagonal_is_exactly_zero():
    table = np.eye(12)
    assert codes(ledger(EVEN, losses=np.ones(12), loss_map=table)) == ["BP105"]
    (found,) = judge(Diagnosis("by hand", {}, ledger=ledger(EVEN, losses=np.ones(12), loss_map=table)))
    assert found.remedies == ()  # no K is at fault
    table[7, 2] = 1e-300
    assert codes(ledger(EVEN, losses=np.ones(12), loss_map=table)) == ["BP101"]  # not cut off, but vanished
    one = np.zeros((12, 12))
    one[11, 11] = one[0, 0] = 1  # one loss behind another use is not enough
    assert codes(ledger(EVEN, losses=np.ones(12), loss_map=one)) == []


def test_relu_has_no_end_above_whatever_is_known_of_the_network_beside_its_gates():
    network = bptt.Network.create("rnn", inputs=3, hidden=8, nonlinearity="relu")
    network.params["layer0.b"] += 3
    batch = bptt.Batch(np.random.default_rng(0).standard_normal((30, 4, 3)), np.zeros((30, 4), int))
    found = bptt.diagnose.gates(network, batch)
    assert found["layer0."].gates["h"].relu
    assert found["layer0."].gates["h"].high == 0
    network.params["layer0.b"] -= 3.5  # most of them are at 0 most of the time
    found = bptt.diagnose.gates(network, batch)
    assert found["layer0."].gates["h"].low > 0.5
    assert judge(Diagnosis("by hand", {}, gates=found), select="BP301") == []


@pytest.mark.parametrize(
    ("harm", "where", "message"),
    [
        (lambda n, x: x.__setitem__((20, 1, 0), np.nan), "inputs x at step 21, sequence 2", "holds NaN"),
        (lambda n, x: x.__setitem__((0, 0, 0), -np.inf), "inputs x at step 1, sequence 1", "holds minus infinity"),
        (lambda n, x: n.params["layer0.W_hh"].__setitem__((0, 1), np.nan), "parameter layer0.W_hh", "holds NaN"),
        (
            lambda n, x: n.params.update(
                {"layer0.b": 10 * n.params["layer0.b"] + 10, "readout.W": np.full((8, 3), 1e308)}
            ),
            "output y at step 1",
            "holds infinity",
        ),
    ],
)
def test_what_is_not_finite_is_named_in_a_sentence(harm, where, message):
    network, x = bptt.Network.create("rnn", inputs=3, hidden=8, outputs=3), np.ones((30, 4, 3))
    harm(network, x)
    (found,) = bptt.diagnose(network, bptt.Batch(x, np.zeros((30, 4), int)), bptt.Loss()).findings
    assert (found.code, found.where) == ("BP501", where)
    assert found.message == f"{message}, the first on the way; nothing behind it can be measured"
    assert ("clip" in found.remedies) == (not where.startswith("inputs"))


def test_where_no_gradient_arrives_no_factor_is_shown():
    network = bptt.Network.create("rnn", inputs=3, hidden=8, outputs=3)
    network.params["readout.W"][:] = 0
    batch = bptt.Batch(np.random.default_rng(0).standard_normal((30, 4, 3)), np.zeros((30, 4), int))
    text = str(bptt.diagnose(network, batch, bptt.Loss()))
    assert "no gradient arrives at layer0" in text
    assert "per step back" not in text


@pytest.mark.parametrize(("low", "said"), [(30, []), (1, ["BP101"])])
def test_a_gradient_that_is_known_to_reach_far_has_not_vanished_however_little_of_each_loss_comes(low, said):
    """Where many losses agree, dW is made of what comes from far, though each fades; a sample has to be sure."""
    rng = np.random.default_rng(0)
    network = bptt.Network.create("rnn", inputs=3, hidden=12, outputs=3)
    network.params["layer0.W_hh"] *= 0.5
    batch = bptt.Batch(rng.standard_normal((40, 4, 3)), rng.integers(0, 3, (40, 4)))
    found = bptt.diagnose(network, batch, bptt.Loss(), quick=True)
    assert [one.code for one in found.findings] == ["BP101"]
    K, ones = np.arange(1, 41), np.ones(40)
    bias = np.where(K < 30, 0.5, 0.0)
    sure = np.where(low > K, bias, 0.0)
    far = Truncation("layer0.W_hh", "windowed", K, bias, ones, sure, bias, low == 30, 8, 40, 0.95)
    known = dataclasses.replace(found, truncation={"layer0.W_hh": [far]})
    assert [one.code for one in judge(known)] == said

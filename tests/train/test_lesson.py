"""The lesson: every number in it has another way to it."""

import itertools

import numpy as np
import pytest

import bptt
from bptt.errors import DataError, InputError
from bptt.ledger.norms import norm
from bptt.train.lesson import END, lesson, term
from bptt.uses import Columns

CELLS = [("rnn", {}), ("gru", {}), ("gru", {"reset": "before"}), ("lstm", {}), ("lstm", {"peepholes": True})]


@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_the_lesson_is_checked_both_ways(cell, options):
    made = lesson("a rose is a rose", cell=cell, **options)
    assert made.ledger.residual < 1e-14
    assert made.check < 1e-13
    assert made.targets == ["rose", "is", "a", "rose", END]
    assert made.ledger.T == 5


@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_the_factors_of_a_term_multiply_to_the_contribution(cell, options):
    made = lesson("the cat sat down", cell=cell, **options)
    factors = term(made, 4, 2)
    C = factors[-1].value
    np.testing.assert_array_equal(C, made.ledger.contribution("W_hh", 4, 2))
    adjoint = np.concatenate([factors[0].value, np.zeros(sum(made.network.cell.state_widths()) - 4)])
    for factor in factors:
        if factor.symbol.startswith("∂") and factor.value.ndim == 2:
            adjoint = adjoint @ factor.value
            assert factor.norm == pytest.approx(np.linalg.svd(factor.value)[1].max())
    np.testing.assert_allclose(adjoint, _state_adjoint(made, 4, 2), atol=1e-14)
    use = made.ledger.loss_factors("W_hh", 4, 2)
    parts = use.parts if isinstance(use, Columns) else (use,)
    np.testing.assert_allclose(np.hstack([np.outer(p.z[0], p.delta[0]) for p in parts]), C, atol=1e-15)


def _state_adjoint(made, k, t):
    """∂L_k/∂s_t by a complex step on the state after step t, forward only."""
    network, x = made.network.astype(complex), made.batch.x
    states = {"layer0.": type(made.states["layer0."])(*(p.astype(complex) for p in made.states["layer0."]))}
    _, states = bptt.predict(network, x[:t], states=states, engine="reference")
    widths = network.cell.state_widths()
    edges = np.cumsum([0, *widths])
    out = np.zeros(sum(widths))
    for i in range(sum(widths)):
        flat = np.concatenate(states["layer0."], -1)
        flat[0, i] += 1e-30j
        moved = {"layer0.": type(states["layer0."])(*(flat[:, a:b] for a, b in itertools.pairwise(edges)))}
        if k == t:
            y = moved["layer0."].h @ network.params["readout.W"] + network.params["readout.b"]
        else:
            y = bptt.predict(network, x[t:], states=moved, engine="reference")[0][k - t - 1]
        logits = y[0]
        loss = np.log(np.exp(logits).sum()) - logits[made.batch.targets[k - 1, 0]]
        out[i] = loss.imag / 1e-30
    return out


def test_the_update_is_the_summed_gradient_once():
    made = lesson("the cat sat down", learning_rate=0.01)
    moved = made.network.astype(float)
    for name, dW in made.ledger.gradients.items():
        moved.params[name] = moved.params[name] - 0.01 * dW
    after = bptt.evaluate(moved, made.batch, made.loss, made.states)[0].sum()
    assert made.after == pytest.approx(after, rel=1e-13)
    assert made.after < made.ledger.loss


def test_clipping_scales_the_update_and_not_the_ledger():
    plain, clipped = lesson("the cat sat down"), lesson("the cat sat down", clip=0.1)
    total = np.sqrt(sum(norm(g) ** 2 for g in plain.ledger.gradients.values()))
    assert clipped.clipped == pytest.approx(0.1 / total, rel=1e-5)
    np.testing.assert_array_equal(plain.ledger.norms("W_hh"), clipped.ledger.norms("W_hh"))
    moved = clipped.attribution["layer0.W_hh"]
    assert moved.shares.sum() == pytest.approx(1)
    assert moved.moved == pytest.approx(0.1 * clipped.clipped * norm(plain.ledger.gradient("W_hh")))


def test_chances_are_what_the_losses_say():
    made = lesson("one two three")
    np.testing.assert_allclose(-np.log(made.chances), made.ledger.losses, rtol=1e-13)


def test_one_word_is_a_lesson():
    ledger = bptt.explain("stop")
    assert ledger.map("W_hh").shape == (1, 1)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    one, two, three = (bptt.explain("to be or not", seed=seed).loss for seed in (1, 1, 2))
    assert one == two != three


@pytest.mark.parametrize("sentence", ["", "   ", "\n"])
def test_no_word_is_one_clear_line(sentence):
    with pytest.raises(DataError, match="sentence: got no word, expected at least one"):
        bptt.explain(sentence)


def test_too_many_words_are_refused_with_the_way_out():
    with pytest.raises(DataError, match=r"got 300 words, expected at most 256. For a longer text: bptt train FILE."):
        bptt.explain("word " * 300)


@pytest.mark.parametrize(
    ("pair", "name", "message"),
    [
        ((1, 3), "W_hh", "expected t ≤ k. A use can only be reached"),
        ((9, 1), "W_hh", "loss step k: got 9, expected 1 to 4"),
        ((2, 2), "readout.W", "a weight whose uses reach through time"),
    ],
)
def test_terms_that_do_not_exist_are_named(pair, name, message):
    with pytest.raises(InputError, match=message):
        term(lesson("the cat sat down"), *pair, name)

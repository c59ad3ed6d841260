"""How parameters, gates, layers and steps are named; what is not there is named too."""

import numpy as np
import pytest

from bptt.errors import InputError, NotKeptError, UnknownName
from oracles.bridge import recorded
from oracles.problems import make_problem


def ledger_of(cell="lstm", **options):
    keep = {key: options.pop(key) for key in ("keep", "map") if key in options}
    return recorded(make_problem(cell, seed=1, T=4, **options), **keep)


def test_a_name_may_be_given_by_its_end():
    ledger = ledger_of(layers=2)
    assert ledger.name("layer1.W_hh") == "layer1.W_hh"
    assert ledger.name("readout.W") == ledger.name("W") == "readout.W"
    assert ledger_of().name("W_hh") == "layer0.W_hh"
    assert ledger_of(bidirectional=True).name("reverse.W_hh") == "layer0.reverse.W_hh"


def test_a_name_that_fits_several_lists_them():
    with pytest.raises(
        InputError, match=r"parameter: got 'W_hh', which fits layer0.W_hh, layer1.W_hh, expected one of"
    ):
        ledger_of(layers=2).gradient("W_hh")
    with pytest.raises(InputError, match=r"which fits layer0.b, readout.b"):
        ledger_of().gradient("b")


def test_a_name_that_fits_none_suggests_the_nearest():
    with pytest.raises(
        UnknownName, match=r"parameter: got 'W_hx', expected one of .*W_xh, .* Did you mean 'W_[xh]h'\?"
    ):
        ledger_of().gradient("W_hx")
    for name in ("layer7.W_hh", "", "W_hh.q", "readout.W.f", "hh", ".W_hh.", "W_hh.f.f"):
        with pytest.raises(UnknownName):
            ledger_of().gradient(name)


@pytest.mark.parametrize(("cell", "gates"), [("lstm", "ifgo"), ("gru after", "rzn"), ("gru before", "rzn")])
def test_a_gate_is_its_block_of_columns_in_every_number(cell, gates):
    ledger = ledger_of(cell)
    for name in ("W_xh", "W_hh", "layer0.b"):
        C = ledger.contributions(name)
        for at, gate in enumerate(gates):
            one, block = f"{name}.{gate}", C[..., 3 * at : 3 * at + 3]
            assert np.array_equal(ledger.gradient(one), ledger.gradient(name)[..., 3 * at : 3 * at + 3])
            assert np.allclose(ledger.contributions(one), block, rtol=0, atol=1e-15)
            assert np.allclose(ledger.step_gradients(one), block.sum(0), rtol=0, atol=1e-15)
            assert np.allclose(ledger.loss_gradient(one, 3), block[2].sum(0), rtol=0, atol=1e-15)
            norms = np.sqrt(np.square(block).sum(tuple(range(2, block.ndim))))
            assert np.allclose(ledger.map(one), norms, rtol=1e-11, atol=0)
            steps = block.sum(0).reshape(4, -1)
            assert np.allclose(ledger.norms(one), np.linalg.norm(steps, axis=1), rtol=1e-11, atol=0)
            assert np.allclose(ledger.shares(one), steps @ steps.sum(0) / np.square(steps.sum(0)).sum(), rtol=1e-9)
            assert ledger.sequence_norms(one).shape == (4, 2)
        together = sum(np.square(ledger.map(f"{name}.{gate}")) for gate in gates)
        assert np.allclose(np.sqrt(together), ledger.map(name), rtol=1e-11, atol=0)


def test_the_gates_of_an_lstm_are_i_f_g_o():
    """The forget gate's use at step 1 sees c_0: from a zero state it has no gradient there, the others do."""
    ledger = ledger_of(states="zero")
    norms = {gate: ledger.norms(f"layer0.b.{gate}")[0] for gate in "ifgo"}
    assert norms.pop("f") == 0
    assert min(norms.values()) > 0


@pytest.mark.parametrize("step", [0, 5, -1])
def test_steps_out_of_range_are_named(step):
    ledger = ledger_of()
    for ask in (
        lambda: ledger.step_gradient("W_hh", step),
        lambda: ledger.contribution("W_hh", 1, step),
        lambda: ledger.factors("W_hh", step),
        lambda: ledger.loss_factors("W_hh", 1, step),
    ):
        with pytest.raises(InputError, match=f"^step: got {step}, expected 1 to 4$"):
            ask()
    for ask in (
        lambda: ledger.loss_gradient("W_hh", step),
        lambda: ledger.contribution("W_hh", step, 1),
        lambda: ledger.loss_factors("W_hh", step, 1),
    ):
        with pytest.raises(InputError, match=f"^loss step: got {step}, expected 1 to 4$"):
            ask()
    assert ledger.state_gradient(0)[0].shape == (2, 3), "step 0 is the initial state"
    for beyond in (-1, 5):
        with pytest.raises(InputError, match=f"^step: got {beyond}, expected 0 to 4$"):
            ledger.state_gradient(beyond)


@pytest.mark.parametrize(
    ("keep", "ask", "line"),
    [
        (
            "norms",
            lambda l: l.step_gradient("W_hh", 1),
            r"layer0.W_hh: got a ledger that kept 'norms'. .*keep='factors'",
        ),
        ("norms", lambda l: l.shares("W_hh"), "keep='factors'"),
        ("norms", lambda l: l.norms("W_hh.f"), "keep='factors'"),
        ("norms", lambda l: l.state_gradient(1), r"∂J/∂s_t: got norms only. Record with keep='factors' or 'full'."),
        ("norms", lambda l: l.map("W_hh"), r"the map: got a ledger without one. Record with map=True or keep='full'."),
        ("factors", lambda l: l.map("W_hh"), "map=True"),
        ("factors", lambda l: l.lag_profile("W_hh"), "map=True"),
        ("factors", lambda l: l.contribution("W_hh", 1, 1), r"kept 'factors'. Record with keep='full'."),
        ("factors", lambda l: l.loss_gradient("W_hh", 1), "keep='full'"),
        ("factors", lambda l: l.contributions("W_hh"), "keep='full'"),
        ("factors", lambda l: l.loss_factors("W_hh", 1, 1), "keep='full'"),
    ],
)
def test_what_was_not_kept_says_how_to_keep_it(keep, ask, line):
    with pytest.raises(NotKeptError, match=line):
        ask(ledger_of(keep=keep))


def test_a_map_without_factors_has_no_gates():
    with pytest.raises(NotKeptError, match="keep='full'"):
        ledger_of(keep="norms", map=True).map("W_hh.f")


def test_layers_are_named_by_number_or_prefix():
    ledger = ledger_of(layers=2, bidirectional=True)
    assert ledger.layer() == ledger.layer(0) == ledger.layer("layer0") == ledger.layer("layer0.") == "layer0."
    assert ledger.layer(1) == "layer1."
    assert ledger.layer("layer1.reverse") == "layer1.reverse."
    with pytest.raises(UnknownName, match=r"layer: got '2', expected one of"):
        ledger.layer(2)
    with pytest.raises(UnknownName, match=r"layer: got 'layer0.revers', .* Did you mean 'layer0.reverse'\?"):
        ledger.state_norms("layer0.revers")


def test_factors_are_what_a_use_is_made_of():
    ledger = ledger_of("gru before")
    use = ledger.factors("W_xh", 2)
    assert np.allclose(use.z.T @ use.delta, ledger.step_gradient("W_xh", 2), rtol=0, atol=1e-15)
    one = ledger.loss_factors("W_xh", 3, 2)
    assert np.allclose(one.z.T @ one.delta, ledger.contribution("W_xh", 3, 2), rtol=0, atol=1e-15)
    gates, candidate = ledger.factors("W_hh", 2).parts
    both = np.hstack([gates.z.T @ gates.delta, candidate.z.T @ candidate.delta])
    assert np.allclose(both, ledger.step_gradient("W_hh", 2), rtol=0, atol=1e-15)
    assert ledger.factors("layer0.b", 2).z is None


def test_a_ledger_shows_itself_in_one_line():
    text = repr(ledger_of())
    assert text.startswith("Ledger(LSTM, D=2, H=3, O=2, 80 parameters; T=4, loss ")
    assert "residual" in text


def test_names_stand_in_the_order_of_the_network():
    problem = make_problem("lstm both", layers=2, bidirectional=True)
    for keep in ("factors", "norms", "full"):
        ledger = recorded(problem, keep=keep)
        assert ledger.names == list(problem.params)
        assert ledger.T == 4


def test_a_gradient_of_zero_has_shares_coherence_and_residual_zero():
    problem = make_problem("rnn tanh", T=3, states="zero")
    problem.params["readout.W"][:] = 0
    ledger = recorded(problem)
    assert not ledger.gradient("W_hh").any()
    assert not ledger.shares("W_hh").any()
    assert not ledger.cosines("W_hh").any()
    assert ledger.coherence("W_hh") == 0
    assert ledger.residuals["layer0.W_hh"] == 0
    assert not ledger.gains().any()


@pytest.mark.parametrize("name", ["layer0.W_xh", "layer0.b", "readout.W"])
def test_the_residual_sees_a_ledger_that_is_not_whole(name):
    """A use, or a cell of the table, that is lost or altered after recording."""
    for field in ("uses", "loss_uses"):
        ledger = ledger_of()
        assert ledger.residual < 1e-14
        broken = ledger_of()
        getattr(broken, field)[name].delta[..., 2, :, :] *= 1.01
        assert broken.residuals[name] > 1e-4, field


def test_a_residual_measured_at_recording_is_kept_with_the_norms():
    ledger = ledger_of(keep="norms")
    assert set(ledger.residuals) == set(ledger.names)
    assert 0 <= ledger.residual < 1e-14

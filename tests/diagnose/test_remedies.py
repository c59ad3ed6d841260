"""Which remedies are proposed, and what exactly they change."""

import numpy as np
import pytest

from bptt import Batch, Loss, Network, record
from bptt.diagnose import Diagnosis, Finding, History, Reach
from bptt.diagnose.remedies import REMEDIES, equal_size, find_remedy, only_fitting, propose
from bptt.diagnose.rules import RULES
from bptt.errors import UnknownName
from bptt.train import Config

SETTINGS = {
    "kind": "task", "cell": "rnn", "hidden": 64, "layers": 1, "bidirectional": False, "options": {}, "chrono": None,
    "init": "orthogonal", "forget_bias": 1.0, "batch": 32, "steps": 100, "plan": "full", "optimiser": "adam",
    "learning_rate": 5e-3, "clip_norm": 1.0, "clip_value": None, "omega": 0.0, "floss": 0, "inputs": 2, "outputs": 1,
}  # fmt: skip
EMPTY = Diagnosis("a run", {})


def history(norms, clipped):
    norms = np.asarray(norms, float)
    rows = np.zeros((len(norms), 2))
    return History(rows, rows, norms, np.asarray(clipped), 1.0, "full", np.zeros(0), np.zeros(0))


def changes(name, diagnosis=EMPTY, **settings):
    return propose(SETTINGS | settings, diagnosis, [name])[name]


def test_every_remedy_that_a_rule_names_is_there_and_every_other_way_round():
    rules = RULES.values() if isinstance(RULES, dict) else RULES
    named = {name for rule in rules for name in rule.remedies}
    assert named == set(REMEDIES)


def test_what_remedies_change_are_fields_of_a_configuration():
    fields = set(Config.__struct_fields__)
    found = [
        changes("gated-cell"), changes("identity"), changes("orthogonal", init="glorot"), changes("omega"),
        changes("floss"), changes("chrono", cell="lstm"), changes("forget-bias", cell="lstm"),
        changes("larger-K", kind="text"), changes("larger-K", plan="chunked:20"),
        changes("clip", Diagnosis("a run", {}, history=history([3.0, 4.0], [True, True]))),
    ]  # fmt: skip
    assert all(found)
    assert set().union(*found) <= fields
    for change in found:
        Config(cell="rnn" if "options" in change and change.get("cell") != "lstm" else "lstm", **{
            name: value for name, value in change.items() if name != "cell"
        })  # fmt: skip


def test_the_findings_take_turns_and_the_gravest_begins():
    def finding(*remedies):
        return Finding("BP101", "vanishing", "warning", "layer0", "…", remedies=remedies)

    two = Diagnosis("a run", {}, findings=[finding("identity", "omega"), finding("gated-cell", "identity", "floss")])
    assert list(propose(SETTINGS, two)) == ["identity", "gated-cell", "omega", "floss"]
    assert list(propose(SETTINGS, two, most=2)) == ["identity", "gated-cell"]
    assert propose(SETTINGS, EMPTY) == {}
    # what does not apply gives its place to the next
    lstm = Diagnosis("a run", {}, findings=[finding("identity", "gated-cell", "chrono")])
    assert propose(SETTINGS | {"cell": "lstm"}, lstm) == {"chrono": {"chrono": 100}}


def test_an_unknown_remedy_is_refused_with_the_nearest_one():
    with pytest.raises(UnknownName, match="Did you mean 'floss'"):
        propose(SETTINGS, EMPTY, ["flos"])


@pytest.mark.parametrize("hidden", [8, 64, 100])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (1, True)])
def test_the_gated_cell_has_about_as_many_parameters(hidden, layers, bidirectional):
    settings = SETTINGS | {"hidden": hidden, "layers": layers, "bidirectional": bidirectional}
    H = equal_size(settings)

    def count(cell, H):
        network = Network.create(cell, inputs=2, hidden=H, outputs=1, layers=layers, bidirectional=bidirectional)
        return sum(value.size for value in network.params.values())

    wanted, steps = count("rnn", hidden), [abs(count("lstm", n) - count("rnn", hidden)) for n in (H - 1, H, H + 1) if n]
    assert min(steps) == abs(count("lstm", H) - wanted)
    assert changes("gated-cell", **settings)["hidden"] == H


def test_an_irnn_that_becomes_gated_leaves_its_relu_and_its_identity_behind():
    found = changes("gated-cell", options={"nonlinearity": "relu"}, init="identity")
    assert found == {"cell": "lstm", "hidden": 31, "options": {}, "init": "orthogonal", "chrono": 100}
    assert "chrono" not in changes("gated-cell", kind="text")  # a window's length is no lag


def test_an_irnn_gets_a_rate_that_units_without_a_bound_stand():
    assert changes("identity") == {"init": "identity", "options": {"nonlinearity": "relu"}, "learning_rate": 1e-3}
    assert "learning_rate" not in changes("identity", learning_rate=1e-4)
    assert changes("identity", init="identity", options={"nonlinearity": "relu"}) == {}


def test_the_limit_of_the_norm_comes_from_the_norms_that_were_measured():
    norms = np.arange(1, 101.0)
    seldom = Diagnosis("a run", {}, history=history(norms, norms > 90))
    often = Diagnosis("a run", {}, history=history(norms, norms > 10))
    assert changes("clip", seldom, clip_norm=90.0) == {"clip_norm": 50.0}  # the median, to two digits
    assert changes("clip", often, clip_norm=10.0) == {"clip_norm": 90.0}  # the ninth decile
    assert changes("clip", often, clip_norm=None, clip_value=0.1) == {"clip_norm": 90.0, "clip_value": None}
    broken = Diagnosis("a run", {}, history=history([np.nan, np.inf, 2.0], [True] * 3))
    assert changes("clip", broken) == {"clip_norm": 2.0}
    assert changes("clip", EMPTY) == {}


def test_without_a_history_the_limit_is_the_norm_of_the_examined_batch():
    network = Network.create("rnn", inputs=3, hidden=4, outputs=2)
    ledger = record(network, Batch(np.ones((5, 2, 3)), np.zeros((5, 2), int)), Loss())
    norm = np.sqrt(sum(np.square(dW).sum() for dW in ledger.gradients.values()))
    assert changes("clip", Diagnosis("a run", {}, ledger=ledger))["clip_norm"] == pytest.approx(norm, rel=0.05)


class _Reaches:
    scheme = "windowed"

    def __init__(self, steps):
        self.steps = steps

    def horizon(self):
        return Reach(self.steps, self.steps, self.steps)


def test_a_cut_moves_back_to_twice_as_far_or_to_the_horizon_and_ends_in_the_full_plan():
    assert changes("larger-K", plan="chunked:10") == {"plan": "chunked:20"}
    assert changes("larger-K", plan="windowed:30") == {"plan": "windowed:60"}
    assert changes("larger-K", plan="windowed:60") == {"plan": "full"}
    assert changes("larger-K", plan="full") == {}  # a task's steps are its own
    far = Diagnosis("a run", {}, truncation={"layer0.W_hh": [_Reaches(70)], "readout.W": [_Reaches(99)]})
    assert changes("larger-K", far, plan="chunked:10") == {"plan": "chunked:70"}


def test_a_stream_gets_windows_twice_as_long_and_sees_as_much_in_an_update():
    assert changes("larger-K", kind="text", batch=16, steps=64) == {"steps": 128, "batch": 8}


def test_chrono_takes_the_steps_and_only_gates_that_are_not_set_yet():
    assert changes("chrono", cell="gru") == {"chrono": 100}
    assert changes("chrono") == {}
    assert changes("chrono", cell="lstm", chrono=50) == {}
    assert changes("forget-bias", cell="lstm") == {"forget_bias": 3.0}
    assert changes("forget-bias", cell="gru") == {}


def test_every_remedy_says_what_it_does_and_where_it_comes_from():
    for name, remedy in REMEDIES.items():
        assert find_remedy(name) is remedy
        assert remedy.name == name
        assert all((remedy.summary, remedy.source, remedy.needs))


def test_findings_name_no_remedy_that_the_training_has_already():
    named = ("gated-cell", "orthogonal", "identity", "omega")
    found = Diagnosis("a run", {}, findings=[Finding("BP101", "vanishing", "warning", "layer0", "", remedies=named)])
    assert only_fitting(SETTINGS | {"omega": 0.5}, found)[0].remedies == ("gated-cell", "identity")
    assert only_fitting(SETTINGS | {"init": "glorot"}, found)[0].remedies == named

"""The update attributed to the steps: the shares of all uses, of momentum and of decay sum to one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt.engine import record
from bptt.errors import NotKeptError
from bptt.model import Batch, Loss, Network
from bptt.train.attribution import attribute
from bptt.train.clip import Clip
from bptt.train.optimisers import SGD, Adam

OPTIMISERS = {
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: SGD(0.1, 0.9),
    "adam": lambda: Adam(0.01),
    "adamw": lambda: Adam(0.01, weight_decay=0.1),
}
CLIPS = [Clip(), Clip(norm=0.01), Clip(value=1e-3)]


def setup(cell, T, B, seed, keep="factors", **options):
    rng = np.random.default_rng(seed)
    network = Network.create(cell, inputs=3, hidden=4, outputs=3, seed=seed, **options)
    batches = [Batch(rng.integers(0, 3, (T, B)), rng.integers(0, 3, (T, B))) for _ in range(3)]
    return network, [lambda batch=batch: record(network, batch, Loss(), keep=keep) for batch in batches]


def last_update(network, ledgers, optimiser, clip):
    for make in ledgers:
        ledger = make()
        update = optimiser.update(network.params, ledger.gradients, clip)
        if make is not ledgers[-1]:
            update.apply(network.params)
    return update, ledger


@settings(max_examples=25, deadline=None)
@given(
    cell=st.sampled_from(["rnn", "gru", "lstm"]),
    optimiser=st.sampled_from(list(OPTIMISERS)),
    clip=st.sampled_from(CLIPS),
    T=st.integers(1, 6),
    B=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_the_shares_sum_to_one_whatever_the_optimiser_and_the_clip(cell, optimiser, clip, T, B, seed):
    network, ledgers = setup(cell, T, B, seed)
    update, ledger = last_update(network, ledgers, OPTIMISERS[optimiser](), clip)
    for name, part in attribute(update, ledger).items():
        total = part.shares.sum() + part.carried + part.decay
        assert total == pytest.approx(1 if part.moved else 0, abs=1e-9), name


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_share_is_the_projection_of_what_the_use_alone_would_have_moved(optimiser, clip):
    network, ledgers = setup("gru", 5, 2, 1, reset="before")
    update, ledger = last_update(network, ledgers, OPTIMISERS[optimiser](), clip)
    for name, part in attribute(update, ledger).items():
        delta, scale = update[name].delta, update[name].scale
        for t in range(5):
            moved = scale * ledger.step_gradient(name, t + 1)
            assert part.shares[t] == pytest.approx((moved * delta).sum() / (delta**2).sum(), abs=1e-10)
            assert part.norms[t] == pytest.approx(np.linalg.norm(moved), rel=1e-9, abs=1e-15)
        assert part.moved == pytest.approx(np.linalg.norm(delta))


def test_plain_descent_moves_as_the_gradient_says():
    network, ledgers = setup("rnn", 4, 2, 0)
    update, ledger = last_update(network, ledgers, SGD(0.1), Clip(norm=0.01))
    for name, part in attribute(update, ledger).items():
        np.testing.assert_allclose(part.shares, ledger.shares(name), atol=1e-12)
        assert (part.carried, part.decay) == (0, 0)


def test_where_nothing_moved_all_shares_are_zero():
    network, ledgers = setup("rnn", 3, 1, 0)
    ledger = ledgers[0]()
    update = SGD(0.1).update(network.params, {k: np.zeros_like(v) for k, v in ledger.gradients.items()})
    assert all((part.shares == 0).all() and part.moved == 0 for part in attribute(update, ledger).values())


def test_norms_alone_do_not_say_who_moved_the_weights():
    network, ledgers = setup("rnn", 3, 1, 0, keep="norms")
    ledger = ledgers[0]()
    with pytest.raises(NotKeptError, match="factors"):
        attribute(SGD(0.1).update(network.params, ledger.gradients), ledger)

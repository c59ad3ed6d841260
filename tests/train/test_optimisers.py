"""Optimisers and clipping give torch's numbers, and every update splits exactly into its parts."""

import numpy as np
import pytest
import torch

from bptt.errors import InputError, NotFiniteError, ShapeError, UnknownName
from bptt.train.clip import Clip
from bptt.train.optimisers import SGD, Adam, make_optimiser

SHAPES = {"layer0.W": (3, 4), "layer0.b": (4,), "readout.W": (4, 2)}


def fresh(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def torch_run(make, gradients, clip):
    params = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in fresh().items()}
    optimiser = make(list(params.values()))
    for g in gradients:
        for name, parameter in params.items():
            parameter.grad = torch.tensor(g[name])
        if clip.norm is not None:
            torch.nn.utils.clip_grad_norm_(params.values(), clip.norm)
        if clip.value is not None:
            torch.nn.utils.clip_grad_value_(params.values(), clip.value)
        optimiser.step()
    return {name: parameter.detach().numpy() for name, parameter in params.items()}


PAIRS = {
    "sgd": (lambda: SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (lambda: SGD(0.1, 0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "adam": (lambda: Adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam betas": (
        lambda: Adam(0.01, betas=(0.5, 0.9), epsilon=1e-3),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.9), eps=1e-3),
    ),
    "adamw": (lambda: Adam(0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
}
CLIPS = [Clip(), Clip(norm=0.5), Clip(norm=100.0), Clip(value=0.3)]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("pair", PAIRS)
def test_ten_updates_are_those_of_torch(pair, clip):
    ours, theirs = PAIRS[pair]
    gradients = [fresh(seed) for seed in range(1, 11)]
    params, optimiser = fresh(), ours()
    for g in gradients:
        optimiser.update(params, g, clip).apply(params)
    expected = torch_run(theirs, gradients, clip)
    for name in SHAPES:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("pair", PAIRS)
def test_an_update_is_scale_times_gradient_plus_carried_plus_decay(pair, clip):
    params, optimiser = fresh(), PAIRS[pair][0]()
    for seed in range(1, 4):
        g = fresh(seed)
        update = optimiser.update(params, g, clip)
        for name, part in update.parameters.items():
            parts = part.scale * g[name] + part.carried + part.decay
            np.testing.assert_allclose(part.delta, parts, rtol=1e-12, atol=1e-15)
        update.apply(params)


def test_a_split_update_forgets_nothing_even_in_the_first_iteration():
    update = SGD(0.1, 0.9).update(fresh(), fresh(1))
    assert all(np.all(part.carried == 0) for part in update.parameters.values())


def test_the_clip_says_what_it_did():
    g = fresh(1)
    norm = np.sqrt(sum((value**2).sum() for value in g.values()))
    measured = Clip(norm=0.5).measure(g)
    assert measured.clipped
    assert measured.norm == pytest.approx(norm, rel=1e-14)
    assert measured.factor == pytest.approx(0.5 / (norm + 1e-6), rel=1e-14)
    assert not Clip(norm=1e3).measure(g).clipped
    assert not Clip(value=1e3).measure(g).clipped


def test_a_gradient_within_the_limits_is_not_copied():
    g = fresh(1)
    assert Clip(norm=1e3).measure(g).apply(g) is g


def test_the_state_is_plain_arrays_and_carries_the_run_on():
    gradients = [fresh(seed) for seed in range(1, 7)]
    for make, _ in PAIRS.values():
        whole, broken = fresh(), fresh()
        one, first = make(), make()
        for g in gradients:
            one.update(whole, g).apply(whole)
        for g in gradients[:3]:
            first.update(broken, g).apply(broken)
        second = make()
        second.state = {name: np.array(value) for name, value in first.state.items()}
        for g in gradients[3:]:
            second.update(broken, g).apply(broken)
        assert all((whole[name] == broken[name]).all() for name in SHAPES)


@pytest.mark.parametrize("make", [pair[0] for pair in PAIRS.values()])
def test_float32_stays_float32(make):
    params = {name: value.astype(np.float32) for name, value in fresh().items()}
    optimiser = make()
    for clip in CLIPS:
        update = optimiser.update(params, {k: v.astype(np.float32) for k, v in fresh(1).items()}, clip)
        update.apply(params)
        assert all(part.delta.dtype == np.float32 for part in update.parameters.values())
    assert all(value.dtype == np.float32 for name, value in optimiser.state.items() if name != "iteration")


@pytest.mark.parametrize(
    "bad",
    [
        lambda: SGD(0.0),
        lambda: SGD(float("nan")),
        lambda: SGD(0.1, 1.0),
        lambda: Adam(-1.0),
        lambda: Adam(0.1, betas=(0.9, 1.0)),
        lambda: Adam(0.1, weight_decay=-1),
        lambda: Clip(norm=0),
        lambda: Clip(norm=1, value=1),
        lambda: make_optimiser("sgd", 0.1, weight_decay=0.1),
        lambda: make_optimiser("adam", 0.1, momentum=0.9),
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(InputError):
        bad()


def test_an_unknown_optimiser_gets_the_nearest_name():
    with pytest.raises(UnknownName, match="Did you mean 'adam'"):
        make_optimiser("adm", 0.1)


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(NotFiniteError, match="gradient norm"):
        Clip().measure({"w": np.array([1.0, np.inf])})


@pytest.mark.parametrize("optimiser", [SGD(0.1), Adam(0.1)])
def test_a_gradient_that_does_not_fit_is_named_and_moves_nothing(optimiser):
    params = {"w": np.ones((3, 2)), "b": np.ones(2)}
    with pytest.raises(ShapeError, match=r"gradient of b: got shape \(1,\), expected shape \(2,\)"):
        optimiser.update(params, {"w": np.ones((3, 2)), "b": np.ones(1)})
    with pytest.raises(InputError, match="gradients: got b on one side only"):
        optimiser.update(params, {"w": np.ones((3, 2))})
    assert optimiser.state == {}

"""Norms from factors against the matrices themselves, where products cancel, underflow and overflow."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.ledger import reductions
from bptt.ledger.norms import norm, norms, pythagoras, residual, sequence_norms
from bptt.uses import Columns, Elementwise, Matmul
from oracles.bridge import recorded
from oracles.problems import make_problem


@st.composite
def uses(draw):
    """A use of some steps, as one loss or as several see it; Gram products for B = 1, matrices for B = 4."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    T, B, M, N = (draw(st.integers(1, 4)) for _ in range(4))
    lead = draw(st.sampled_from([(), (3,)]))
    scale = 10.0 ** draw(st.sampled_from([0, 0, -170, 160, -250]))
    delta = scale * rng.standard_normal((*lead, T, B, N))
    kind = draw(st.sampled_from(["matmul", "ids", "bias", "peephole", "columns"]))
    if kind == "bias":
        return Elementwise(None, delta), (N,)
    if kind == "peephole":
        return Elementwise(rng.standard_normal((T, B, N)), delta), (N,)
    if kind == "ids":
        return Matmul(rng.integers(0, M, (T, B)), delta), (M, N)
    z = rng.standard_normal((T, B, M))
    if kind == "matmul":
        return Matmul(z, delta), (M, N)
    return Columns((Matmul(z, delta), Matmul(2 * z, scale * rng.standard_normal((*lead, T, B, 2))))), (M, N + 2)


def outer(use, M):
    """dW_tb of every step and sequence, in long double so that nothing under- or overflows: (..., T, B, M, N)."""
    if isinstance(use, Columns):
        return np.concatenate([outer(part, M) for part in use.parts], -1)
    delta = use.delta.astype(np.longdouble)
    if isinstance(use, Elementwise):
        return delta if use.z is None else use.z * delta
    z = np.eye(M)[use.z] if use.z.dtype.kind == "i" else use.z
    return z[..., :, None] * delta[..., None, :]


@given(uses())
def test_norms_are_those_of_the_matrices(case):
    use, shape = case
    alone = outer(use, shape[0])
    axis = (-1, -2) if len(shape) == 2 else -1
    together = np.sqrt(np.square(alone.sum(-1 - len(shape))).sum(axis))
    each = np.sqrt(np.square(alone).sum(axis))
    ours = norms(use, shape)
    assert ours.shape == together.shape
    assert np.abs(ours - together).max() <= 1e-12 * each.sum(-1).max()
    assert np.all(np.abs(ours - together) <= 1e-10 * together)
    assert np.allclose(sequence_norms(use).astype(np.longdouble), each, rtol=1e-13, atol=0)


@pytest.mark.parametrize("left", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("scale", [1.0, 1e-180, 1e160])
def test_sequences_that_cancel_leave_a_norm_with_all_its_digits(left, scale):
    """Two sequences with opposite deltas but for a share of 1e-9: Gram products alone would leave nothing."""
    rng = np.random.default_rng(0)
    z, d = rng.standard_normal((1, 1, 30)), rng.standard_normal((1, 1, 30))
    more = rng.standard_normal((1, 1, 30))
    use = Matmul(np.concatenate([z, z], 1), scale * np.concatenate([d + left * more, -d], 1))
    exact = np.linalg.norm(z) * np.linalg.norm(use.delta.sum(1) / scale) * scale
    assert norms(use, (30, 30)) == pytest.approx([exact], rel=1e-6 if left == 1e-9 else 1e-9)


def test_a_zero_step_has_norm_zero():
    use = Matmul(np.zeros((2, 1, 3)), np.ones((2, 1, 3)))
    assert norms(use, (3, 3)).tolist() == [0, 0]
    assert sequence_norms(use).tolist() == [[0], [0]]


def test_pythagoras_neither_under_nor_overflows():
    assert pythagoras(np.array([3e-300, 4e-300])) == pytest.approx(5e-300, rel=1e-15)
    assert pythagoras(np.array([3e300, 4e300])) == pytest.approx(5e300, rel=1e-15)
    assert pythagoras(np.array([3e-320, 4e-320])) == pytest.approx(5e-320, rel=1e-3)
    assert pythagoras(np.zeros(3)) == 0
    assert norm(np.zeros((2, 0))) == 0
    rows = np.array([[3e200, 4e200], [3, 4], [0, 0], [3e-200, 4e-200]])
    assert pythagoras(rows) == pytest.approx([5e200, 5, 0, 5e-200], rel=1e-15)


def test_residual_is_relative():
    a = np.array([3e-200, 4e-200])
    assert residual(a * 1.5, a) == pytest.approx(0.5)
    assert residual(a, a) == 0
    assert residual(np.zeros(2), np.zeros(2)) == 0
    assert residual(a, np.zeros(2)) == np.inf


@pytest.mark.parametrize("rows", [1, 7, 5000])
def test_a_total_of_many_float32_rows_keeps_its_digits(monkeypatch, rows):
    """All terms near 1, so that a running sum in float32 would lose them: in parts the error stays at rounding."""
    rng = np.random.default_rng(0)
    z, delta = 1 + rng.random((50, 200, 3)), 1 + rng.random((50, 200, 2))
    monkeypatch.setattr(reductions, "PART_ROWS", rows)
    single = z.astype(np.float32), delta.astype(np.float32)
    for use, shape in ((Matmul(*single), (3, 2)), (Elementwise(None, single[1]), (2,))):
        doubled = type(use)(None if use.z is None else use.z.astype(float), use.delta.astype(float))
        ours, exact = reductions.total(use, shape), reductions.total(doubled, shape)
        assert ours.dtype == np.float32
        assert ours == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(
    ("dtype", "z", "delta"), [(np.float32, 1e-12, 1e-15), (np.float32, 1e-8, 1e-15), (np.float64, 1e-80, 1e-100)]
)
def test_a_product_of_small_factors_is_not_zero(dtype, z, delta):
    """Neither z zᵀ nor δ δᵀ underflows here, but their product does."""
    rng = np.random.default_rng(0)
    zs, deltas = rng.standard_normal((3, 2, 5)), rng.standard_normal((3, 2, 6))
    use = Matmul((z * zs).astype(dtype), (delta * deltas).astype(dtype))
    expected = np.linalg.norm(np.swapaxes(zs, 1, 2) @ deltas, axis=(1, 2)) * z * delta
    assert norms(use, (5, 6)) == pytest.approx(expected, rel=1e-5)


def test_what_a_ledger_hands_out_cannot_spoil_it():
    ledger = recorded(make_problem("lstm"))
    with pytest.raises(ValueError, match="read-only"):
        ledger.norms("W_hh")[:] = 7


def test_a_pickled_ledger_forgets_what_it_worked_out():
    ledger = recorded(make_problem("lstm"))
    norms_before = ledger.norms("W_hh")
    again = pickle.loads(pickle.dumps(ledger))
    assert again.memo == {}
    assert np.array_equal(again.norms("W_hh"), norms_before)

"""Singular values of long products, against factors chosen so that they are known, and against 150 digits."""

import numpy as np
import pytest

from bptt.diagnose.graded import begin, multiply, orthonormal, singular_logs
from diagnose.diagnose_cells import rotation


def logs_of(factors):
    """log σ of the product of these matrices, the first of them on the right."""
    product = begin(np.eye(len(factors[0]))[None])
    for A in factors:
        product = multiply(product, A @ product.q)
    return singular_logs(product.logs, product.u)[0]


def known(rng, S, n, spread):
    """Factors A_t = V_t Σ_t V_{t−1}ᵀ, whose product is V_n (Π Σ_t) V_0ᵀ; and log of Π Σ_t, descending."""
    before, factors, total = rotation(rng, S), [], np.zeros(S)
    for _ in range(n):
        after, logs = rotation(rng, S), spread * (np.linspace(0.5, -1, S) + 0.3 * rng.standard_normal(S))
        factors.append((after * np.exp(logs)) @ before.T)
        before, total = after, total + logs
    return factors, -np.sort(-total)


@pytest.mark.parametrize(("S", "n", "spread"), [(1, 5, 1), (5, 3, 1), (20, 50, 1), (64, 100, 0.05), (12, 2000, 1.5)])
def test_products_of_any_length_keep_the_digits_of_every_singular_value(S, n, spread):
    factors, expected = known(np.random.default_rng(S), S, n, spread)
    np.testing.assert_allclose(logs_of(factors), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 8, 30])
def test_random_products_against_many_digits(n):
    mpmath = pytest.importorskip("mpmath")  # comes with torch
    rng = np.random.default_rng(n)
    factors = [rng.standard_normal((5, 5)) for _ in range(n)]
    with mpmath.workdps(150):
        product = mpmath.eye(5)
        for A in factors:
            product = mpmath.matrix(A.tolist()) * product
        expected = sorted((float(mpmath.log(s)) for s in mpmath.svd_r(product, compute_uv=False)), reverse=True)
    np.testing.assert_allclose(logs_of(factors), expected, rtol=1e-12, atol=1e-9)


def test_lost_directions_are_minus_infinity_and_the_others_keep_their_digits():
    rng = np.random.default_rng(0)
    factors = []
    for _ in range(6):
        A = rng.standard_normal((10, 10))
        A[:, rng.permutation(10)[:3]] = 0
        A[2] = A[5]
        factors.append(A)
    whole = np.linalg.svd(np.linalg.multi_dot(factors[::-1]), compute_uv=False)
    found, rank = logs_of(factors), int((whole > 1e-9 * whole[0]).sum())
    np.testing.assert_allclose(found[:rank], np.log(whole[:rank]), rtol=1e-9)
    assert rank < 7
    assert np.isneginf(found[rank:]).all()


@pytest.mark.parametrize(
    ("A", "expected"),
    [
        (np.zeros((4, 4)), [-np.inf] * 4),
        (np.ones((4, 4)), [3 * np.log(4)] + [-np.inf] * 3),
        (np.diag([0.0, 1, 2, 0]), [3 * np.log(2), 0, -np.inf, -np.inf]),
        (1e200 * np.eye(4), [600 * np.log(10)] * 4),
        (np.diag([1e-300, 1, 1e-300, 1e300]), [900 * np.log(10), 0, -900 * np.log(10), -900 * np.log(10)]),
        (np.eye(4, k=1), [0] + [-np.inf] * 3),
    ],
)
def test_singular_and_extreme_factors(A, expected):
    np.testing.assert_allclose(logs_of([A] * 3), expected, rtol=1e-13)


def test_columns_that_depend_on_earlier_ones_do_not_hide_later_ones():
    first = np.diag([1, 1e-3, 1e-6])  # graded, so that the order is fixed
    second = np.array([[1.0, 1, 0], [1, 1, 1], [0, 0, 2]])
    expected = np.linalg.svd(second @ first, compute_uv=False)
    found = logs_of([first, second])
    np.testing.assert_allclose(found[:2], np.log(expected[:2]), rtol=1e-9)
    assert np.isneginf(found[2])


def test_rounding_of_a_dependent_column_does_not_outgrow_a_small_one():
    u, w, small = np.array([0.3, 0.7, -0.2]), np.array([0.1, -0.5, 0.9]), 1e-26
    A = np.stack([u, 3 * u, w], 1)  # the squares of its values with diag(1, 1, small): of 10 u uᵀ + small² w wᵀ
    across = w - (w @ u) / (u @ u) * u
    expected = [0.5 * np.log(10 * u @ u), np.log(small) + 0.5 * np.log(across @ across), -np.inf]
    np.testing.assert_allclose(logs_of([np.diag([1, 1, small]), A]), expected, rtol=1e-12)


def test_many_products_at_once_are_each_their_own():
    rng = np.random.default_rng(2)
    batches = rng.standard_normal((4, 3, 6, 6))
    product = begin(np.broadcast_to(np.eye(6), (3, 6, 6)))
    for A in batches:
        product = multiply(product, A @ product.q)
    np.testing.assert_allclose(product.q.swapaxes(1, 2) @ product.q, [np.eye(6)] * 3, atol=1e-14)
    together = singular_logs(product.logs, product.u)
    for at in range(3):
        np.testing.assert_allclose(together[at], logs_of(batches[:, at]), rtol=1e-12, atol=1e-12)


def test_orthonormal_tells_a_combination_of_earlier_columns():
    q, logs = orthonormal(np.array([[[3.0, 6, 0], [4, 8, 0], [0, 0, 2]]]))
    np.testing.assert_allclose(logs[0], [np.log(5), -np.inf, np.log(2)])
    np.testing.assert_allclose(q[0].T @ q[0], np.eye(3), atol=1e-15)


def test_sparse_factors_whose_columns_depend_on_each_other_anywhere_lose_nothing_else():
    rng = np.random.default_rng(0)
    for _ in range(400):
        n, whole, product = int(rng.integers(2, 7)), None, None
        for _ in range(int(rng.integers(1, 5))):
            factor = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.35)
            whole = factor if whole is None else factor @ whole
            product = begin(np.eye(n)[None]) if product is None else product
            product = multiply(product, (factor @ product.q[0])[None])
        found = np.exp(singular_logs(product.logs, product.u)[0])
        np.testing.assert_allclose(found, np.linalg.svd(whole, compute_uv=False), atol=1e-9)

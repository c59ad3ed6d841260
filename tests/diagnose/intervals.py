"""Intervals for a sampled bias, the one that is used and others: how often each holds the truth over 200 seeds.

python tests/diagnose/intervals.py prints the table that docs/reach.md shows. All of them are given the same draws.
"""

from statistics import NormalDist

import numpy as np

from bptt.diagnose.estimate import interval, squared_norm, student

REPEATS = 300


def roots(low, high):
    return np.sqrt(np.maximum(low, 0)), np.sqrt(np.maximum(high, 0))


def linear(grams, drawn):
    """4 Var⟨Σ D, ε⟩ by stretches, its degrees of freedom, and how far each stretch's mean may lie off: a jackknife."""
    counts, stretch = drawn.counts, drawn.stretch
    along = grams @ drawn.scale
    parts = np.zeros((len(grams), len(counts)))
    for h in np.flatnonzero(counts > 1):
        own = along[:, stretch == h]
        N, n = drawn.sizes[h], counts[h]
        parts[:, h] = 4 * N**2 * (1 - n / N) / n * own.var(1, ddof=1)
    variance, squares = parts.sum(1), np.square(parts).sum(1)
    return variance, np.divide(variance**2, squares, out=np.ones_like(variance), where=squares > 0)


def jackknife(grams, drawn, reaching, confidence):
    """Student's t with the variance of the linear part alone, which is what a jackknife over stretches estimates."""
    estimate, (variance, freedom) = squared_norm(grams, drawn), linear(grams, drawn)
    by = student((1 + confidence) / 2, freedom) * np.sqrt(variance)
    return roots(estimate - by, estimate + by)


def on_log_scale(grams, drawn, reaching, confidence):
    """The same on the scale of log ‖Σ D‖², with the normal quantile."""
    estimate, (variance, _) = np.maximum(squared_norm(grams, drawn), 1e-300), linear(grams, drawn)
    by = np.minimum(NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(variance) / estimate, 50)
    return roots(estimate * np.exp(-by), estimate * np.exp(by))


def replicates(grams, drawn):
    """Estimates of resampled losses, (G, repeats): n − 1 of each stretch, rescaled (Rao & Wu 1988)."""
    rng = np.random.default_rng(0)
    moved = np.zeros((REPEATS, len(drawn.chosen)))
    for h in np.flatnonzero(drawn.counts > 1):
        N, n, own = drawn.sizes[h], drawn.counts[h], np.flatnonzero(drawn.stretch == h)
        times = rng.multinomial(n - 1, np.full(n, 1 / n), REPEATS)
        moved[:, own] = N / n * np.sqrt(1 - n / N) * (n / (n - 1) * times - 1)
    estimate, scale = squared_norm(grams, drawn), drawn.scale
    noise = np.einsum("gij,i,j->g", grams, scale, scale) - estimate
    spread = np.einsum("ri,gij,rj->gr", moved, grams, moved, optimize=True)
    return estimate, estimate[:, None] + 2 * (grams @ scale) @ moved.T + spread - noise[:, None]


def percentile(grams, drawn, reaching, confidence):
    """Bootstrap, percentile."""
    _, found = replicates(grams, drawn)
    return roots(*np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1))


def basic(grams, drawn, reaching, confidence):
    """Bootstrap, basic: reflected at the estimate."""
    estimate, found = replicates(grams, drawn)
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return roots(2 * estimate - high, 2 * estimate - low)


WAYS = {
    "used: t, linear and quadratic": interval,
    "t, linear (jackknife)": jackknife,
    "normal, log scale": on_log_scale,
    "bootstrap, percentile": percentile,
    "bootstrap, basic": basic,
}


def tables(cases, coverage, case, seeds=200):
    """Lines of two tables in Markdown: the interval that is used, case by case, and all of them over all cases."""
    yield "| network | losses | horizon | b(K), worst K | b(K), mean | horizon held | width / b |"
    for name in cases:
        held, reached, known, width = coverage(name, seeds=seeds)
        losses = len(case(name)[0])
        yield f"| {name} | {losses} | {known} | {held.min()} | {held.mean():.0f} | {reached} | {width:.1f} |"
    yield "| interval | b(K), worst of all | b(K), mean | horizon, worst | width / b |"
    for way, made in WAYS.items():
        found = [coverage(name, seeds=seeds, interval=made) for name in cases]
        worst, mean = min(held.min() for held, *_ in found), np.mean([held.mean() for held, *_ in found])
        reached, width = min(one[1] for one in found), np.mean([one[3] for one in found])
        yield f"| {way} | {worst} | {mean:.0f} | {reached} | {width:.1f} |"


if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent))
    from test_sampled import CASES, case, coverage

    print("\n".join(tables(CASES, coverage, case)))  # noqa: T201

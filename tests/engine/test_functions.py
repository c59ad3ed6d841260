"""exp, σ and tanh of the compiled engine: how far they are from the true value, in units in the last place.

The true values have 40 digits and come from Python's `decimal`. Of values below the smallest normal number, which the
kernels take for 0, only that they are small is asked for.
"""

from decimal import Context, Decimal

import numpy as np
import pytest

from bptt.engine.compiled import functions

DIGITS = Context(prec=40, Emin=-9_999_999, Emax=9_999_999)
DTYPES = (np.float32, np.float64)
UNITS = 3  # worst of 7 million arguments in float32 and in float64: σ 2.5 and 2.5, tanh 1.4 and 1.5, exp 1.0 and 1.7


def e_to(x):
    return DIGITS.exp(Decimal(x))


def true_sigmoid(x):
    return DIGITS.divide(1, DIGITS.add(1, e_to(-x)))


def true_tanh(x):
    """(e²ˣ − 1) / (e²ˣ + 1), and x − x³/3 where 40 digits of the first would cancel."""
    if abs(x) < 1e-9:
        exact = Decimal(x)
        return DIGITS.subtract(exact, DIGITS.divide(DIGITS.power(exact, 3), 3))
    square = DIGITS.exp(DIGITS.multiply(2, Decimal(x)))
    return DIGITS.divide(DIGITS.subtract(square, 1), DIGITS.add(square, 1))


def call(name, x):
    out = x.copy()
    getattr(functions, name)(out, 0, len(out))
    return out


def arguments(dtype, low, high, count=3000):
    """Of every size, near the joints of the approximations, and where they saturate."""
    rng, tiny = np.random.default_rng(0), np.finfo(dtype).tiny
    sizes = np.exp(rng.uniform(np.log(tiny), np.log(max(-low, high)), count // 3)) * rng.choice([-1, 1], count // 3)
    joints = [n * np.log(2) / 2 for n in range(-60, 60)] + [-0.625, 0.625, -1, 1, -9, 9, -18, 18, low, high, 0.0]
    near = np.array(joints, dtype)
    x = np.concatenate([sizes, rng.uniform(-20, 20, count // 3), rng.uniform(low, high, count // 3)]).astype(dtype)
    x = np.concatenate([x, near, np.nextafter(near, dtype(-np.inf)), np.nextafter(near, dtype(np.inf))])
    return x[(x >= low) & (x <= high)]


def units_off(found, true, dtype):
    """|found − true| in units in the last place of the true value, element by element."""
    off = []
    for ours, theirs in zip(found, true, strict=True):
        difference = abs(DIGITS.subtract(Decimal(float(ours)), theirs))
        if abs(theirs) < Decimal(float(np.finfo(dtype).tiny)):
            assert difference <= Decimal(float(np.finfo(dtype).tiny)), (ours, theirs)
            continue
        off.append(float(DIGITS.divide(difference, Decimal(float(np.spacing(abs(dtype(float(theirs)))))))))
    return np.array(off)


RANGES = {
    ("sigmoid", np.float32): (-200, 200),
    ("sigmoid", np.float64): (-2000, 2000),
    ("tanh", np.float32): (-200, 200),
    ("tanh", np.float64): (-2000, 2000),
    ("exponentials", np.float32): (-87, 88),
    ("exponentials", np.float64): (-708, 709),
}
TRUE = {"sigmoid": true_sigmoid, "tanh": true_tanh, "exponentials": e_to}


@pytest.mark.parametrize(("name", "dtype"), RANGES)
def test_a_function_is_right_to_three_units_in_the_last_place(name, dtype):
    x = arguments(dtype, *RANGES[name, dtype])
    off = units_off(call(name, x), [TRUE[name](float(value)) for value in x], dtype)
    assert off.max() <= UNITS


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "exponentials"])
def test_no_number_stays_no_number(name, dtype):
    x = np.zeros(70, dtype)
    x[::3] = np.nan
    assert np.array_equal(np.isnan(call(name, x)), np.isnan(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinity_saturates(dtype):
    x = np.array([-np.inf, np.inf], dtype)
    assert call("tanh", x).tolist() == [-1, 1]
    low, high = call("sigmoid", x)
    assert 0 <= low <= np.finfo(dtype).tiny
    assert high == 1
    smallest = call("exponentials", x[:1])[0]
    assert 0 <= smallest <= 2 * np.finfo(dtype).tiny


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_stay_where_derivatives_are_not_negative(dtype):
    """1 − tanh² and σ (1 − σ) are what a gradient is multiplied with."""
    x = arguments(dtype, -50, 50, 30_000)
    y, s = call("tanh", x), call("sigmoid", x)
    assert (np.abs(y) <= 1).all()
    assert ((s >= 0) & (s <= 1)).all()
    assert np.array_equal(np.sign(y), np.sign(x)), "not even the smallest argument loses its sign"
    assert np.array_equal(call("tanh", -x), -y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@pytest.mark.parametrize("n", [0, 1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 65])
def test_only_the_part_that_is_asked_for_changes_and_every_element_alike(name, dtype, n):
    """Whatever of an array fills whole vectors and what is left over, the numbers are those of one element alone."""
    x = np.linspace(-3, 3, 80).astype(dtype)
    for at in (0, 1, 5):
        out = x.copy()
        getattr(functions, name)(out, at, n)
        alone = [call(name, x[i : i + 1])[0] for i in range(at, at + n)]
        assert np.array_equal(out[at : at + n], np.array(alone, dtype))
        assert np.array_equal(out[:at], x[:at])
        assert np.array_equal(out[at + n :], x[at + n :])

"""Streams: every window continues the one before it, in every track."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.data import Series, Stream, split
from bptt.errors import DataError, NotFiniteError, ShapeError

SIZES = {"batch": st.integers(1, 5), "steps": st.integers(1, 6), "extra": st.integers(0, 70)}


def joined(stream, what):
    return np.concatenate([getattr(stream.window(i), what) for i in range(len(stream))])


@given(**SIZES)
def test_windows_of_a_track_put_together_are_one_unbroken_piece(batch, steps, extra):
    values = np.arange(batch * steps + 1 + extra, dtype=np.int32)
    stream = Stream(values, values, batch=batch, steps=steps)
    x = joined(stream, "x")
    assert x.dtype == np.int32
    assert x.shape == (len(stream) * steps, batch)
    assert (np.diff(x, axis=0) == 1).all()
    # The tracks together are the beginning of the sequence, and less than one window per track is left out.
    np.testing.assert_array_equal(x.T.ravel(), values[: x.size])
    assert 1 <= len(values) - x.size <= batch * steps
    np.testing.assert_array_equal(joined(stream, "targets"), x + 1)


@given(**SIZES, width=st.integers(1, 3))
def test_floats_are_time_major_and_targets_are_the_next_row(batch, steps, extra, width):
    n = batch * steps + 1 + extra
    values = np.arange(n * width, dtype=float).reshape(n, width)
    stream = Stream(values, -values[:, :1], batch=batch, steps=steps)
    window = stream.window(0)
    assert window.x.shape == (steps, batch, width)
    assert window.targets.shape == (steps, batch, 1)
    np.testing.assert_array_equal(joined(stream, "targets"), -(joined(stream, "x")[:, :, :1] + width))


def test_a_single_column_gets_a_feature_axis():
    window = Stream(np.linspace(0, 1, 9), batch=2, steps=4).window(0)
    assert window.x.shape == window.targets.shape == (4, 2, 1)


@given(position=st.integers(0, 50))
def test_a_position_alone_says_which_window_and_whether_the_state_restarts(position):
    stream = Stream(np.arange(26), batch=2, steps=4)
    assert len(stream) == 3
    again = stream.window(position)
    np.testing.assert_array_equal(again.x, stream.window(position % 3).x)
    assert stream.starts_over(position) == (again.x[0, 0] == 0)


def test_writing_into_a_window_leaves_the_source_alone():
    values = np.arange(10)
    window = Stream(values, batch=1, steps=3).window(0)
    window.x[:] = window.targets[:] = 99
    np.testing.assert_array_equal(values, np.arange(10))


def test_too_short_says_how_many_there_are_and_how_many_it_takes():
    with pytest.raises(DataError) as caught:
        Stream(np.arange(64), batch=4, steps=16)
    assert str(caught.value) == (
        "sequence: got 64 units, expected at least 65 units = batch 4 × steps 16 + 1. "
        "Use a longer text or series, a smaller batch, or fewer steps."
    )
    assert len(Stream(np.arange(65), batch=4, steps=16)) == 1
    with pytest.raises(DataError, match="got 0 rows"):
        Stream(np.empty((0, 2)), batch=1, steps=1)


def test_what_a_stream_refuses():
    values = np.arange(10.0)
    with pytest.raises(ShapeError, match=r"targets: got length 9, expected that of the inputs, 10\. Do not shift"):
        Stream(values, values[1:], batch=1, steps=2)
    with pytest.raises(ShapeError, match=r"inputs: got shape \(2, 5, 1\) of float64"):
        Stream(values.reshape(2, 5, 1), batch=1, steps=2)
    with pytest.raises(ShapeError, match=r"\(10, 0\)"):
        Stream(np.empty((10, 0)), batch=1, steps=2)
    with pytest.raises(ShapeError, match="of bool"):
        Stream(values > 3, batch=1, steps=2)
    with pytest.raises(NotFiniteError, match="targets at step 4"):
        Stream(values, np.where(values == 3, np.nan, values), batch=1, steps=2)
    for wrong in (0, -1, 1.5, "2"):
        with pytest.raises(DataError, match="batch: got"):
            Stream(values, batch=wrong, steps=2)
        with pytest.raises(DataError, match="steps: got"):
            Stream(values, batch=1, steps=wrong)
    with pytest.raises(DataError, match="position: got -1"):
        Stream(values, batch=1, steps=2).window(-1)


@given(n=st.integers(0, 60), validation=st.floats(0, 0.999), steps=st.integers(1, 8))
def test_the_parts_are_the_sequence_and_each_holds_a_window(n, validation, steps):
    values = np.arange(n)
    if min(n * (1 - validation), n * validation if validation else n) < steps:  # surely no room in one of the parts
        with pytest.raises(DataError, match=rf"at least {steps + 1} = steps {steps} \+ 1"):
            split(values, validation, steps=steps)
        return
    try:
        train, tail = split(values, validation, steps=steps)
    except DataError:
        assert min(n * (1 - validation), n * validation or n) < steps + 2  # only where it is a matter of rounding
        return
    np.testing.assert_array_equal(np.concatenate([train, tail]), values)
    assert len(train) > steps
    assert len(tail) > steps or validation == 0 == len(tail)
    assert abs(len(tail) - validation * n) <= 1
    assert len(Stream(train, batch=1, steps=steps)) >= 1


@given(n=st.integers(2, 200), percent=st.integers(1, 99))
def test_the_scale_never_sees_a_row_of_the_validation_part(n, percent):
    """`split` and `standardised` cut at the same row, whatever the rounding of 1 - v."""
    values = np.arange(float(n))[:, None]
    try:
        train, _ = split(values, percent / 100)
    except DataError:
        return
    _, mean, _ = Series("s", ("a",), values).standardised(1 - percent / 100)
    assert mean[0] == pytest.approx(train.mean())


def test_a_share_is_not_cut_short_by_rounding():
    train, _ = split(np.arange(20), 0.9)  # 20 * (1 - 0.9) is 1.9999999999999996
    assert train.tolist() == [0, 1]


def test_shares_that_make_no_sense():
    for wrong in (-0.1, 1, float("nan")):
        with pytest.raises(DataError, match="validation: got"):
            split(np.arange(10), wrong)
    with pytest.raises(DataError, match=r"validation part: got 2 of 20 units, expected at least 5 = steps 4 \+ 1"):
        split(np.arange(20), 0.1, steps=4)

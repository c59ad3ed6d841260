"""Series: the numbers of the file, and one line about a file that has something else in it."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bptt.data import Series, read_series
from bptt.errors import BpttError, DamagedFile, DataError, FileError, UnknownName


def written(folder, content, name="a.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "x,y\n1,2.5\n-3,4e2\n",
        "# x,y\n1,2.5\n-3,4e2\n",  # as np.savetxt writes it
        "1,2.5\n-3,4e2",
        "x;y\r\n1;2,5\r\n-3;4e2\r\n\r\n",  # semicolons: the comma is a decimal point
        "1;2,5\n-3;400\n",
        "x\ty\n1\t2.5\n-3\t400.\n",
        '\ufeff\n"x" , "y"\n 1 , 2.5\n"-3", "+400"\n\n',
        "x,y\r1,2.5\r-3,400\r",
    ],
)
def test_every_dialect_gives_the_same_numbers(tmp_path, content):
    series = read_series(written(tmp_path, content))
    np.testing.assert_array_equal(series.values, [[1, 2.5], [-3, 400]])
    assert series.values.dtype == np.float64
    assert series.columns == (("x", "y") if "x" in content else ("1", "2"))
    assert series.name == "a.csv"


def test_decimal_commas_are_not_taken_for_delimiters(tmp_path):
    series = read_series(written(tmp_path, "1,5;2,5\n3,0;4,5\n"))  # three cells a line, by commas
    np.testing.assert_array_equal(series.values, [[1.5, 2.5], [3, 4.5]])


def test_one_column(tmp_path):
    assert read_series(written(tmp_path, "1.5\n2.5\n")).values.shape == (2, 1)
    assert read_series(written(tmp_path, "height\n1\n2\n")).columns == ("height",)


@pytest.mark.parametrize("columns", [["c", "b"], [3, 2], ["3", "b"]])
def test_columns_by_name_or_by_number_counted_from_one(tmp_path, columns):
    series = read_series(written(tmp_path, "day,b,c\nmon,1,2\ntue,3,4\n"), columns=columns)
    np.testing.assert_array_equal(series.values, [[2, 1], [4, 3]])
    assert series.columns == ("c", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "day,height,tide\n2020-01-01,1,2\n2020-01-02,3,4\n",
            "'a.csv', row 2, column 1 'day': got '2020-01-01', expected a number. "
            "Choose the columns that are numbers, here: columns=['height', 'tide'].",
        ),
        (
            "2020-01-01,1\n2020-01-02,3\n",
            "row 1, column 1: got '2020-01-01', expected a number. Choose the columns that ",
        ),
        ("2020-01-01,1\n2020-01-02,3\n", "here: columns=[2]."),
        ("a,b\n1,2\n\n3,4\n", "'a.csv', row 3: got a blank line, expected numbers. Fill the gap or leave out the row."),
        ("a,b\n1,2\n3,\n", "row 3, column 2 'b': got an empty cell, expected a number. Fill the gap"),
        ("1\n\n3\n", "row 2: got a blank line"),
        ("a,b\n1,2\n3,n/a\n", "row 3, column 2 'b': got 'n/a', expected a number. Correct the cell"),
        ("a,b\n1,2\n3,NaN\n", "row 3, column 2 'b': got 'NaN', expected a finite number"),
        ("a,b\n1,2\n-inf,4\n", "row 3, column 1 'a': got '-inf', expected a finite number"),
        ("1,2\n3,1e999\n", "row 2, column 2: got '1e999', expected a finite number"),
        ("1,2\n3,1_000\n", "row 2, column 2: got '1_000', expected a number"),
        ("x,1\n3,y\n", "row 1, column 1: got 'x', expected a number. If this is a header, give every column a name"),
        ("a,b\n1,2\n3\n", "'a.csv', row 3: got 1 cell, expected 2, as in row 1"),
        ("a,b\n1,2\n3,4,5\n", "row 3: got 3 cells, expected 2, as in row 1"),
        ("", "got an empty file"),
        ("\n \n\n", "got only blank lines"),
        ("a,b\n", "series 'a.csv': got 0 rows of numbers, expected at least 2"),
        ("a,b\n1,2\n", "got 1 row of numbers, expected at least 2"),
        (b"a,b\n1,\xff\n", "byte 0xff at byte offset 6"),
        (b"PK\x03\x04\x00", "a binary file"),
        ("1,2\n3," + "9" * 200_000, "'a.csv', row 2: got field larger than field limit"),
        ("apple\npear\nplum\n", "row 2, column 1 'apple': got 'pear'"),
        ("a,b\n1,2\n3," + "long " * 50 + "\n", "long…', expected"),
    ],
)
def test_what_is_said_about_a_file_that_is_no_series(tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        read_series(written(tmp_path, content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_are_not_there(tmp_path):
    path = written(tmp_path, "open,close,close\n1,2,3\n4,5,6\n")
    with pytest.raises(UnknownName, match="Did you mean 'open'"):
        read_series(path, columns="opne")
    for wrong in (0, 4, "9", -1):
        with pytest.raises((DataError, UnknownName), match=r"expected (a number from 1 to 3|one of)"):
            read_series(path, columns=[wrong])
    with pytest.raises(DataError, match=r"got 2 of that name\. Choose it by number"):
        read_series(path, columns="close")
    with pytest.raises(DataError, match="columns: got none"):
        read_series(path, columns=[])


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileError, match="got no such file"):
        read_series(tmp_path / "b.csv")
    with pytest.raises(FileError, match="got no such file"):
        read_series(tmp_path / "b.npy")
    (tmp_path / "c.csv").mkdir()
    with pytest.raises(FileError, match="got a folder"):
        read_series(tmp_path / "c.csv")
    with pytest.raises(DataError, match=r"got the ending '\.xlsx', expected \.csv, \.tsv or \.npy"):
        read_series(tmp_path / "b.xlsx")


@pytest.mark.parametrize(
    "array", [np.arange(4), np.arange(8.0).reshape(4, 2), np.asfortranarray(np.eye(3, dtype="f4"))]
)
def test_arrays_come_back_as_columns(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    series = read_series(tmp_path / "a.npy")
    np.testing.assert_array_equal(series.values, array.reshape(len(array), -1))
    assert series.values.dtype == np.float64
    np.testing.assert_array_equal(read_series(tmp_path / "a.npy", columns=1).values, series.values[:, :1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1, None]), "got Python objects, expected numbers. Save it as numbers"),
        (np.array(["a", "b"]), "got dtype <U1, expected real numbers"),
        (np.array([1j, 2]), "got dtype complex128"),
        (np.zeros(3, [("a", float)]), "expected real numbers"),
        (np.float64(3), "got shape (), expected (N,) or (N, D)"),
        (np.zeros((2, 2, 2)), "got shape (2, 2, 2)"),
        (np.zeros(0), "got 0 rows"),
        (np.zeros((0, 3)), "got 0 rows"),
        (np.zeros((3, 0)), "got 0 rows"),
        (np.zeros(1), "got 1 row"),
        (np.array([[1, 2], [3, np.nan]]), "'a.npy', row 2, column 2: got nan, expected a finite number"),
        (np.array([1, -np.inf]), "row 2, column 1: got -inf"),
    ],
)
def test_arrays_that_are_no_series(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as caught:
        read_series(tmp_path / "a.npy")
    assert message in str(caught.value)


def values_or_error(path):
    try:
        return read_series(path).values, None
    except BpttError as error:
        return None, error


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(np.arange(9.0))[:-3], "got 69 bytes of values, expected 72, as its header says"),
        (saved(np.arange(9.0)) + b"x", "got 73 bytes"),
        (saved(np.arange(9.0))[:30], "a damaged header"),
        (saved(np.arange(9.0)).replace(b"(9,)", b"(9e)"), "a damaged header"),
        (saved(np.arange(9.0)).replace(b"(9,), }        ", b"(9999999999,), }"), "as its header says"),
        (b"hello there, this is text", "without the mark of a .npy file"),
        (b"", "an empty file"),
    ],
)
def test_damaged_arrays(tmp_path, content, message):
    with pytest.raises(DamagedFile) as caught:
        read_series(written(tmp_path, content, "a.npy"))
    assert message in str(caught.value)


@given(position=st.integers(0, 127), byte=st.integers(0, 255))
def test_a_changed_byte_of_the_header_never_escapes_as_a_traceback(tmp_path_factory, position, byte):
    content = bytearray(saved(np.arange(9.0)))
    content[position] = byte
    path = written(tmp_path_factory.getbasetemp(), bytes(content), "fuzz.npy")
    values, error = values_or_error(path)
    assert values.size == 9 if error is None else "\n" not in str(error)


@given(st.text(st.sampled_from('0123.;,\t\n\r" -eEnaif\x0b\u2028'), max_size=40))
def test_any_text_is_a_series_or_one_clear_line(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp(), content, "fuzz.csv")
    values, error = values_or_error(path)
    if error is None:
        assert np.isfinite(values).all()
        assert len(values) >= 2
    else:
        assert "\n" not in str(error)


@given(arrays(float, (7, 2), elements=st.floats(-1e3, 1e3).map(lambda value: round(value, 3))), st.floats(0.3, 1))
def test_standardised_values_have_mean_0_and_std_1_over_the_training_part(values, fraction):
    scaled, mean, std = Series("s", ("a", "b"), values).standardised(fraction)
    train = int(7 * fraction + 1e-9)
    np.testing.assert_allclose(scaled * std + mean, values, atol=1e-9)
    for column in range(2):
        if len(set(values[:train, column])) == 1:
            assert std[column] == 1
            assert (scaled[:train, column] == 0).all()
        else:
            assert scaled[:train, column].mean() == pytest.approx(0, abs=1e-9)
            assert scaled[:train, column].std() == pytest.approx(1)


def test_the_future_does_not_touch_the_scale():
    values = np.array([[1.0], [2.0], [3.0], [4.0]])
    later = values.copy()
    later[3] = 1e6
    first, second = (Series("s", ("a",), v).standardised(0.75) for v in (values, later))
    np.testing.assert_array_equal(first[0][:3], second[0][:3])
    assert (first[1], first[2]) == (second[1], second[2])


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e300, 5e-324])
def test_a_constant_column_becomes_zero_without_a_warning(constant):
    scaled, mean, std = Series("s", ("a",), np.full((7, 1), constant)).standardised(1)
    assert (scaled == 0).all()
    assert (mean[0], std[0]) == (constant, 1)


def test_huge_values_do_not_overflow_the_variance():
    scaled, _, std = Series("s", ("a",), np.array([[-1e200], [1e200]])).standardised(1)
    assert scaled.T.tolist() == [[-1, 1]]
    assert std[0] == pytest.approx(1e200)


def test_training_parts_that_make_no_sense():
    series = Series("s", ("a",), np.arange(10.0)[:, None])
    for wrong in (0, -1, 1.1, float("nan")):
        with pytest.raises(DataError, match="train_fraction: got"):
            series.standardised(wrong)
    with pytest.raises(DataError, match="training part: got 1 of 10 rows, expected at least 2 rows"):
        series.standardised(0.19)

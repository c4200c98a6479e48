import math

import numpy as np
import pytest

from bge_export.parity.figures import cosine_figure, difference_figure, escaped, least_figure
from bge_export.parity.measure.metrics import (
    agreements,
    cosines,
    finite_rows,
    max_differences,
    nearest_rows,
    norm_errors,
    norms,
    seen_pooling,
)


def rows(*values):
    return np.array(values, dtype=np.float32)


def test_cosine_is_of_each_row():
    got = cosines(rows([1, 0], [0, 2], [1, 1], [-3, 0]), rows([1, 0], [3, 0], [1, 0], [1, 0]))
    np.testing.assert_allclose(got, [1, 0, np.sqrt(0.5), -1], atol=1e-15)
    assert got.dtype == np.float64


@pytest.mark.parametrize("bad", [[np.nan, 1], [np.inf, 1], [-np.inf, 0], [0, 0]])
def test_a_row_without_direction_has_no_cosine(bad):
    assert np.isnan(cosines(rows(bad, [1, 0]), rows([1, 0], [1, 0]))).tolist() == [True, False]
    assert np.isnan(cosines(rows([1, 0]), rows(bad))).all()


def test_two_bad_rows_are_not_equal():
    assert np.isnan(cosines(rows([np.nan, 1]), rows([np.nan, 1]))).all()
    assert np.isnan(cosines(rows([0, 0]), rows([0, 0]))).all()
    assert np.isnan(max_differences(rows([np.inf, 1]), rows([np.inf, 1]))).all()


def test_where_the_reference_is_zero_nothing_but_zero_is_right():
    given, wanted = rows([0, 0], [0, 0], [1e-44, 0], [np.nan, 0], [3, 0]), rows([0, 0], [1, 0], [0, 0], [0, 0], [1, 0])
    np.testing.assert_array_equal(agreements(given, wanted), [1, np.nan, np.nan, np.nan, 1])
    np.testing.assert_array_equal(norm_errors(given, wanted), [0, 1, np.nan, np.nan, 2])

    near = nearest_rows(given, wanted)
    assert near.index.tolist()[0] == 0
    assert near.cosine[0] == 1
    assert near.index.tolist()[2:4] == [1, -1]


def test_the_cosine_is_not_clamped_and_sees_what_float32_does_not():
    one = rows([1, 1e-4])
    assert 0 < 1 - cosines(one, rows([1, 0]))[0] < 1e-7


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30, 3e38])
def test_extreme_but_finite_rows_keep_their_numbers(scale):
    row = rows([scale, 0])
    assert norms(row)[0] == float(row[0, 0])
    assert cosines(row, rows([1, 0]))[0] == 1
    assert finite_rows(row).all()


def test_norms_and_differences():
    assert norms(rows([3, 4], [0, 0])).tolist() == [5, 0]
    assert np.isnan(norms(rows([np.inf, 1]))).all()
    assert max_differences(rows([1, 5], [0, 0]), rows([1, 2], [0, -7])).tolist() == [3, 7]
    assert finite_rows(rows([1, 2], [np.nan, 1])).tolist() == [True, False]


def test_nearest_row():
    reference = rows([1, 0], [0, 1], [-1, 0])
    near = nearest_rows(rows([0, 2], [1, 0.1], [np.nan, 0]), reference)
    assert near.index.tolist() == [1, 0, -1]
    assert near.cosine[0] == 1
    assert np.isnan(near.cosine[2])


def test_nearest_row_is_its_own_where_several_are():
    assert nearest_rows(rows([1, 0], [1, 0], [1, 0]), rows([1, 0], [1, 0], [1, 0])).index.tolist() == [0, 1, 2]


def test_nearest_row_over_more_rows_than_a_chunk():
    reference = np.random.default_rng(1).standard_normal((2500, 4)).astype(np.float32)
    assert nearest_rows(reference, reference).index.tolist() == list(range(2500))
    assert nearest_rows(reference[::-1], reference).index.tolist() == list(range(2499, -1, -1))


def test_pooling_is_recognised():
    references = {"cls": rows([1, 0], [1, 0], [1, 0]), "mean": rows([0, 1], [0, 1], [0, 1])}
    assert seen_pooling(rows([0, 1], [0, 2], [np.nan, 0]), references, "cls") == "mean"
    assert seen_pooling(rows([1, 0], [1, 0], [0, 1]), references, "cls") == "cls"
    assert seen_pooling(rows([1, 1], [1, 1], [1, 1]), references, "cls") is None
    # An embedding that two poolings miss by nearly as much says nothing of its pooling.
    near = {"cls": rows([1, 0.2]), "last": rows([1, 0.19])}
    assert seen_pooling(rows([1, 0]), near, "cls") == "cls"
    assert seen_pooling(rows([1, 0.18]), {"cls": rows([1, 0.3]), "last": rows([1, 0.19])}, "cls") == "last"
    assert seen_pooling(rows([0, 0], [0, 0], [0, 0]), references, "cls") is None


def test_the_declared_pooling_wins_a_tie():
    same = rows([1, 0])
    assert seen_pooling(same, {"cls": same, "mean": same, "last": same}, "mean") == "mean"


def test_no_rows_give_no_numbers():
    none = np.zeros((0, 4), dtype=np.float32)
    assert len(cosines(none, none)) == len(norms(none)) == len(max_differences(none, none)) == 0
    assert len(nearest_rows(none, none).index) == 0
    assert seen_pooling(none, {"cls": none}, "cls") is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.99999973, "0.99999973"),
        (0.999999999, "0.99999999900"),
        (1 - 2**-53, "0.99999999999999990"),
        (0.98765, "0.9876"),
        (0.5, "0.5000"),
        (-0.25, "-0.2500"),
        (1.0, "1"),
        (1.0000000000000002, "1"),
        (None, "none"),
        (float("nan"), "none"),
    ],
)
def test_a_cosine_is_never_rounded_up(value, shown):
    assert cosine_figure(value) == shown
    assert shown == "none" or float(shown) <= value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1.2341e-7, "1.24e-7"),
        (9.999e-6, "1.00e-5"),
        (0.01231, "0.0124"),
        (123456.0, "1.24e+5"),
        (None, "none"),
    ],
)
def test_a_difference_is_never_rounded_down(value, shown):
    assert difference_figure(value) == shown
    assert shown == "none" or float(shown) >= value


def test_texts_are_shown_on_one_line():
    assert escaped("a\nb\x1b[31m\u202e\t中🇩🇪") == "a\\nb\\x1b[31m\\u202e\\t中🇩🇪"


@pytest.mark.parametrize("value", [1e300, -1e300, 5e-324, -5e-324, 1.7e308, -2.0, 1e25])
def test_every_finite_figure_is_written(value: float) -> None:
    """A report of anyone may hold any number, and the gate says what it refuses."""
    for figure in (cosine_figure, difference_figure, least_figure):
        assert math.isfinite(float(figure(value)))

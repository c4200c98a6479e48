import numpy as np
import pytest

from bge_export.bench.ratios import geometric_mean, paired, spread


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    one = spread(np.array([5.0, 1.0, 2.0, 4.0, 3.0]))
    assert (one.low, one.median, one.high) == (2.0, 3.0, 4.0)


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was ten times slower for two rounds: both files were, and the ratio is 2 all the same.
    base = np.array([1.0, 10.0, 10.0, 1.0, 1.0])
    assert paired(2 * base, base) == spread(np.full(5, 2.0))
    # Two medians would say 1 here, where the file is slower in most rounds.
    assert paired(np.array([2.0, 3.0, 1.0]), np.array([1.0, 2.0, 3.0])).median == 1.5


def test_twice_as_slow_and_twice_as_fast_cancel_out() -> None:
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert geometric_mean([1.0, 2.0, 4.0]) == pytest.approx(2.0)

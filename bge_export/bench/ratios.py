"""Medians and quartiles of times and of time ratios; a ratio is taken within a round, then over the rounds."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bge_export.bench.report import Spread


def spread(values: NDArray[np.float64]) -> Spread:
    """Return the median and quartiles of [rounds] values."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(median=float(median), low=float(low), high=float(high))


def paired(times: NDArray[np.float64], base: NDArray[np.float64]) -> Spread:
    """Return the median and quartiles of the per-round ratios of two [rounds] arrays.

    A temporary slowdown of the machine affects both times of a round, so it cancels out; in a ratio of medians it would
    not.
    """
    return spread(times / base)


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the geometric mean, in which twice as slow and twice as fast cancel out."""
    return float(np.exp(np.mean(np.log(list(ratios)))))

"""Medians and their spread, of times and of ratios. A ratio is taken within a round, then over the rounds."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bge_export.bench.report import Spread


def spread(values: NDArray[np.float64]) -> Spread:
    """Return median and quartiles of [rounds] values."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(median=float(median), low=float(low), high=float(high))


def paired(times: NDArray[np.float64], base: NDArray[np.float64]) -> Spread:
    """Return median and quartiles of the ratios of each round, both [rounds].

    What slows the machine for a while slows both of a pair, which a ratio of two medians would not know.
    """
    return spread(times / base)


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the mean in which twice as slow and twice as fast cancel out."""
    return float(np.exp(np.mean(np.log(list(ratios)))))

"""How sure the difference of two scores is: a paired bootstrap over the items of a task.

Both artifacts answered the same items, so the same items are drawn for both. Without that, an interval would tell how
hard the drawn items are, and not how the artifacts differ.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
SEED = 0
INTERVAL = (2.5, 97.5)
"""Percentiles: a 95 % interval."""


@dataclass(frozen=True)
class Items:
    """What one artifact gave for each of the N items of a task.

    Attributes:
        kind: how the items make a score: by their mean, or by the rank correlation of `values` with `gold`.
        values: [N] float64, an item's own score or the similarity of a pair.
        gold: [N] float64, the scores of people; empty if the score is a mean.
    """

    kind: Literal["mean", "correlation"]
    values: NDArray[np.float64]
    gold: NDArray[np.float64]

    def score(self, rows: NDArray[np.int64]) -> float:
        """Return the score of some items, x 100; NaN if none is defined."""
        if self.kind == "mean":
            return 100 * float(self.values[rows].mean())
        return 100 * _spearman(self.values[rows], self.gold[rows])


def interval(items: Items, baseline: Items, draws: int = DRAWS) -> tuple[float, float] | None:
    """Return the 95 % interval of a difference of scores x 100; None if the items are not those of one task."""
    count = len(items.values)
    same = items.kind == baseline.kind and count == len(baseline.values) and np.array_equal(items.gold, baseline.gold)
    if not same or count < 2:
        return None

    drawn = np.random.default_rng(SEED)
    found = []
    for _ in range(draws):
        rows = drawn.integers(0, count, count)
        found.append(items.score(rows) - baseline.score(rows))

    # A draw in which every pair has one gold score has no correlation.
    known = np.asarray(found)[np.isfinite(found)]
    if not len(known):
        return None
    low, high = np.percentile(known, INTERVAL)
    return float(low), float(high)


def _spearman(values: NDArray[np.float64], gold: NDArray[np.float64]) -> float:
    """Return the correlation of ranks; NaN if either side is constant."""
    from scipy.stats import rankdata

    first, second = rankdata(values), rankdata(gold)
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / norm) if norm else float("nan")

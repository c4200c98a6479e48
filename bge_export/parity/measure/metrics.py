"""How near embeddings are to the reference: row by row, in float64, with no clamp. Facts only, no limits.

A cosine that does not exist (a non-finite or a zero row) is NaN, never 1.0 and never 0.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

RECOGNISED = 0.9
"""A median cosine below this is no agreement with a way of pooling. It names a fault; it decides nothing."""

CHUNK = 1024
"""Rows compared with all reference rows at once, so that a large corpus needs little memory."""


@dataclass(frozen=True)
class Nearest:
    """For each of N rows the reference row it is nearest to: `index` [N] int64 (-1 for none), `cosine` [N] float64."""

    index: NDArray[np.int64]
    cosine: Float


def finite_rows(rows: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return for each row of [N, D] whether all its values are finite, [N] bool."""
    return np.asarray(np.isfinite(rows).all(axis=1))


def norms(rows: NDArray[np.floating]) -> Float:
    """Return the L2 norms of [N, D] rows, [N] float64; NaN for a non-finite row."""
    # float64 holds the square of any float32, so no finite row overflows.
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt(np.square(rows.astype(np.float64)).sum(axis=1))
    return np.asarray(np.where(finite_rows(rows), length, np.nan))


def cosines(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Float:
    """Return the cosine of each row of [N, D] with the same row of the other, [N] float64; NaN where there is none."""
    return np.asarray((_unit(rows) * _unit(others)).sum(axis=1))


def max_differences(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Float:
    """Return the largest absolute difference in each row of two [N, D], [N] float64; NaN for a non-finite row."""
    with np.errstate(invalid="ignore"):
        largest = np.abs(rows.astype(np.float64) - others.astype(np.float64)).max(axis=1, initial=0.0)
    return np.asarray(np.where(finite_rows(rows) & finite_rows(others), largest, np.nan))


def nearest_rows(rows: NDArray[np.floating], reference: NDArray[np.floating]) -> Nearest:
    """Return which row of `reference` [N, D] each row of [N, D] is nearest to; its own where several are."""
    index = np.full(len(rows), -1, dtype=np.int64)
    cosine = np.full(len(rows), np.nan)
    unit, targets = _unit(rows), _unit(reference)
    for start in range(0, len(rows), CHUNK):
        own = np.arange(start, min(start + CHUNK, len(rows)))
        table = unit[own] @ targets.T
        table = np.where(np.isnan(table), -np.inf, table)
        best = table.argmax(axis=1)
        ties = table[np.arange(len(own)), own] >= table.max(axis=1) - 1e-12
        best = np.where(ties, own, best)
        found = table[np.arange(len(own)), best]
        index[own] = np.where(np.isfinite(found), best, -1)
        cosine[own] = np.where(np.isfinite(found), found, np.nan)
    return Nearest(index, cosine)


def seen_pooling(
    rows: NDArray[np.floating], references: Mapping[str, NDArray[np.float32]], declared: str
) -> str | None:
    """Return the pooling whose reference vectors the rows agree with best, by the median cosine.

    Args:
        rows: [N, D] embeddings.
        references: pooling -> [N, D] float32.
        declared: the promised pooling. Another one is seen only where it misses by less than half of what this one
            does: of one-token texts all agree, and the first and last state of some checkpoints to 1e-4.

    Returns:
        None where they resemble none.
    """
    best, seen = RECOGNISED, None
    for name in (declared, *sorted(set(references) - {declared})):
        values = cosines(rows, references[name])
        values = values[np.isfinite(values)]
        if len(values) and (median := float(np.median(values))) > best:
            best, seen = (1 + median) / 2 if name == declared else median, name
    return seen


def _unit(rows: NDArray[np.floating]) -> Float:
    """Return [N, D] float64 rows of norm 1; NaN for a row that is zero or not finite."""
    length = norms(rows)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(rows.astype(np.float64) / np.where(length > 0, length, np.nan))

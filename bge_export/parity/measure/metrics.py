"""Compare embeddings with the reference, row by row, in float64, without clamping. Facts only, no limits.

An undefined cosine (of a non-finite or a zero row) is NaN, never 1.0 and never 0.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

RECOGNISED = 0.9
"""Median cosine above which rows agree with a pooling. It names a fault; it decides nothing."""

CHUNK = 1024
"""Number of rows that are compared with all reference rows at once; limits the memory for a large corpus."""


@dataclass(frozen=True)
class Nearest:
    """The nearest reference row of each of N rows: `index` [N] int64 (-1 for none), `cosine` [N] float64."""

    index: NDArray[np.int64]
    cosine: Float


def finite_rows(rows: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return whether all values of each row of [N, D] are finite, [N] bool."""
    return np.asarray(np.isfinite(rows).all(axis=1))


def norms(rows: NDArray[np.floating]) -> Float:
    """Return the L2 norms of [N, D] rows, [N] float64; NaN for a non-finite row."""
    # float64 holds the square of any float32, so finite rows do not overflow.
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt(np.square(rows.astype(np.float64)).sum(axis=1))
    return np.asarray(np.where(finite_rows(rows), length, np.nan))


def norm_errors(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Float:
    """Return how far the norm of row n of `rows` is from that of row n of `others`, relative to it; NaN if undefined.

    Both are [N, D]; the result is [N] float64 and at least 0.
    """
    wanted = norms(others)
    errors = np.abs(norms(rows) / np.where(wanted > 0, wanted, np.nan) - 1)
    return np.where(_both_zero(rows, others), 0.0, errors)


def cosines(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Float:
    """Return the cosine of row n of `rows` with row n of `others`, both [N, D]; [N] float64, NaN if undefined."""
    return np.asarray((_unit(rows) * _unit(others)).sum(axis=1))


def agreements(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Float:
    """Return `cosines`, and 1.0 where both rows are zero, [N] float64.

    A static model gives a text without tokens the zero vector. It has no direction: nothing but zero is right there.
    """
    return np.where(_both_zero(rows, others), 1.0, cosines(rows, others))


def max_differences(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Float:
    """Return the largest absolute difference of each row pair of two [N, D], [N] float64; NaN for a non-finite row."""
    with np.errstate(invalid="ignore"):
        largest = np.abs(rows.astype(np.float64) - others.astype(np.float64)).max(axis=1, initial=0.0)
    return np.asarray(np.where(finite_rows(rows) & finite_rows(others), largest, np.nan))


def nearest_rows(rows: NDArray[np.floating], reference: NDArray[np.floating]) -> Nearest:
    """Return the row of `reference` [N, D] nearest to each row of [N, D]; on a tie, the row of the same text."""
    index = np.full(len(rows), -1, dtype=np.int64)
    cosine = np.full(len(rows), np.nan)
    unit, targets = _unit(rows), _unit(reference)

    for start in range(0, len(rows), CHUNK):
        own = np.arange(start, min(start + CHUNK, len(rows)))
        table = unit[own] @ targets.T
        table = np.where(np.isnan(table), -np.inf, table)

        # Texts with equal vectors tie up to rounding; a tie is not a swap.
        best = table.argmax(axis=1)
        ties = table[np.arange(len(own)), own] >= table.max(axis=1) - 1e-12
        best = np.where(ties, own, best)

        found = table[np.arange(len(own)), best]
        index[own] = np.where(np.isfinite(found), best, -1)
        cosine[own] = np.where(np.isfinite(found), found, np.nan)

    zero = _both_zero(rows, reference) if len(rows) == len(reference) else np.zeros(len(rows), dtype=np.bool_)
    return Nearest(np.where(zero, np.arange(len(rows)), index), np.where(zero, 1.0, cosine))


def seen_pooling(
    rows: NDArray[np.floating], references: Mapping[str, NDArray[np.float32]], declared: str
) -> str | None:
    """Return the pooling whose reference vectors agree best with the rows, by the median cosine.

    Args:
        rows: [N, D] embeddings.
        references: pooling -> [N, D] float32.
        declared: the pooling that the checkpoint declares. Another pooling is returned only if its error (1 - cosine)
            is less than half as large: on one-token texts all poolings agree, and in some checkpoints the first and
            the last state agree to 1e-4.

    Returns:
        None if no median cosine is above `RECOGNISED`.
    """
    best, seen = RECOGNISED, None

    for name in (declared, *sorted(set(references) - {declared})):
        values = cosines(rows, references[name])
        values = values[np.isfinite(values)]
        if len(values) and (median := float(np.median(values))) > best:
            best, seen = (1 + median) / 2 if name == declared else median, name

    return seen


def _both_zero(rows: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return whether row n of both [N, D] is zero, [N] bool."""
    return np.asarray(~rows.any(axis=1) & ~others.any(axis=1))


def _unit(rows: NDArray[np.floating]) -> Float:
    """Return [N, D] float64 rows scaled to norm 1; NaN for a row that is zero or not finite."""
    length = norms(rows)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(rows.astype(np.float64) / np.where(length > 0, length, np.nan))

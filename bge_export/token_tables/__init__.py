"""Reads the token table of a model file by running its lookup, and holds each row to the checkpoint's.

Rounded weights move a token's state as far as a row that is a tenth noise does, so a sweep of ids cannot judge the rows
of a rounded file. The table can: each row must be the checkpoint's within the error that rounding to the precision's
own step may make.

One module per format, found by its name, runs the part of the graph between the ids and the rows. It yields each value
there that may be the rows, since a file may hold them rounded, packed, scaled, or with its columns in another order.
Order and scale of the columns are found from many rows together, so no single row can hide in them. All that the ids do
must pass through the value, so no right table can stand beside the one that is used (`_flow`).
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bge_export.plugins import find, names
from bge_export.precision import Step

Floats: TypeAlias = NDArray[np.float32]
Lookup: TypeAlias = Callable[[NDArray[np.int64]], Iterator[Floats]]
"""Ids [N] -> each value of the graph that depends on them alone, [N, D], in the same order each time."""

PROBE = 2048
"""Rows from which the columns' order and scales are found."""

CHUNK = 4096
"""Rows that are read at once."""

ALIKE = 0.8
"""Least cosine of a column with the checkpoint's column that it is taken for."""

SLACK = 1.02
"""Room for the arithmetic of a lookup in float32, relative to half a step."""


def readable_formats() -> tuple[str, ...]:
    """Return the formats whose token tables can be read."""
    return names(__name__)


def open_lookup(path: Path, format_name: str) -> Lookup:
    """Return the lookup of a model file.

    Raises:
        ArtifactError: the file cannot be read, or nothing in it depends on the ids alone.
        MissingLibrary: the library that reads the format is not installed.
        UsageError: the format is not supported.
    """
    lookup: Lookup = find(__name__, format_name, "open_lookup")(path)
    return lookup


def as_rows(values: Iterable[NDArray[np.generic]], count: int) -> Iterator[Floats]:
    """Yield the float values that hold one row for each of `count` ids, [count, D] float32."""
    for value in values:
        if value.dtype.kind == "f" and value.ndim and value.shape[-1] * count == value.size:
            yield value.reshape(count, -1).astype(np.float32)


def row_errors(lookup: Lookup, table: Floats, step: Step) -> NDArray[np.float64] | None:
    """Return the error of each row, [rows] float64, in units of what rounding to the step may make; at most 1 is right.

    Args:
        lookup: the file's lookup.
        table: [rows, D] float32, the checkpoint's table.
        step: how the precision rounds a table.

    Returns:
        None if no value of the file has the checkpoint's columns. NaN for a row that is not finite.
    """
    probe = np.random.default_rng(0).choice(len(table), min(PROBE, len(table)), replace=False)
    best: tuple[float, int, _Columns] | None = None

    for number, rows in enumerate(lookup(probe)):
        for columns in _matched(rows, table[probe]) if rows.shape[1] == table.shape[1] else ():
            error = float(np.nanmedian(_relative(rows, columns.of(table[probe]), columns.greatest(table), step)))
            if best is None or error < best[0]:
                best = error, number, columns

    if best is None:
        return None

    _, number, columns = best
    greatest = columns.greatest(table)
    return np.concatenate(
        [
            _relative(_nth(lookup(ids), number), columns.of(table[ids]), greatest, step)
            for ids in np.split(np.arange(len(table)), range(CHUNK, len(table), CHUNK))
        ]
    )


class _Columns:
    """The order and the scales of a file's columns, relative to the checkpoint's."""

    def __init__(self, order: NDArray[np.int64], scale: Floats) -> None:
        """Store them: [D] each."""
        self.order, self.scale = order, scale

    def of(self, table: Floats) -> Floats:
        """Return rows of the checkpoint as the file would hold them unrounded."""
        return table[:, self.order] * self.scale

    def greatest(self, table: Floats) -> float:
        """Return the greatest absolute value of `of` the whole table."""
        widest = np.maximum(table.max(axis=0), -table.min(axis=0))
        return float((widest[self.order] * np.abs(self.scale)).max())


def _matched(rows: Floats, wanted: Floats) -> Iterator[_Columns]:
    """Yield what the columns of rows [N, D] may be, as they are and scaled; nothing if they are others."""
    if not np.isfinite(rows).all(axis=1).mean() > 0.5:
        return

    there = np.isfinite(rows).all(axis=1)
    ours, theirs = rows[there], wanted[there]
    with np.errstate(invalid="ignore", divide="ignore"):
        likeness = np.nan_to_num((ours / np.linalg.norm(ours, axis=0)).T @ (theirs / np.linalg.norm(theirs, axis=0)))

    order = np.abs(likeness).argmax(axis=1)
    own = np.abs(likeness[np.arange(len(order)), order])
    if len(set(order.tolist())) < len(order) or np.median(own) < ALIKE:
        # Tables of a few rows, or with equal columns, have no unique order: then it must be the checkpoint's.
        order = np.arange(len(order))
        if np.median(np.abs(np.diag(likeness))) < ALIKE:
            return

    # The median ratio of a rounded column is near its scale only; unscaled columns are exact.
    yield _Columns(order, np.ones(len(order), dtype=np.float32))
    ratios = ours / np.where(theirs[:, order] == 0, np.nan, theirs[:, order])
    yield _Columns(order, np.nan_to_num(np.nanmedian(ratios, axis=0), nan=1.0).astype(np.float32))


def _relative(rows: Floats, wanted: Floats, greatest: float, step: Step) -> NDArray[np.float64]:
    """Return the error of each row in units of the largest that rounding makes, [N] float64."""
    error = np.linalg.norm(rows.astype(np.float64) - wanted, axis=1)
    return np.asarray(error / np.maximum(step.largest_error(wanted, greatest) * SLACK, np.finfo(np.float32).tiny))


def _nth(values: Iterable[Floats], number: int) -> Floats:
    return next(value for at, value in enumerate(values) if at == number)

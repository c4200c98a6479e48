"""Reads the token table of a model file by running its lookup, and holds each row to the checkpoint's.

Rounded weights move a token's state as far as a row that is a tenth noise does, so a sweep of ids cannot judge the rows
of a rounded file. The table can: each row must be the checkpoint's within the error that rounding to the precision's
own step may make.

One module per format, found by its name, runs the part of the graph between the ids and the rows. It yields each value
there that may be the rows, since a file may hold them rounded, packed, scaled, or with its columns in another order.
Their order, and one scale for all, are found from many rows together, so no single row can hide in them. All that the
ids do must pass through the value, so no right table can stand beside the one that is used (`_flow`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bge_export.plugins import find, names
from bge_export.precision import Step

Floats: TypeAlias = NDArray[np.float32]
Values: TypeAlias = Callable[[NDArray[np.int64]], Iterator[Floats]]
"""Ids [N] -> values of the graph, [N, D] each, in the same order each time."""

PROBE = 2048
"""Rows from which the columns' order and scales are found."""

CHUNK = 4096
"""Rows that are read at once."""

UNSCALED = 0.05
"""A table whose median ratio is this near 1 is taken as unscaled."""

ALIKE = 0.8
"""Least cosine of a column with the checkpoint's column that it is taken for."""

SLACK = 1.02
"""Room for the arithmetic of a lookup in float32, relative to half a step."""


@dataclass(frozen=True)
class Lookup:
    """What a file looks up by token ids.

    Attributes:
        rows: each value that may be the rows of the table, first to last.
        positions: what it looks up elsewhere by counting ids, as RoBERTa does by counting what is no padding.
    """

    rows: Values
    positions: Values


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
    """Yield the first row of each of `count` sequences, [count, D] float32, of each float value that has such rows.

    A file may pad the one id of a sequence, and have sequences first or tokens first.
    """
    for value in values:
        if value.dtype.kind != "f" or not value.ndim:
            continue
        if value.ndim == 3 and value.shape[0] == count:
            value = value[:, 0]
        elif value.ndim == 3 and value.shape[1] == count:
            value = value[0]
        if value.shape[-1] * count == value.size:
            yield value.reshape(count, -1).astype(np.float32)


def row_errors(lookup: Lookup, table: Floats, step: Step, pad: int = -1) -> NDArray[np.float64] | None:
    """Return the error of each row, [rows] float64, in units of what rounding to the step may make; at most 1 is right.

    Args:
        lookup: the file's lookup.
        table: [rows, D] float32, the checkpoint's table.
        step: how the precision rounds a table.
        pad: the id of the padding token, the only one that may have a position of its own.

    Returns:
        None if no value of the file has the checkpoint's columns. NaN for a row that is not finite, or whose id is
        told apart from others by what else the file looks up.
    """
    probe = np.random.default_rng(0).choice(len(table), min(PROBE, len(table)), replace=False)
    columns: _Columns | None = None
    number = -1

    # What the model computes with comes last.
    for at, rows in enumerate(lookup.rows(probe)):
        if rows.shape[1] == table.shape[1] and (found := _matched(rows, table[probe])) is not None:
            number, columns = at, found

    if columns is None:
        return None

    greatest = float(np.abs(table).max())
    parts = np.split(np.arange(len(table)), range(CHUNK, len(table), CHUNK))
    errors = np.concatenate(
        [_relative(columns.of(_nth(lookup.rows(ids), number)), table[ids], greatest, step) for ids in parts]
    )
    return np.where(_told_apart(lookup, parts, pad), np.nan, errors)


def _told_apart(lookup: Lookup, parts: Sequence[NDArray[np.int64]], pad: int) -> NDArray[np.bool_]:
    """Return whether each id but `pad` gets other values than most ids do, where the file looks up by counting ids."""
    found: list[NDArray[np.bool_]] = []
    usual: list[NDArray[np.float32]] | None = None

    for ids in parts:
        values = list(lookup.positions(ids))
        if usual is None:
            usual = [np.asarray(np.median(one, axis=0), dtype=np.float32) for one in values]
        apart = np.zeros(len(ids), dtype=np.bool_)
        for one, most in zip(values, usual, strict=True):
            apart |= (one != most).any(axis=1)
        found.append(apart & (ids != pad))

    return np.concatenate(found)


class _Columns:
    """The order of a file's columns, relative to the checkpoint's, and the scale of them all."""

    def __init__(self, order: NDArray[np.int64], scale: float) -> None:
        """Store them: order [D]."""
        self.order, self.scale = order, scale

    def of(self, rows: Floats) -> Floats:
        """Return rows of the file in the checkpoint's order and scale."""
        own = np.empty_like(rows)
        own[:, self.order] = rows / np.float32(self.scale)
        return own


def _matched(rows: Floats, wanted: Floats) -> _Columns | None:
    """Return what the columns of rows [N, D] are; None if they are not those of the wanted rows."""
    there = np.isfinite(rows).all(axis=1)
    if not there.mean() > 0.5:
        return None

    ours, theirs = rows[there], wanted[there]
    with np.errstate(invalid="ignore", divide="ignore"):
        likeness = np.nan_to_num((ours / np.linalg.norm(ours, axis=0)).T @ (theirs / np.linalg.norm(theirs, axis=0)))

    order = likeness.argmax(axis=1)
    own = likeness[np.arange(len(order)), order]
    if len(set(order.tolist())) < len(order) or np.median(own) < ALIKE:
        # Tables of a few rows, or with equal columns, have no unique order: then it must be the checkpoint's.
        order = np.arange(len(order))
        if np.median(np.diag(likeness)) < ALIKE:
            return None

    # One factor for the whole table, as Gemma has it; a rounded table has none, and the median may be a little off.
    ratios = ours / np.where(theirs[:, order] == 0, np.nan, theirs[:, order])
    scale = float(np.nanmedian(ratios))
    return _Columns(order, 1.0 if abs(scale - 1) < UNSCALED else scale)


def _relative(rows: Floats, wanted: Floats, greatest: float, step: Step) -> NDArray[np.float64]:
    """Return the error of each row in units of the largest that rounding makes, [N] float64."""
    error = np.linalg.norm(rows.astype(np.float64) - wanted, axis=1)
    return np.asarray(error / np.maximum(step.largest_error(wanted, greatest) * SLACK, np.finfo(np.float32).tiny))


def _nth(values: Iterable[Floats], number: int) -> Floats:
    return next(value for at, value in enumerate(values) if at == number)

"""Summarize a lane by its worst figures, separately for everyday and stress texts. Facts only, no limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bge_export.parity.report import RowParity
from bge_export.texts.corpus import Kind


@dataclass(frozen=True)
class Smallest:
    """The smallest cosine of some rows, and its row. An undefined cosine (None) ranks below every number."""

    cosine: float | None
    row: RowParity


@dataclass(frozen=True)
class Worst:
    """The worst figures of a lane. A figure is None if it is undefined for any row, which is worse than any number.

    Attributes:
        overall: the smallest cosine of all texts.
        everyday, stress: the smallest cosine of the texts of that kind; None if the lane has no text of that kind.
        mean_everyday: the mean cosine of the everyday texts; None if the cosine of any of them is undefined.
        max_abs: the largest absolute difference of one component.
        batch_cosine: the smallest cosine between a text embedded alone and the same text in a batch.
    """

    overall: Smallest
    everyday: Smallest | None
    stress: Smallest | None
    mean_everyday: float | None
    max_abs: float | None
    batch_cosine: float | None


def worst_of(rows: Sequence[RowParity]) -> Worst | None:
    """Return the worst figures of a lane; None for a lane without rows."""
    overall = smallest(rows)
    if overall is None:
        return None

    everyday = known([row.cosine for row in rows if row.kind == "everyday"])
    differences = known([row.max_abs for row in rows])
    batched = known([value for row in rows for value in row.batch_cosine.values()])

    return Worst(
        overall=overall,
        everyday=smallest(of_kind(rows, "everyday")),
        stress=smallest(of_kind(rows, "stress")),
        mean_everyday=fmean(everyday) if everyday else None,
        max_abs=max(differences, default=None),
        batch_cosine=min(batched, default=None),
    )


def of_kind(rows: Sequence[RowParity], kind: Kind) -> list[RowParity]:
    """Return the rows whose text is of the given kind."""
    return [row for row in rows if row.kind == kind]


def smallest(rows: Sequence[RowParity]) -> Smallest | None:
    """Return the smallest cosine and the first row that has it; None if `rows` is empty."""
    if not rows:
        return None
    row = min(rows, key=lambda row: -2.0 if row.cosine is None else row.cosine)
    return Smallest(row.cosine, row)


def known(values: Sequence[float | None]) -> list[float]:
    """Return the values if all of them are defined, otherwise an empty list."""
    numbers = [value for value in values if value is not None]
    return numbers if len(numbers) == len(values) else []

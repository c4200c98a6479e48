"""The worst figures of the rows of a lane, those of everyday and of stress texts apart. Facts only, no limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bge_export.parity.report import RowParity
from bge_export.texts.corpus import Kind


@dataclass(frozen=True)
class Smallest:
    """The smallest cosine of some rows, and the row; a row without a cosine (None) is worse than any."""

    cosine: float | None
    row: RowParity


@dataclass(frozen=True)
class Worst:
    """The worst figures of a lane; None where a row has no such number, which is worse than any.

    Attributes:
        overall: of all texts.
        everyday, stress: of the texts of one kind; None where there is no such text.
        mean_everyday: the mean cosine of the everyday texts; None as soon as one has none.
        max_abs: the largest difference of one component.
        batch_cosine: the smallest cosine of a text alone with itself in a batch.
    """

    overall: Smallest
    everyday: Smallest | None
    stress: Smallest | None
    mean_everyday: float | None
    max_abs: float | None
    batch_cosine: float | None


def worst_of(rows: Sequence[RowParity]) -> Worst | None:
    """Return the worst figures of a lane, None for a lane without rows."""
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
    """Return the rows of the texts of one kind."""
    return [row for row in rows if row.kind == kind]


def smallest(rows: Sequence[RowParity]) -> Smallest | None:
    """Return the smallest cosine of rows and the first row that has it; None where there are no rows."""
    if not rows:
        return None
    row = min(rows, key=lambda row: -2.0 if row.cosine is None else row.cosine)
    return Smallest(row.cosine, row)


def known(values: Sequence[float | None]) -> list[float]:
    """Return the values if all of them are numbers, else none of them."""
    numbers = [value for value in values if value is not None]
    return numbers if len(numbers) == len(values) else []

"""Compute the coordinates of plots of 1 - cosine, in SVG units; the template draws them. Nothing is judged here."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bge_export.parity.figures import cosine_figure, escaped
from bge_export.parity.gate.limits import Limits
from bge_export.parity.report import RowParity

WIDTH, HEIGHT = 440.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 432.0, 22.0, 196.0

LOWEST = -16
"""Decade of the rounding error of float64: a smaller or negative value is not a measured distance."""

COLUMNS = 600
"""Largest number of marks in a plot. If there are more texts, neighbours share a mark, which shows the worst."""


@dataclass(frozen=True)
class LogAxis:
    """A log axis over whole decades; values beyond an end are drawn at that end."""

    low: int
    high: int

    @classmethod
    def over(cls, values: Iterable[float]) -> "LogAxis":
        """Return the axis that holds all positive values."""
        exponents = [math.log10(value) for value in values if value > 0] or [0.0]
        low = max(LOWEST, math.floor(min(exponents)))
        return cls(low, max(low + 1, math.ceil(max(exponents))))

    @property
    def ticks(self) -> list[int]:
        """Return the decades to label, at most nine."""
        return list(range(self.low, self.high + 1, 1 + (self.high - self.low) // 9))

    def share(self, value: float) -> float:
        """Return the relative position of a value along the axis, 0 to 1."""
        exponent = math.log10(value) if value > 0 else self.low
        return min(1.0, max(0.0, (exponent - self.low) / (self.high - self.low)))

    def x(self, value: float) -> float:
        """Return the x coordinate of a value on a horizontal axis."""
        return round(LEFT + self.share(value) * (RIGHT - LEFT), 1)

    def y(self, value: float) -> float:
        """Return the y coordinate of a value on a vertical axis."""
        return round(BOTTOM - self.share(value) * (BOTTOM - TOP), 1)


@dataclass(frozen=True)
class Mark:
    """One text in a plot.

    Attributes:
        x, y: the coordinates.
        kind: plain, refused, floor (1 - cosine is 0 or less) or none (the cosine is undefined).
        label: the description of the text.
        stress: whether it is a stress text, which is drawn as a square.
    """

    x: float
    y: float
    kind: str
    label: str
    stress: bool = False


@dataclass(frozen=True)
class Bar:
    """The texts in half a decade; the lower part of the bar, `stress_height`, counts the stress texts."""

    x: float
    y: float
    width: float
    height: float
    stress_height: float
    texts: int
    label: str


@dataclass(frozen=True)
class LimitLine:
    """A cosine limit: its value on the axis of 1 - cosine, and its name in short and in full."""

    at: float
    short: str
    label: str


def gap(cosine: float) -> float:
    """Return 1 - cosine."""
    return 1.0 - cosine


def limit_lines(limits: Limits | None) -> list[LimitLine]:
    """Return the cosine limits of a lane: one, or one each for everyday and stress texts."""
    if limits is None:
        return []

    found = [LimitLine(gap(limits.min_cosine), "limit", f"limit: cosine {limits.min_cosine}")]
    least = limits.least_cosine("stress")
    if least != limits.min_cosine:
        found.append(LimitLine(gap(least), "of stress texts", f"limit of stress texts: cosine {least}"))
    return found


def badness(row: RowParity) -> float:
    """Return the sort key of a text, the worst highest: an undefined cosine is worse than any number."""
    return math.inf if row.cosine is None else gap(row.cosine)


def marks(rows: Sequence[RowParity], axis: LogAxis, refused: Collection[str]) -> list[Mark]:
    """Return a mark for each text, or for each group of neighbours, in the order of the texts; `refused` holds ids."""
    size = -(-len(rows) // COLUMNS)
    groups = [rows[start : start + size] for start in range(0, len(rows), size)] if rows else []
    step = (RIGHT - LEFT) / max(1, len(groups))

    found = []
    for number, group in enumerate(groups):
        row = max(group, key=lambda row: (row.id in refused, badness(row)))
        x = round(LEFT + (number + 0.5) * step, 1)
        y = TOP if row.cosine is None else axis.y(gap(row.cosine))

        what = f"{row.tokens} tokens" + (", stress" if row.kind == "stress" else "")
        label = f"{escaped(row.id)}, {what}: cosine {cosine_figure(row.cosine)}"
        found.append(Mark(x, y, _kind(row, refused), label, row.kind == "stress"))

    return found


def _kind(row: RowParity, refused: Collection[str]) -> str:
    if row.cosine is None:
        return "none"
    if row.id in refused:
        return "refused"
    return "floor" if gap(row.cosine) <= 0 else "plain"


def bars(rows: Sequence[RowParity], axis: LogAxis) -> list[Bar]:
    """Return the histogram of texts by half decades of 1 - cosine; the first bar includes values of 0 or less."""
    count = 2 * (axis.high - axis.low)
    tallies, stress = [0] * count, [0] * count
    for row in rows:
        if row.cosine is not None:
            number = min(count - 1, int(axis.share(gap(row.cosine)) * count))
            tallies[number] += 1
            stress[number] += row.kind == "stress"

    width, most = (RIGHT - LEFT) / count, max(1, *tallies)
    found = []
    for number, tally in enumerate(tallies):
        if not tally:
            continue

        height, lower = (round(texts / most * (BOTTOM - TOP), 1) for texts in (tally, stress[number]))
        of_stress = f", {stress[number]} of them stress," if stress[number] else ""
        label = f"{tally} texts{of_stress} from {_bound(axis, number)} to {_bound(axis, number + 1)}"
        x = round(LEFT + number * width, 1)
        found.append(Bar(x, round(BOTTOM - height, 1), round(width - 1, 1), height, lower, tally, label))

    return found


def _bound(axis: LogAxis, number: int) -> str:
    return f"{10 ** (axis.low + number / 2):.1e}"

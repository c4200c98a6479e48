"""Where the marks of a plot of 1 - cosine stand, in the units of its drawing: the template draws, nothing is judged."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bge_export.parity.figures import cosine_figure, escaped
from bge_export.parity.report import RowParity

WIDTH, HEIGHT = 440.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 432.0, 22.0, 196.0

LOWEST = -16
"""The decade of float64's rounding: what is below it, or negative, is no measured distance."""

COLUMNS = 600
"""Marks in a plot. Of more texts, neighbours share a mark, which is the worst of them."""


@dataclass(frozen=True)
class LogAxis:
    """A log axis over whole decades; what is beyond an end stands at it."""

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
        """Return how far along the axis a value stands, 0 to 1."""
        exponent = math.log10(value) if value > 0 else self.low
        return min(1.0, max(0.0, (exponent - self.low) / (self.high - self.low)))

    def x(self, value: float) -> float:
        """Return its place on a horizontal axis."""
        return round(LEFT + self.share(value) * (RIGHT - LEFT), 1)

    def y(self, value: float) -> float:
        """Return its place on a vertical axis."""
        return round(BOTTOM - self.share(value) * (BOTTOM - TOP), 1)


@dataclass(frozen=True)
class Mark:
    """One text: `kind` is plain, refused, floor (1 - cosine is 0 or less) or none (it has no cosine)."""

    x: float
    y: float
    kind: str
    label: str


@dataclass(frozen=True)
class Bar:
    """Texts in half a decade."""

    x: float
    y: float
    width: float
    height: float
    texts: int
    label: str


def gap(cosine: float) -> float:
    """Return 1 - cosine."""
    return 1.0 - cosine


def badness(row: RowParity) -> float:
    """Return what sorts texts, the worst highest: one without a cosine is worse than any."""
    return math.inf if row.cosine is None else gap(row.cosine)


def marks(rows: Sequence[RowParity], axis: LogAxis, refused: Collection[str]) -> list[Mark]:
    """Return a mark for each text, in the order of the texts; `refused` holds ids."""
    size = -(-len(rows) // COLUMNS)
    groups = [rows[start : start + size] for start in range(0, len(rows), size)] if rows else []
    step = (RIGHT - LEFT) / max(1, len(groups))
    found = []
    for number, group in enumerate(groups):
        row = max(group, key=lambda row: (row.id in refused, badness(row)))
        x = round(LEFT + (number + 0.5) * step, 1)
        y = TOP if row.cosine is None else axis.y(gap(row.cosine))
        label = f"{escaped(row.id)}, {row.tokens} tokens: cosine {cosine_figure(row.cosine)}"
        found.append(Mark(x, y, _kind(row, refused), label))
    return found


def _kind(row: RowParity, refused: Collection[str]) -> str:
    if row.cosine is None:
        return "none"
    if row.id in refused:
        return "refused"
    return "floor" if gap(row.cosine) <= 0 else "plain"


def bars(rows: Sequence[RowParity], axis: LogAxis) -> list[Bar]:
    """Return the histogram: texts by half decades of 1 - cosine; the first bar holds what is 0 or less."""
    count = 2 * (axis.high - axis.low)
    tallies = [0] * count
    for row in rows:
        if row.cosine is not None:
            tallies[min(count - 1, int(axis.share(gap(row.cosine)) * count))] += 1
    width, most = (RIGHT - LEFT) / count, max(1, *tallies)
    found = []
    for number, tally in enumerate(tallies):
        height = round(tally / most * (BOTTOM - TOP), 1)
        label = f"{tally} texts from {_bound(axis, number)} to {_bound(axis, number + 1)}"
        if tally:
            x = round(LEFT + number * width, 1)
            found.append(Bar(x, round(BOTTOM - height, 1), round(width - 1, 1), height, tally, label))
    return found


def _bound(axis: LogAxis, number: int) -> str:
    return f"{10 ** (axis.low + number / 2):.1e}"

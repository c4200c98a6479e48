"""Format numbers and texts for people. A rounded figure never looks better than the measured one."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

EXCERPT_LENGTH = 60
NONE = "none"
EXACT = Context(prec=400)
"""Holds every digit of a float64, so that a figure that no cosine can be is written out and raises nothing."""


def cosine_figure(value: float | None) -> str:
    """Return a cosine rounded down, with two digits after its nines: 0.9999997, never 1.0 for less than 1."""
    if value is None or not math.isfinite(value):
        return NONE
    if value >= 1:
        return "1"

    digits = min(17, max(4, math.floor(-math.log10(1 - value)) + 2))
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR, EXACT))


def difference_figure(value: float | None) -> str:
    """Return a difference rounded up to three significant digits."""
    if value is None or not math.isfinite(value):
        return NONE

    exact = Decimal(repr(value))
    if exact == 0:
        return "0"

    rounded = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), ROUND_CEILING)
    return f"{rounded:f}" if 1e-3 <= abs(value) < 1e3 else f"{rounded:.2e}"


def least_figure(value: float | None) -> str:
    """Return a share or a correlation rounded down to three digits."""
    if value is None or not math.isfinite(value):
        return NONE
    return str(Decimal(repr(value)).quantize(Decimal("0.001"), ROUND_FLOOR, EXACT).normalize(EXACT) + 0)


def excerpt(text: str) -> str:
    """Return the first `EXCERPT_LENGTH` characters of a text."""
    return text[:EXCERPT_LENGTH]


def escaped(text: str) -> str:
    """Return a text on one line. Line breaks, control and direction characters are escaped, so they have no effect."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)

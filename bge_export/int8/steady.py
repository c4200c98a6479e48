"""Among forms that differ by next to nothing, one in which no text tips over, whatever the last bits are.

A model has texts near a point where it tips over: of bge-small-en the full stop alone, for which a head of attention in
layer 9 looks at one token or at the other. There a rounding error as small as any moves the vector by 1e-4 or by
50e-4, and which of them is chance (docs/decisions/0016). Grids that are wider or narrower by a few percent throw the
dice once more; that they lie well in one runtime says nothing of the next, so each throw is looked at trembling.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from bge_export.int8.build import Builder
from bge_export.int8.form import Form
from bge_export.int8.frontier import Judge

WIDENINGS = (1.0, 1.02, 0.98, 1.04, 0.96, 1.06, 0.94, 1.08)
"""Candidates, in the order they are tried."""

ENOUGH = 0.9985
"""The first candidate is taken whose smallest cosine is at least this; else the one with the largest."""

DRAWS = 8
"""How often each trembles, beside as it is (docs/decisions/0016)."""


@dataclass(frozen=True)
class Steadiness:
    """How far texts were moved by the form that was taken.

    Attributes:
        texts: how many were looked at.
        draws: how often each form trembled.
        smallest: cosine of any of them.
    """

    texts: int
    draws: int
    smallest: float

    def record(self) -> dict[str, float]:
        """Return it for a manifest."""
        return asdict(self)


def steadiest(
    builder: Builder, form: Form, judge: Judge, *, cls_only: bool, advance: Callable[[int], None]
) -> tuple[Form, Steadiness]:
    """Return the form, its grids widened by one of `WIDENINGS`, and how steady it is.

    Args:
        builder: of the encoder.
        form: how exact each site is.
        judge: has single marks and odd strings.
        cls_only: whether the graph is to return the first token's state alone.
        advance: called with 1 after each candidate.
    """
    best, largest = form, -1.0
    for widening in WIDENINGS:
        candidate = replace(form, widening=widening)
        smallest = judge.smallest_shaken(builder.build(candidate), cls_only=cls_only, draws=DRAWS, floor=largest)
        advance(1)
        if smallest > largest:
            best, largest = candidate, smallest
        if largest >= ENOUGH:
            break
    return best, Steadiness(len(judge.rows), DRAWS, largest)

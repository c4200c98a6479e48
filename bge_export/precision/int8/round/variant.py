"""Describes a variant: how accurately each quantization point of an encoder is rounded."""

from dataclasses import dataclass, replace

from bge_export.precision.int8.round.quantized import Rows

Point = tuple[int, str]
"""Index of a layer and name of one of its quantization points."""


@dataclass(frozen=True)
class Variant:
    """A variant: how accurately each quantization point is rounded.

    Attributes:
        precise: points whose inputs have a residual.
        finer: points whose weights have one, too.
        first: points where only the first token's input has a residual, which is a small product.
        first_finer: points of `first` where that input meets weights with a residual.
        widening: factor by which all grids of states are wider.
    """

    precise: frozenset[Point] = frozenset()
    finer: frozenset[Point] = frozenset()
    first: frozenset[Point] = frozenset()
    first_finer: frozenset[Point] = frozenset()
    widening: float = 1.0

    def with_precise(self, points: frozenset[Point]) -> "Variant":
        """Return the variant with a residual for the activations of further points."""
        return replace(
            self, precise=self.precise | points, first=self.first - points, first_finer=self.first_finer - points
        )

    def weight_rows(self, point: Point) -> Rows | None:
        """Return which rows of a point's input meet weights with a residual; None for none."""
        if point in self.finer:
            return "all"
        return "first" if point in self.first_finer else None

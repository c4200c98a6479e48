"""How exact each site of a quantized encoder is."""

from dataclasses import dataclass, replace

from bge_export.precision.int8.round.quantized import Rows

Place = tuple[int, str]
"""A layer and one of its sites."""


@dataclass(frozen=True)
class Form:
    """How exact each site is.

    Attributes:
        precise: sites whose inputs are rounded in two parts.
        finer: sites whose weights are, too.
        first: sites where the first token's input is rounded in two parts, which is a small product.
        first_finer: sites of `first` where it meets weights in two parts.
        widening: all grids of states are so much wider.
    """

    precise: frozenset[Place] = frozenset()
    finer: frozenset[Place] = frozenset()
    first: frozenset[Place] = frozenset()
    first_finer: frozenset[Place] = frozenset()
    widening: float = 1.0

    def with_precise(self, points: frozenset[Place]) -> "Form":
        """Return the form with the activations of further sites in two parts."""
        return replace(
            self, precise=self.precise | points, first=self.first - points, first_finer=self.first_finer - points
        )

    def weight_rows(self, where: Place) -> Rows | None:
        """Return which rows of a site's input meet weights in two parts; None for none."""
        if where in self.finer:
            return "all"
        return "first" if where in self.first_finer else None

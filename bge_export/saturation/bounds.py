"""What the bounds of a tensor say about the greatest code that it is rounded to."""

from dataclasses import dataclass

import numpy as np

GREATEST_CODE = 255
"""Of 8-bit activations that nothing keeps smaller."""

HALF_STEP = 0.5 + 1e-3
"""What rounding misses at most, in steps of the grid, with what float32 may add."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """A uint8 grid: real = scale * (code - zero)."""

    scale: float
    zero: float

    def code(self, value: float) -> float:
        """Return the code of a value, also beyond the grid."""
        return float(np.round(value / self.scale + self.zero)) if np.isfinite(value) else float("inf")

    def greatest_code(self, bounds: Bounds | None, padding: float = 0) -> int:
        """Return the greatest code that a tensor between bounds can have; None stands for no bounds.

        Args:
            bounds: of the tensor.
            padding: the greatest code that codes are padded with.
        """
        code = GREATEST_CODE if bounds is None else self.code(bounds[1])
        return int(min(max(code, padding, 0), GREATEST_CODE))

    def missed(self, bounds: Bounds | None) -> Bounds | None:
        """Return the bounds of what rounding misses of a tensor between bounds, None unless the grid holds them."""
        if bounds is None or self.code(bounds[0]) < 0 or self.code(bounds[1]) > GREATEST_CODE:
            return None
        return -self.scale * HALF_STEP, self.scale * HALF_STEP


def grid_of(scale: float, zero: float) -> Grid | None:
    """Return a grid, None where the scale is none that values can be rounded to."""
    return Grid(scale, zero) if np.isfinite(scale) and scale > 0 else None

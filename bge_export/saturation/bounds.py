"""Derives qmax, the largest quantized value a tensor can have, from constant bounds on the tensor."""

from dataclasses import dataclass

import numpy as np

GREATEST_CODE = 255
"""Largest quantized activation, unless the graph clips it lower."""

HALF_STEP = 0.5 + 1e-3
"""Largest rounding error in units of the scale, with a margin for float32 arithmetic."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of uint8 quantization: real = scale * (quantized - zero)."""

    scale: float
    zero: float

    def code(self, value: float) -> float:
        """Return the quantized value of a real number, not clipped to 0 to 255."""
        return float(np.round(value / self.scale + self.zero)) if np.isfinite(value) else float("inf")

    def greatest_code(self, bounds: Bounds | None, padding: float = 0) -> int:
        """Return the largest quantized value of a tensor within bounds.

        Args:
            bounds: lower and upper bound of the tensor; None if it is unbounded.
            padding: the largest quantized value used for padding.
        """
        code = GREATEST_CODE if bounds is None else self.code(bounds[1])
        return int(min(max(code, padding, 0), GREATEST_CODE))

    def missed(self, bounds: Bounds | None) -> Bounds | None:
        """Return the bounds of the rounding error of a tensor within bounds; None if the grid does not cover them."""
        if bounds is None or self.code(bounds[0]) < 0 or self.code(bounds[1]) > GREATEST_CODE:
            return None
        return -self.scale * HALF_STEP, self.scale * HALF_STEP


def grid_of(scale: float, zero: float) -> Grid | None:
    """Return a grid; None if the scale is not finite and positive."""
    return Grid(scale, zero) if np.isfinite(scale) and scale > 0 else None

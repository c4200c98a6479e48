"""The uint8 grid of 256 or 128 levels that activations are rounded to: real = scale * (quantized - zero point)."""

from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 255
"""qmax, the largest quantized value."""

HALF = 127
"""qmax of inputs that have a residual; with it the saturation constraint binds no weight."""


@dataclass(frozen=True)
class Grid:
    """A uint8 grid: its `scale`, its zero point `zero`, and its qmax `levels`."""

    scale: float
    zero: int
    levels: int = LEVELS

    @property
    def least(self) -> float:
        """Return the smallest value of the grid."""
        return -self.scale * self.zero

    @property
    def greatest(self) -> float:
        """Return the largest value of the grid; larger inputs saturate to it."""
        return self.scale * (self.levels - self.zero)

    def rounded(self, x: Tensor) -> Tensor:
        """Return x rounded to the grid, as QuantizeLinear and DequantizeLinear compute it."""
        return (torch.clamp(torch.round(x / self.scale) + self.zero, 0, self.levels) - self.zero) * self.scale


def grid_between(low: float, high: float, levels: int = LEVELS) -> Grid:
    """Return the grid that covers [low, high] and represents 0 exactly, as padding and ReLU need it."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / levels or 1.0
    # The graph stores the scale as float32.
    scale = float(torch.tensor(scale, dtype=torch.float32))
    return Grid(scale, min(levels, max(0, round(-low / scale))), levels)

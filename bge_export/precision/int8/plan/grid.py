"""The grid of 256 values, or of 128, that activations are rounded to: real = scale * (code - zero)."""

from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 255
"""The greatest code."""

HALF = 127
"""The greatest code of inputs in two parts, with which the pair rule binds no weight."""


@dataclass(frozen=True)
class Grid:
    """A uint8 grid: `scale` per step, `zero` the code of 0, `levels` the greatest code."""

    scale: float
    zero: int
    levels: int = LEVELS

    @property
    def least(self) -> float:
        """Return the smallest value of the grid."""
        return -self.scale * self.zero

    @property
    def greatest(self) -> float:
        """Return the largest value of the grid; greater ones are rounded to it."""
        return self.scale * (self.levels - self.zero)

    def rounded(self, x: Tensor) -> Tensor:
        """Return x on the grid, as QuantizeLinear and DequantizeLinear compute it."""
        return (torch.clamp(torch.round(x / self.scale) + self.zero, 0, self.levels) - self.zero) * self.scale


def grid_between(low: float, high: float, levels: int = LEVELS) -> Grid:
    """Return the grid that covers [low, high] and 0, which padding and ReLU need exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / levels or 1.0
    # float32, as the graph stores it
    scale = float(torch.tensor(scale, dtype=torch.float32))
    return Grid(scale, min(levels, max(0, round(-low / scale))), levels)

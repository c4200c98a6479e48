"""Scales an input that has a residual to minimize the error of its weights, since its own error is negligible.

The high part and the residual have 128 levels each, not 256. Twice 7 bits are 16,000 levels, more than a cosine of
0.9999 needs; and if no quantized value exceeds 127, two neighbouring products cannot overflow 16 bits, so the
saturation constraint (`saturation`) does not bind the weights: they keep all of their 8 bits. Neurons keep 256 levels,
because the constraint costs their readers little (their order is free) and clipping a wide input costs time.

The rounding of the weights remains, where all weights of an output share one step. Dividing a channel by s and
multiplying its row of the weight by s evens the rows out; the gain depends on the size of the channel and of the row.
"""

from dataclasses import replace

import torch
from torch import Tensor

from bge_export.precision.int8.plan.grid import HALF, LEVELS
from bge_export.precision.int8.plan.input_scaling import InputPlan
from bge_export.precision.int8.round.rounding import GREATEST

PRECISE_MARGIN = 2.0
"""Grids of inputs with a residual exceed the observed range by this factor: they have levels to spare."""

INPUT_POWERS = (0.0, 0.25, 0.5)
WEIGHT_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Candidates: a channel's scale is its root mean square to the first power, over its row's to the second."""


def plan_precise(plan: InputPlan, weight: Tensor, squares: Tensor, importance: Tensor, *, paired: bool) -> InputPlan:
    """Return the scaling with the smallest error of the rounded weights.

    Args:
        plan: plan of the same input without a residual.
        weight: weights of all linear layers that read the input, for the unscaled input, [K, N].
        squares: mean squares of the channels, [K].
        importance: importance of the outputs, [N].
        paired: whether the weights keep the saturation constraint, so that the input may use all levels.
    """
    channels, rows = _evened(squares.sqrt()), _evened(weight.square().mean(1).sqrt())
    best, chosen = torch.inf, torch.ones_like(squares)

    for power in INPUT_POWERS:
        for weight_power in WEIGHT_POWERS:
            scale = channels**power / rows**weight_power
            scaled = weight * scale[:, None]
            step = scaled.abs().amax(0).clamp(min=1e-12) / GREATEST

            missed = (torch.round(scaled / step) * step - scaled) / scale[:, None]
            error = float(((missed.square() * squares[:, None]).sum(0) * importance).sum())
            if error < best:
                best, chosen = error, scale

    return replace(plan, scale=chosen, margin=PRECISE_MARGIN, levels=LEVELS if paired else HALF)


def _evened(values: Tensor) -> Tensor:
    """Return positive values divided by their median."""
    return values.clamp(min=1e-3 * values.median().clamp(min=1e-12)) / values.median().clamp(min=1e-12)

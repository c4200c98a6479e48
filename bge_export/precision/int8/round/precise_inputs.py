"""How an input in two parts is scaled: by the error of the weights, since its own is next to nothing.

Each part has 128 levels in place of 256. Twice 7 bits are 16,000 levels, which is more than a cosine of 0.9999 asks
for; and where no code is larger than 127, two products of neighbours cannot overflow 16 bits, so that the pair rule
does not bind the weights (`saturation`): they keep all of their 8 bits. Neurons keep 256 levels, because the rule costs
their readers little (they stand in any order) and bounds on so wide an input cost time.

What is left is their own rounding, where all weights of an output share one step. Dividing a channel by s and
multiplying its row of the weight by it evens the rows out; how far it pays depends on how large channel and row are.
"""

from dataclasses import replace

import torch
from torch import Tensor

from bge_export.precision.int8.plan.grid import HALF, LEVELS
from bge_export.precision.int8.plan.sites import InputPlan
from bge_export.precision.int8.round.rounding import GREATEST

PRECISE_MARGIN = 2.0
"""Grids of inputs in two parts are so much wider than the range seen: they have levels to spare."""

INPUT_POWERS = (0.0, 0.25, 0.5)
WEIGHT_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Candidates: a channel is divided by its root mean square to the one power, over its row's to the other."""


def plan_precise(
    plan: InputPlan, weight: Tensor, squares: Tensor, importance: Tensor, *, paired: bool
) -> InputPlan:  # fmt: skip
    """Return the scaling that costs rounded weights least.

    Args:
        plan: of the same input in one part.
        weight: [K, N], of all linear layers that read the input, for the unscaled input.
        squares: mean squares of the channels, [K].
        importance: of the outputs, [N].
        paired: whether the weights keep the pair rule, so that all levels are free.
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
    """Return positive values over their median."""
    return values.clamp(min=1e-3 * values.median().clamp(min=1e-12)) / values.median().clamp(min=1e-12)

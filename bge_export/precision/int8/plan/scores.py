"""Plans 8-bit queries and keys, for a runtime that multiplies them as integers.

Two transformations change nothing in floating point and reduce the loss. A constant added to every key adds the same
number to all scores of a query, which the softmax cancels, so keys are centred. A channel of the queries may be
multiplied by a factor if the same channel of the keys is divided by it: both then reach equally far, so one grid fits
all channels. Both transformations change only scales and biases; the integers of the weights stay the same.
"""

from dataclasses import dataclass

from torch import Tensor

from bge_export.encoder.encoder import Floats

QUERY_MARGIN, KEY_MARGIN = 1.5, 1.25
"""Factors by which the grids of queries and keys exceed the observed ranges: other scripts reach far beyond."""

QUERY_GREATEST, KEY_GREATEST = 127, 64
"""qmax, positive and negative. Without VNNI, OpenVINO shifts queries to 0 to 255 and adds two products in 16 bits, so
the saturation constraint binds keys as it binds weights (`saturation`): 255 * (64 + 64) fits."""


@dataclass(frozen=True)
class ScorePlan:
    """How queries and keys are rounded to a symmetric int8 grid.

    Attributes:
        balance: factor of the queries and divisor of the keys, [H] float32.
        middle: subtracted from the keys before the division, [H] float32.
        query_step, key_step: scales of their grids.
    """

    balance: Floats
    middle: Floats
    query_step: float
    key_step: float


def plan_scores(query: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor], constant: Tensor) -> ScorePlan:
    """Return the plan of a layer.

    Args:
        query: minimum and maximum of each channel of the queries, [H] each, on the scale of the scores.
        key: the same for the keys.
        constant: constant that the keys of the folded layer lack, [H].
    """
    low, high = key
    asked = ((high - low) / 2).clamp(min=1e-6)
    asking = query[0].abs().maximum(query[1].abs()).clamp(min=1e-6)

    reach = float((asked * asking).sqrt().max())
    return ScorePlan(
        (asked / asking).sqrt().numpy(),
        ((low + high) / 2 - constant).numpy(),
        query_step=reach * QUERY_MARGIN / QUERY_GREATEST,
        key_step=reach * KEY_MARGIN / KEY_GREATEST,
    )

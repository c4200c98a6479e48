"""Queries and keys on 8 bits, for a runtime that multiplies them as integers.

Two things change nothing in floating point and leave little to lose. A constant added to every key adds the same
number to all scores of a query, which the softmax cancels: keys are centred. A channel of the queries may be multiplied
by what the same channel of the keys is divided by: both then reach equally far, so that no channel needs a grid of its
own. Either is a matter of scales and biases; the integers of the weights stay what they are.
"""

from dataclasses import dataclass

from torch import Tensor

from bge_export.encoder.encoder import Floats

QUERY_MARGIN, KEY_MARGIN = 1.5, 1.25
"""How much wider the grids of queries and keys are than what was seen: other scripts reach far beyond."""

QUERY_GREATEST, KEY_GREATEST = 127, 64
"""Greatest codes, either way. Without VNNI OpenVINO moves queries to 0 to 255 and adds two products in 16 bits, so that
keys are bound as weights are (`saturation`): 255 * (64 + 64) fits."""


@dataclass(frozen=True)
class ScorePlan:
    """How queries and keys come onto a symmetric int8 grid.

    Attributes:
        balance: queries are multiplied by it and keys divided, [H] float32.
        middle: taken off the keys, before that, [H] float32.
        query_step, key_step: of their grids.
    """

    balance: Floats
    middle: Floats
    query_step: float
    key_step: float


def plan_scores(query: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor], constant: Tensor) -> ScorePlan:
    """Return the plan.

    Args:
        query: least and greatest of each channel, [H] each, on the scale of the scores.
        key: the same of the keys.
        constant: what the keys of the folded layer lack, [H].
    """
    low, high = key
    asked = ((high - low) / 2).clamp(min=1e-6)
    asking = query[0].abs().maximum(query[1].abs()).clamp(min=1e-6)
    reach = float((asked * asking).sqrt().max())
    return ScorePlan(
        (asked / asking).sqrt().numpy(), ((low + high) / 2 - constant).numpy(),
        query_step=reach * QUERY_MARGIN / QUERY_GREATEST, key_step=reach * KEY_MARGIN / KEY_GREATEST,
    )  # fmt: skip

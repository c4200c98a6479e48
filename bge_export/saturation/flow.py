"""What is known of a tensor while int8 weights and 8-bit activations are followed forwards through a graph."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Flow:
    """What is known of one tensor.

    Attributes:
        dynamic: whether it depends on the inputs of the model.
        weight: the int8 tensor that its values come from, None if they come from none.
        rounded: whether it may hold 8-bit activations, as integers or dequantized.
        kind: its element type as the format calls it, None if unknown.
    """

    dynamic: bool = False
    weight: str | None = None
    rounded: bool = False
    kind: str | None = None


def first_weight(flows: Iterable[Flow]) -> str | None:
    """Return the first weight among flows."""
    return next((one.weight for one in flows if one.weight is not None), None)

"""What a model file holds, read from its bytes: its weights by element type, its operators, and its other files.

One module per format reads it without running the file and without the format's own library, which a machine that only
judges does not have. The gate reads the files of a folder again instead of believing a record of them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

TRAINING = " (training)"
"""Follows the name of an operator that drops values at random, as in training."""

STATE = " (state)"
"""Follows the name of an operator that changes a value which stays until the next call."""

MOST_AXES = 64
"""Axes of a shape. The product of a longer list could take any time; a runtime allows fewer."""

LARGEST_AXIS = 2**63 - 1


@dataclass
class Contents:
    """What a model file holds; readers add to it.

    Attributes:
        weights: element type, such as `float32` -> the number of constant values of that type that the outputs depend
            on. A value of fewer than eight bits that is packed into a byte counts with the byte.
        tables: the same for those constants that are read by index, such as token embeddings.
        operators: name of an operator -> how often it occurs, in bodies of control flow and in functions, too. The name
            is `domain::name`, without the domain if it is the format's own, and ends in `TRAINING` if the operator
            drops values at random, in `STATE` if it changes what the next call reads. A function that the file defines
            occurs as `function::domain.name`.
        idle: those among `operators` that the outputs do not depend on.
        packed: operator and bits, such as `MatMulNBits 4` -> the number of weights that such operators unpack for the
            outputs.
        files: the other files that hold its weights, relative to the model file's folder.
    """

    weights: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    idle: Counter[str] = field(default_factory=Counter)
    packed: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)


def size_of(shape: Sequence[int]) -> int:
    """Return the number of values of a shape.

    Raises:
        ValueError: an axis is negative or too long, or there are too many.
    """
    if len(shape) > MOST_AXES:
        raise ValueError(f"a shape has {len(shape)} axes, more than {MOST_AXES}")
    if any(not 0 <= axis <= LARGEST_AXIS for axis in shape):
        raise ValueError("a shape has an axis that is negative or longer than any")

    return math.prod(shape)

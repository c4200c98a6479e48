"""The facts that are read from a model file: its weights by element type, its operators, and its other files."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Contents:
    """What a model file holds; readers add to it.

    Attributes:
        weights: element type, such as `float32` -> the number of constant values of that type. A value of fewer than
            eight bits that is packed into a byte counts with the byte.
        tables: the same for those constants that are read by index, such as token embeddings.
        operators: name of an operator, with its domain if that is not ONNX's own -> how often it occurs.
        packed: operator and bits, such as `MatMulNBits 4` -> the number of weights that such operators unpack.
        files: the other files that hold its weights, relative to the model file's folder.
    """

    weights: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    packed: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)

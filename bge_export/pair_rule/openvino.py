"""The int8 weights of an OpenVINO model that are multiplied with 8-bit activations.

In OpenVINO's IR a weight is an i8 constant that is converted, shifted and scaled; activations go through a
FakeQuantize of 256 levels, or come as integers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from bge_export.errors import ArtifactError
from bge_export.pair_rule import Weights

DEQUANTIZING = ("Convert", "Subtract", "Multiply")
SHAPING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")
INTEGERS = ("i8", "u8")
LEVELS = 256


def int8_weights(path: Path) -> Weights:
    """Yield the weights of a file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        for node in openvino.Core().read_model(path).get_ordered_ops():
            if node.get_type_name() == "MatMul":
                yield from _of_product(node)
    except Exception as error:
        raise ArtifactError(f"{path}: its weights cannot be read: {error}. Export it again.") from error


def _of_product(node: Any) -> Weights:  # noqa: ANN401 - openvino has no types
    """Yield the int8 weight of a product, [..., K, N]."""
    attributes = node.get_attributes()
    (left, right) = (value.get_node() for value in node.input_values())
    for weight, other, turned in (
        (right, left, attributes["transpose_b"]),
        (left, right, not attributes["transpose_a"]),
    ):
        constant = _constant(weight)
        if constant is not None and _quantized(other):
            integers = _shaped(weight, constant)
            yield constant.get_friendly_name(), np.swapaxes(integers, -1, -2) if turned else integers


def _constant(node: Any) -> Any:  # noqa: ANN401 - openvino has no types
    """Return the i8 constant behind a float tensor, None where there is none."""
    while node.get_type_name() in (*DEQUANTIZING, *SHAPING):
        node = node.input_value(0).get_node()
    is_weight = node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    return node if is_weight else None


def _shaped(node: Any, constant: Any) -> NDArray[np.int8]:  # noqa: ANN401 - openvino has no types
    """Return the integers in the shape in which they are multiplied."""
    turns: list[Any] = []
    while node.get_friendly_name() != constant.get_friendly_name():
        turns += [node] if node.get_type_name() in SHAPING else []
        node = node.input_value(0).get_node()
    integers: NDArray[np.int8] = constant.get_data()
    for turn in reversed(turns):
        if turn.get_type_name() == "Transpose":
            integers = integers.transpose(turn.input_value(1).get_node().get_data())
        else:
            integers = integers.reshape(tuple(turn.output(0).get_shape()))
    return integers


def _quantized(node: Any) -> bool:  # noqa: ANN401 - openvino has no types
    """Return whether a float tensor holds 8-bit activations."""
    while node.get_type_name() in (*DEQUANTIZING, *SHAPING):
        if node.get_element_type().get_type_name() in INTEGERS:
            return True
        node = node.input_value(0).get_node()
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return int(node.get_attributes()["levels"]) <= LEVELS
    return kind == "Parameter" and node.get_element_type().get_type_name() in INTEGERS

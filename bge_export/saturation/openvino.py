"""Finds the int8 weights of an OpenVINO model that are multiplied with 8-bit activations.

In OpenVINO's IR a weight is an i8 constant followed by Convert, Subtract and Multiply; activations pass through a
FakeQuantize of 256 levels, or are integers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from bge_export.errors import ArtifactError
from bge_export.files.openvino_reader import load_model
from bge_export.saturation import Weights
from bge_export.saturation.bounds import GREATEST_CODE, Bounds, Grid, grid_of

DEQUANTIZING = ("Convert", "Subtract", "Multiply")
SHAPING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")
SELECTING = ("Gather", "Slice", "StridedSlice")
PADDING = "Pad"
PASSED = (*SHAPING, *SELECTING, PADDING, "Concat", "Split", "VariadicSplit", "Broadcast")
"""Operators whose results are still 8-bit activations if their inputs are."""

INTEGERS = ("i8", "u8")
LEVELS = 256
GREATEST_SIGNED = 127


def int8_weights(path: Path) -> Weights:
    """Yield the int8 weights of a file that are multiplied with 8-bit activations.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        for node in load_model(path).get_ordered_ops():
            if node.get_type_name() == "MatMul":
                yield from _of_product(node)
            if node.get_type_name() in ("MatMul", "ScaledDotProductAttention"):
                yield from _of_activations(node)
    except Exception as error:
        raise ArtifactError(f"{path}: its weights cannot be read: {error}. Export it again.") from error


def _of_product(node: Any) -> Weights:  # noqa: ANN401 - openvino has no types
    """Yield the int8 weights of a matrix product, [..., K, N]."""
    attributes = node.get_attributes()
    (left, right) = (value.get_node() for value in node.input_values())

    for weight, other, turned in (
        (right, left, attributes["transpose_b"]),
        (left, right, not attributes["transpose_a"]),
    ):
        constant = _constant(weight)

        if constant is not None and _quantized(other):
            integers = _shaped(weight, constant)
            integers = np.swapaxes(integers, -1, -2) if turned else integers
            yield constant.get_friendly_name(), integers, _greatest_code(other)


def _of_activations(node: Any) -> Weights:  # noqa: ANN401 - openvino has no types
    """Yield the right operand of a product of two 8-bit activations as a weight: a pair of its largest values.

    OpenVINO shifts the left operand (queries) to 0 to 255 if it is signed; the right operand (keys) stays signed.
    """
    left, right = (value.get_node() for value in node.input_values()[:2])

    if _constant(left) is None and _constant(right) is None and _quantized(left) and _signed(right):
        yield node.get_friendly_name(), np.full((2, 1), _greatest_signed(right), np.int8), GREATEST_CODE


def _constant(node: Any) -> Any:  # noqa: ANN401 - openvino has no types
    """Return the i8 constant that a float tensor is dequantized from, None if it is not."""
    while node.get_type_name() in (*DEQUANTIZING, *SHAPING, *SELECTING):
        node = node.input_value(0).get_node()

    is_weight = node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    return node if is_weight else None


def _shaped(node: Any, constant: Any) -> NDArray[np.int8]:  # noqa: ANN401 - openvino has no types
    """Return the integers of `constant` in the shape of `node`, the operand of the product."""
    turns: list[Any] = []
    while node.get_friendly_name() != constant.get_friendly_name():
        turns += [node] if node.get_type_name() not in DEQUANTIZING else []
        node = node.input_value(0).get_node()

    integers: NDArray[np.int8] = constant.get_data()
    for turn in reversed(turns):
        others = [_value(value.get_node()) for value in turn.input_values()[1:]]
        integers = _evaluated(turn, openvino.Type.i8, [np.ascontiguousarray(integers), *others])

    return integers


def _value(node: Any) -> NDArray[Any]:  # noqa: ANN401 - openvino has no types
    """Return the value of a node that does not depend on the model's inputs."""
    if node.get_type_name() == "Constant":
        return np.asarray(node.get_data())
    inputs = [_value(value.get_node()) for value in node.input_values()]

    return _evaluated(node, node.get_element_type(), inputs)


def _evaluated(node: Any, kind: Any, inputs: list[NDArray[Any]]) -> NDArray[Any]:  # noqa: ANN401 - the same
    """Return the result of a node for given inputs, with elements of type `kind`."""
    result = openvino.Tensor(kind, node.output(0).get_shape())
    if not node.evaluate([result], [openvino.Tensor(value) for value in inputs]):
        raise ValueError(f"{node.get_friendly_name()!r} cannot be computed")
    return np.asarray(result.data)


def _quantized(node: Any) -> bool:  # noqa: ANN401 - openvino has no types
    """Return whether a float tensor holds 8-bit activations."""
    while node.get_type_name() in (*DEQUANTIZING, *PASSED):
        if node.get_element_type().get_type_name() in INTEGERS:
            return True
        node = node.input_value(0).get_node()

    if node.get_type_name() == "FakeQuantize":
        return int(node.get_attributes()["levels"]) <= LEVELS

    return node.get_element_type().get_type_name() in INTEGERS


def _signed(node: Any) -> bool:  # noqa: ANN401 - openvino has no types
    """Return whether the quantized values behind a float tensor can be negative."""
    while node.get_type_name() in (*DEQUANTIZING, *PASSED):
        if node.get_element_type().get_type_name() in INTEGERS:
            return bool(node.get_element_type().get_type_name() == "i8")
        node = node.input_value(0).get_node()

    if node.get_type_name() != "FakeQuantize":
        return bool(node.get_element_type().get_type_name() == "i8")

    least = _number(node.input_value(3).get_node())
    return least is None or least < 0


def _greatest_signed(node: Any) -> int:  # noqa: ANN401 - openvino has no types
    """Return the largest absolute signed quantized value behind a float tensor; 127 unless the graph clips it lower."""
    rounding, padding = _rounding(node, "i8")
    if rounding.get_type_name() != "FakeQuantize" or int(rounding.get_attributes()["levels"]) != LEVELS:
        return GREATEST_SIGNED

    ends = [_number(value.get_node()) for value in rounding.input_values()[1:]]
    bounds = _bounds(rounding.input_value(0).get_node())
    least, greatest, *_ = ends
    if bounds is None or least is None or greatest is None or not least < greatest:
        return GREATEST_SIGNED

    # Only a grid from -128 to 127, dequantized here or later, is understood.
    step = (greatest - least) / (LEVELS - 1)
    if ends[2:] not in ([least, greatest], [-128.0, 127.0]) or round(least / step) != -128:
        return GREATEST_SIGNED

    size = max(abs(bound) for bound in bounds) / step
    return min(round(max(size, padding)), GREATEST_SIGNED) if np.isfinite(size) else GREATEST_SIGNED


def _greatest_code(node: Any) -> int:  # noqa: ANN401 - openvino has no types
    """Return qmax of 8-bit activations: 255 unless the graph clips them lower."""
    rounding, padding = _rounding(node, "u8")
    grid = _grid(rounding, codes=_has_codes(node))
    return GREATEST_CODE if grid is None else grid.greatest_code(_bounds(rounding.input_value(0).get_node()), padding)


def _rounding(node: Any, codes: str) -> tuple[Any, float]:  # noqa: ANN401 - openvino has no types
    """Return the node that rounds a float tensor to `codes` (i8 or u8), and the largest |padding| added since."""
    rounding, padding = _behind(node), 0.0

    while rounding.get_type_name() == PADDING:
        padding = max(padding, _padding(rounding, codes))
        rounding = _behind(rounding.input_value(0).get_node())

    return rounding, padding


def _has_codes(node: Any) -> bool:  # noqa: ANN401 - openvino has no types
    """Return whether quantized values are dequantized on the way to a float tensor."""
    while node.get_type_name() in (*DEQUANTIZING, *PASSED):
        if node.get_type_name() in DEQUANTIZING:
            return True
        node = node.input_value(0).get_node()
    return False


def _padding(node: Any, codes: str) -> float:  # noqa: ANN401 - openvino has no types
    """Return the absolute padding value; 255 if it is not constant or if the padded tensor is not of type `codes`."""
    if node.get_element_type().get_type_name() != codes:
        return GREATEST_CODE
    if node.get_attributes()["pad_mode"] != "constant":
        return 0.0

    value = node.input_value(3).get_node()
    # Only a direct constant: a Convert could change the value.
    return abs(float(value.get_data().item())) if value.get_type_name() == "Constant" else GREATEST_CODE


def _behind(node: Any) -> Any:  # noqa: ANN401 - openvino has no types
    """Return the nearest node that does not only dequantize, reshape or select."""
    while node.get_type_name() in (*DEQUANTIZING, *SHAPING, *SELECTING):
        node = node.input_value(0).get_node()
    return node


def _bounds(node: Any) -> Bounds | None:  # noqa: ANN401 - openvino has no types
    """Return the constant bounds of a float tensor, None if the graph does not imply any; see `saturation/onnx.py`."""
    if node.get_type_name() == "Clamp":
        attributes = node.get_attributes()
        return float(attributes["min"]), float(attributes["max"])

    # Minimum(Maximum(x, least), greatest): another spelling of a clip.
    if node.get_type_name() == "Minimum":
        greatest, inner = _split(node)
        least, _ = _split(inner) if inner is not None and inner.get_type_name() == "Maximum" else (None, None)
        return None if least is None or greatest is None else (least, greatest)

    if node.get_type_name() != "Subtract":
        return None

    # A tensor minus its dequantized self: the rounding error.
    whole, back = (value.get_node() for value in node.input_values())
    rounding = back
    while rounding.get_type_name() in DEQUANTIZING:
        rounding = rounding.input_value(0).get_node()

    grid = _grid(rounding, codes=back.get_type_name() != "FakeQuantize")
    if grid is None or rounding.input_value(0).get_node().get_friendly_name() != whole.get_friendly_name():
        return None

    return grid.missed(_bounds(whole)) if _inverse(back, grid) else None


def _split(node: Any) -> tuple[float | None, Any]:  # noqa: ANN401 - openvino has no types
    """Return the scalar constant among a node's two inputs and the other input; (None, None) if neither is one."""
    one, other = (value.get_node() for value in node.input_values())

    for constant, rest in ((one, other), (other, one)):
        number = _number(constant)
        if number is not None:
            return number, rest

    return None, None


def _number(node: Any) -> float | None:  # noqa: ANN401 - openvino has no types
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()

    if node.get_type_name() != "Constant" or node.get_data().size != 1:
        return None
    return float(node.get_data().item())


def _grid(node: Any, *, codes: bool) -> Grid | None:  # noqa: ANN401 - openvino has no types
    """Return a FakeQuantize's grid; with `codes` its outputs must be 0 to 255, else the real values. None otherwise."""
    if node.get_type_name() != "FakeQuantize" or int(node.get_attributes()["levels"]) != LEVELS:
        return None

    least, greatest, *ends = (_number(value.get_node()) for value in node.input_values()[1:])
    if least is None or greatest is None or ends != ([0.0, LEVELS - 1.0] if codes else [least, greatest]):
        return None

    scale = (greatest - least) / (LEVELS - 1)
    return grid_of(scale, -least / scale if scale else 0.0)


def _inverse(node: Any, grid: Grid) -> bool:  # noqa: ANN401 - openvino has no types
    """Return whether a node dequantizes values of a grid; a FakeQuantize does so itself."""
    if node.get_type_name() == "FakeQuantize":
        return True
    if node.get_type_name() != "Multiply":
        return False

    scale, shifted = _split(node)
    zero, _ = _split(shifted) if scale is not None and shifted.get_type_name() == "Subtract" else (None, None)

    return (
        scale is not None
        and zero is not None
        and np.allclose((scale, zero), (grid.scale, grid.zero), rtol=2e-6, atol=1e-12)
    )

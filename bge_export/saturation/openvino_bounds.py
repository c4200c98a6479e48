"""Derives qmax of the activations of an OpenVINO model, and whether they are signed."""

from typing import Any

import numpy as np

from bge_export.saturation.bounds import GREATEST_CODE, Bounds, Grid, grid_of
from bge_export.saturation.openvino_operators import DEQUANTIZING, INTEGERS, LEVELS, PADDING, PASSED, SELECTING, SHAPING

GREATEST_SIGNED = 127

MOST_ERRORS = 8
"""Longest chain of tensors that are each the rounding error of the one before."""


def signed(node: Any) -> bool:  # noqa: ANN401 - openvino has no types
    """Return whether the quantized values behind a float tensor can be negative; assume so if it is not known."""
    while node.get_type_name() in (*DEQUANTIZING, *PASSED):
        if node.get_element_type().get_type_name() in INTEGERS:
            return bool(node.get_element_type().get_type_name() == "i8")
        node = node.input_value(0).get_node()

    if node.get_type_name() != "FakeQuantize":
        return bool(node.get_element_type().get_type_name() != "u8")

    least = _number(node.input_value(3).get_node())
    return least is None or least < 0


def greatest_signed(node: Any) -> int:  # noqa: ANN401 - openvino has no types
    """Return the largest absolute signed quantized value behind a float tensor; 127 unless the graph clips it lower."""
    rounding, padding = _rounding(node, "i8")
    if rounding.get_type_name() != "FakeQuantize" or int(rounding.get_attributes()["levels"]) != LEVELS:
        return GREATEST_SIGNED

    limits = [_number(value.get_node()) for value in rounding.input_values()[1:]]
    bounds = _bounds(rounding.input_value(0).get_node())
    least, greatest, *_ = limits
    if bounds is None or least is None or greatest is None or not least < greatest:
        return GREATEST_SIGNED

    # Only a grid from -128 to 127, dequantized here or later, is understood.
    step = (greatest - least) / (LEVELS - 1)
    if limits[2:] not in ([least, greatest], [-128.0, 127.0]) or round(least / step) != -128:
        return GREATEST_SIGNED

    size = max(abs(bound) for bound in bounds) / step
    return min(round(max(size, padding)), GREATEST_SIGNED) if np.isfinite(size) else GREATEST_SIGNED


def greatest_code(node: Any) -> int:  # noqa: ANN401 - openvino has no types
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


def _bounds(node: Any, depth: int = 0) -> Bounds | None:  # noqa: ANN401 - openvino has no types
    """Return the constant bounds of a float tensor, None if the graph does not imply any; see `onnx_bounds`."""
    if node.get_type_name() == "Clamp":
        attributes = node.get_attributes()
        return float(attributes["min"]), float(attributes["max"])

    # Minimum(Maximum(x, least), greatest): another spelling of a clip.
    if node.get_type_name() == "Minimum":
        greatest, inner = _split(node)
        least, _ = _split(inner) if inner is not None and inner.get_type_name() == "Maximum" else (None, None)
        return None if least is None or greatest is None else (least, greatest)

    if node.get_type_name() != "Subtract" or depth > MOST_ERRORS:
        return None

    # A tensor minus its dequantized self: the rounding error.
    whole, back = (value.get_node() for value in node.input_values())
    rounding = back
    while rounding.get_type_name() in DEQUANTIZING:
        rounding = rounding.input_value(0).get_node()

    grid = _grid(rounding, codes=back.get_type_name() != "FakeQuantize")
    if grid is None or rounding.input_value(0).get_node().get_name() != whole.get_name():
        return None

    return grid.missed(_bounds(whole, depth + 1)) if _inverse(back, grid) else None


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

    least, greatest, *limits = (_number(value.get_node()) for value in node.input_values()[1:])
    if least is None or greatest is None or limits != ([0.0, LEVELS - 1.0] if codes else [least, greatest]):
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

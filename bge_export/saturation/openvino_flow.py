"""Follows int8 weights and 8-bit activations forwards through an OpenVINO model; the rules are those of `onnx_flow`."""

from collections.abc import Sequence
from typing import Any

from bge_export.saturation.flow import Flow, first_weight
from bge_export.saturation.openvino_operators import (
    ARITHMETIC,
    CONTROL_FLOW,
    FORGETTING,
    INTEGERS,
    LEVELS,
    PADDING,
    PRODUCTS,
    SHAPES,
)

Flows = dict[tuple[str, int], Flow]
"""Unique name of a node and index of its output -> what is known of that tensor."""


def given(flows: Flows, node: Any) -> list[Flow]:  # noqa: ANN401 - openvino has no types
    """Return what is known of the inputs of a node."""
    return [flows[value.get_node().get_name(), value.get_index()] for value in node.input_values()]


def enter(flows: Flows, node: Any) -> None:  # noqa: ANN401 - openvino has no types
    """Enter the results of a node whose inputs were entered before."""
    inputs = given(flows, node)
    dynamic = any(one.dynamic for one in inputs) or (node.get_type_name() not in ("Constant",) and not inputs)

    for index, output in enumerate(node.outputs()):
        kind = output.get_element_type().get_type_name()
        flows[node.get_name(), index] = _result(node, inputs, kind, dynamic=dynamic)


def _result(node: Any, inputs: Sequence[Flow], kind: str, *, dynamic: bool) -> Flow:  # noqa: ANN401 - the same
    """Return what is known of one result of a node."""
    name = node.get_type_name()
    codes = dynamic and kind in INTEGERS

    if name == "FakeQuantize":
        return _quantized(node, inputs, kind, dynamic=dynamic)
    if name in CONTROL_FLOW:
        return Flow(True, first_weight(inputs) or node.get_friendly_name(), True, kind)
    # OpenVINO computes constants beforehand, so a constant is still a weight whatever computes it.
    if name in SHAPES or (dynamic and (name in PRODUCTS or name in FORGETTING)):
        return Flow(dynamic, None, codes, kind)

    # What activations are padded with is no weight.
    weight = first_weight(inputs[:1] if name == PADDING and inputs[0].dynamic else inputs)
    if not dynamic and kind == "i8":
        weight = weight or node.get_friendly_name()
    if not dynamic and kind == "u8":
        weight = None

    # The sum of two activations is a float that no runtime has 8 bits of.
    summed = name in ARITHMETIC and sum(one.dynamic for one in inputs) > 1
    rounded = codes or (dynamic and not summed and any(one.rounded for one in inputs))
    return Flow(dynamic, weight, rounded, kind)


def _quantized(node: Any, inputs: Sequence[Flow], kind: str, *, dynamic: bool) -> Flow:  # noqa: ANN401 - the same
    """Return what is known of the result of a FakeQuantize: of a constant OpenVINO makes an int8 weight itself."""
    coarse = int(node.get_attributes()["levels"]) <= LEVELS
    weight = inputs[0].weight or (node.get_friendly_name() if coarse else None)
    return Flow(dynamic, None if inputs[0].dynamic else weight, dynamic and coarse, kind)

"""Finds the int8 weights of an OpenVINO model that are multiplied with 8-bit activations.

In OpenVINO's IR a weight is an i8 constant followed by Convert, Subtract and Multiply; activations pass through a
FakeQuantize of 256 levels, or are integers. A weight that reaches a product in a way that cannot be followed counts as
saturating, and its name says why.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.errors import ArtifactError
from bge_export.files.openvino_reader import load_model
from bge_export.saturation import Weights, kernel_columns, unfollowed
from bge_export.saturation.bounds import GREATEST_CODE
from bge_export.saturation.flow import first_weight
from bge_export.saturation.openvino_bounds import greatest_code, greatest_signed, signed
from bge_export.saturation.openvino_codes import Computed
from bge_export.saturation.openvino_flow import Flows, enter, given
from bge_export.saturation.openvino_operators import CONTROL_FLOW, CONVOLUTIONS, OTHER_PRODUCTS


def int8_weights(path: Path) -> Weights:
    """Yield the int8 weights of a file that are multiplied with 8-bit activations.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        flows: Flows = {}
        computed = Computed(flows, path)

        for node in load_model(path).get_ordered_ops():
            yield from _of_node(computed, node)
            enter(flows, node)
    except Exception as error:
        raise ArtifactError(f"{path}: its weights cannot be read: {error}. Export it again.") from error


def _of_node(computed: Computed, node: Any) -> Weights:  # noqa: ANN401 - openvino has no types
    """Yield the int8 weights that a node multiplies with 8-bit activations, [..., K, N]."""
    name, label = node.get_type_name(), f"{node.get_type_name()} {node.get_friendly_name()!r}"
    known = node.get_type_info().version_id.startswith("opset")
    weight = first_weight(given(computed.flows, node))

    if name == "MatMul" or name in CONVOLUTIONS:
        yield from _of_product(computed, node)
    if name in ("MatMul", "ScaledDotProductAttention", *CONVOLUTIONS):
        yield from _of_activations(computed, node)

    if name in CONTROL_FLOW:
        yield unfollowed(node.get_friendly_name(), f"what the body of {label} multiplies is not known")
    elif weight is not None and not known:
        yield unfollowed(weight, f"what the operator {label} does with it is not known")
    elif name in OTHER_PRODUCTS:
        inputs = given(computed.flows, node)
        if weight is not None and any(one.rounded for one in inputs if one.weight != weight):
            yield unfollowed(weight, f"the pairs of the operator {label} are not known")


def _of_product(computed: Computed, node: Any) -> Weights:  # noqa: ANN401 - openvino has no types
    """Yield the int8 weights of a matrix product or a convolution, [..., K, N]."""
    flows = given(computed.flows, node)

    for index in (1, 0):
        weight, other = flows[index], flows[1 - index]
        if weight.weight is None or not other.rounded:
            continue

        try:
            codes, origin = computed.codes(node.input_value(index))
            if codes.dtype == np.int8:
                greatest = greatest_code(node.input_value(1 - index).get_node())
                yield origin, _arranged(node, codes.astype(np.int8), index), greatest
        except Exception as error:  # noqa: BLE001 - OpenVINO raises any type; what cannot be computed saturates
            at = f"{node.get_type_name()} {node.get_friendly_name()!r}"
            yield unfollowed(weight.weight, f"at the operator {at}: {error}")


def _arranged(node: Any, codes: NDArray[np.int8], index: int) -> NDArray[np.int8]:  # noqa: ANN401 - the same
    """Return the integers of operand `index` with the inputs first, [..., K, N].

    Raises:
        ValueError: the operand is no weight.
    """
    if node.get_type_name() in CONVOLUTIONS:
        grouped = node.get_type_name() == "GroupConvolution"
        if index == 0 or codes.ndim < (4 if grouped else 3):
            raise ValueError("it is not the weight of the convolution")
        return kernel_columns(codes.reshape(-1, *codes.shape[2:]) if grouped else codes)

    if codes.ndim < 2:
        return codes.reshape(-1, 1)

    attributes = node.get_attributes()
    turned = attributes["transpose_b"] if index == 1 else not attributes["transpose_a"]
    return np.swapaxes(codes, -1, -2) if turned else codes


def _of_activations(computed: Computed, node: Any) -> Weights:  # noqa: ANN401 - openvino has no types
    """Yield the right operand of a product of two 8-bit activations as a weight: a pair of its largest values.

    OpenVINO shifts the left operand (queries) to 0 to 255 if it is signed; the right operand (keys) stays signed.
    """
    left, right = given(computed.flows, node)[:2]
    source = node.input_value(1).get_node()

    if left.dynamic and right.dynamic and left.rounded and right.rounded and signed(source):
        yield node.get_friendly_name(), np.full((2, 1), greatest_signed(source), np.int8), GREATEST_CODE

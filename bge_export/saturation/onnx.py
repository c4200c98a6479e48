"""Finds the int8 weights of an ONNX graph that are multiplied with 8-bit activations.

Both quantized representations are read: QuantizeLinear/DequantizeLinear pairs and integer operators. A weight whose
other operand is float is skipped, because runtimes dequantize it before they multiply. Products of two activations in
QuantizeLinear/DequantizeLinear form are skipped too, because ONNX Runtime converts these to uint8 if needed; integer
operators multiply them unchanged. A weight that reaches a product in a way that cannot be followed counts as
saturating, and its name says why.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.errors import ArtifactError
from bge_export.files.onnx_reader import graphs_of, load_graph
from bge_export.saturation import Weights, kernel_columns, unfollowed
from bge_export.saturation.bounds import GREATEST_CODE
from bge_export.saturation.flow import Flow, first_weight
from bge_export.saturation.onnx_bounds import greatest_code
from bge_export.saturation.onnx_codes import codes_of
from bge_export.saturation.onnx_constants import Graph, Work
from bge_export.saturation.onnx_flow import EIGHT_BITS, Flows, type_name, walk
from bge_export.saturation.onnx_operators import (
    CONVOLUTIONS,
    FLOAT_PRODUCTS,
    FORGETTING,
    INTEGER_PRODUCTS,
    OTHER_PRODUCTS,
    QUANTIZED_NEIGHBOURS,
)

GREATEST_SIGNED = 127
OWN_DOMAINS = ("", "ai.onnx")


def int8_weights(path: Path) -> Weights:
    """Yield the int8 weights of a file that are multiplied with 8-bit activations.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        model = load_graph(path)
        for flows, node in _nodes(model, path):
            yield from _of_node(flows, node)
    except Exception as error:
        raise ArtifactError(f"{path}: its weights cannot be read: {error}. Export it again.") from error


def _nodes(model: onnx.ModelProto, path: Path) -> Iterator[tuple[Flows, onnx.NodeProto]]:
    """Yield each node of the model, of its functions and of their bodies, with what is known of its inputs."""
    functions = frozenset((one.domain, one.name) for one in model.functions)
    eight_bits, work = _has_eight_bits(model), Work.of(model, path)

    opsets = {one.domain: one.version for one in model.opset_import}
    main = Flows(Graph(model.graph, path.parent, opsets, work), functions, eight_bits)
    main.start({value.name: _given(value) for value in model.graph.input})
    yield from walk(main)

    for function in model.functions:
        own = {one.domain: one.version for one in function.opset_import}
        graph = onnx.GraphProto(name=function.name, node=function.node)
        flows = Flows(Graph(graph, path.parent, own, work), functions, eight_bits)

        # Nothing is known of its inputs: the calls decide.
        weight = f"an input of the function {function.name}" if eight_bits else None
        flows.start({name: Flow(True, weight, eight_bits) for name in function.input})
        yield from walk(flows)


def _given(value: onnx.ValueInfoProto) -> Flow:
    kind = type_name(value.type.tensor_type.elem_type)
    return Flow(dynamic=True, rounded=kind in EIGHT_BITS, kind=kind)


def _has_eight_bits(model: onnx.ModelProto) -> bool:
    """Return whether any tensor of a model can have 8 bits."""
    eight = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    kinds = {value.type.tensor_type.elem_type for value in model.graph.input}

    for graph in graphs_of(model):
        kinds |= {tensor.data_type for tensor in graph.initializer}
        kinds |= {tensor.values.data_type for tensor in graph.sparse_initializer}

        for node in graph.node:
            if "Quantize" in node.op_type or node.op_type in ("CastLike", "BitCast"):
                return True
            kinds |= {one.i for one in node.attribute if one.name == "to"}
            kinds |= {one.t.data_type for one in node.attribute if one.HasField("t")}
            kinds |= {one.sparse_tensor.values.data_type for one in node.attribute if one.HasField("sparse_tensor")}

    return bool(kinds & eight)


def _of_node(flows: Flows, node: onnx.NodeProto) -> Weights:
    """Yield the int8 weights that a node multiplies with 8-bit activations, [..., K, N]."""
    kind = node.op_type

    if (node.domain, kind) in flows.functions:
        return
    if kind in INTEGER_PRODUCTS:
        left, right = INTEGER_PRODUCTS[kind]
        yield from _of_integers(flows, node, None if left is None else node.input[left], node.input[right])
    elif kind in (*FLOAT_PRODUCTS, *CONVOLUTIONS):
        left_name, right_name = node.input[:2]
        yield from _of_floats(flows, node, right_name, left_name, on_the_right=True)
        yield from _of_floats(flows, node, left_name, right_name, on_the_right=False)
    elif kind in OTHER_PRODUCTS:
        yield from _of_other(flows, node)
    elif node.domain not in OWN_DOMAINS and kind not in QUANTIZED_NEIGHBOURS and kind not in FORGETTING:
        weight = first_weight(flows.given(node))
        if weight is not None:
            yield unfollowed(weight, f"what the operator {kind} {node.name!r} does with it is not known")


def _of_integers(flows: Flows, node: onnx.NodeProto, left: str | None, right: str) -> Weights:
    """Yield the weights of a product of integers."""
    given = flows[right]

    if given.dynamic and given.kind != "uint8":
        # The right operand is an activation as well: assume a pair of the largest values.
        yield right, np.full((2, 1), GREATEST_SIGNED, np.int8), GREATEST_CODE
    elif not given.dynamic and given.kind in ("int8", None):
        yield from _followed(flows, node, right, GREATEST_CODE, on_the_right=True)

    if left is not None and flows[left].weight is not None:
        yield from _followed(flows, node, left, GREATEST_CODE, on_the_right=False)


def _of_floats(flows: Flows, node: onnx.NodeProto, name: str, other: str, *, on_the_right: bool) -> Weights:
    """Yield the weight behind one operand of a product of floats if there are 8-bit activations behind the other."""
    if flows[name].weight is None or not flows[other].rounded:
        return

    try:
        greatest = greatest_code(flows.graph, other)
    except Exception:  # noqa: BLE001 - onnx raises any type; bounds that cannot be computed keep nothing small
        greatest = GREATEST_CODE

    yield from _followed(flows, node, name, greatest, on_the_right=on_the_right)


def _of_other(flows: Flows, node: onnx.NodeProto) -> Weights:
    """Yield each weight beside 8-bit activations; how they are multiplied is not looked at."""
    names = [name for name in node.input if name]
    quantizes = "Quantize" in node.op_type

    for name in names:
        weight, others = flows[name].weight, [flows[one] for one in names if one != name]
        if weight is not None and (quantizes or any(one.rounded for one in others)):
            yield unfollowed(weight, f"the pairs of the operator {node.op_type} {node.name!r} are not known")


def _followed(flows: Flows, node: onnx.NodeProto, name: str, greatest: int, *, on_the_right: bool) -> Weights:
    """Yield a weight as the product takes it, [..., K, N]; as saturating if that cannot be computed."""
    weight = flows[name].weight or flows.origin(name)

    try:
        integers = codes_of(flows, name)
        if integers.dtype == np.int8:
            yield weight, _arranged(node, integers.astype(np.int8), on_the_right=on_the_right), greatest
    except Exception as error:  # noqa: BLE001 - onnx raises any type; what cannot be computed counts as saturating
        yield unfollowed(weight, f"at the operator {node.op_type} {node.name!r}: {error}")


def _arranged(node: onnx.NodeProto, integers: NDArray[np.int8], *, on_the_right: bool) -> NDArray[np.int8]:
    """Return the integers of an operand with the inputs first, [..., K, N].

    Raises:
        ValueError: the operand is no weight.
    """
    if node.op_type in CONVOLUTIONS:
        if not on_the_right or integers.ndim < 3:
            raise ValueError("it is not the weight of the convolution")
        return kernel_columns(integers)

    if integers.ndim < 2:
        return integers.reshape(-1, 1)

    # A weight on the left has its inputs along the last axis.
    turned = _flag(node, "transB") if on_the_right else not _flag(node, "transA")
    return np.swapaxes(integers, -1, -2) if turned else integers


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)

"""The integer products of a quantized ONNX file, each cut out as it stands, and the worst inputs for them.

Vectors of a whole model may differ between processors though every integer is the same: one float in its last bit,
beside the middle between two codes, and the code is another. The products alone have no such chance.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bge_export.files.regular import GRAPH_BYTES
from bge_export.saturation.onnx_bounds import greatest_code
from bge_export.saturation.onnx_constants import Graph, Work

ROWS = 8
"""All codes the greatest, all the least, the rest drawn at random."""


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the node of each tensor."""
    return {name: node for node in model.graph.node for name in node.output}


def products(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, onnx.TensorProto]]:
    """Yield the matrix products on integers, with the node that quantizes their input and their weight."""
    nodes = producers(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        left, right = (nodes.get(name) for name in node.input[:2])
        if left is None or right is None or {left.op_type, right.op_type} != {"DequantizeLinear"}:
            continue
        weight = tensors.get(right.input[0])
        quantize = nodes.get(left.input[0])
        if quantize is not None and quantize.op_type in ("Slice", "Pad"):  # rows of first tokens, keys
            whole, quantize = nodes[quantize.input[0]], onnx.NodeProto()
            quantize.CopyFrom(whole)
            quantize.output[0] = quantize.name = left.input[0]
        if weight is not None and weight.data_type == onnx.TensorProto.INT8 and quantize is not None:
            yield node, quantize, weight


def cut_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the products of a model side by side: quantize, dequantize, multiply, as they stand in it."""
    nodes, tensors = producers(model), {tensor.name: tensor for tensor in model.graph.initializer}
    kept: dict[str, onnx.NodeProto] = {}
    inputs: dict[str, onnx.ValueInfoProto] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for product, quantize, weight in products(model):
        feeding = f"{quantize.output[0]}/input"
        inputs[feeding] = helper.make_tensor_value_info(
            feeding, onnx.TensorProto.FLOAT, ["rows", width(product, weight)]
        )
        first = onnx.NodeProto()
        first.CopyFrom(quantize)
        first.input[0] = feeding
        before = [nodes[name] for name in product.input if name in nodes]
        kept |= {one.output[0]: one for one in (first, *before, product)}
        outputs.append(helper.make_tensor_value_info(product.output[0], onnx.TensorProto.FLOAT, None))
    needed = {name for node in kept.values() for name in node.input}
    graph = helper.make_graph(
        list(kept.values()), "products", list(inputs.values()), outputs, [t for n, t in tensors.items() if n in needed]
    )
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return made


def turned(product: onnx.NodeProto) -> bool:
    """Return whether the weight of a product is stored as [N, K]."""
    return any(attribute.name == "transB" and attribute.i for attribute in product.attribute)


def width(product: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    """Return K of a product."""
    return int(weight.dims[1 if turned(product) else 0])


def worst_inputs(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return for each input of `cut_out` the floats that quantize to the codes wanted, [ROWS, K].

    No code is greater than the graph lets it be.
    """
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    opsets = {one.domain: one.version for one in model.opset_import}
    graph = Graph(model.graph, Path(), opsets, Work(GRAPH_BYTES))
    found: dict[str, NDArray[np.float32]] = {}
    for product, quantize, weight in products(model):
        scale, zero = (tensors[name] for name in quantize.input[1:3])
        codes = np.minimum(_codes(width(product, weight), zero.dtype), greatest_code(graph, product.input[0]))
        found[f"{quantize.output[0]}/input"] = (codes - zero.astype(np.float32)) * scale.astype(np.float32)
    return found


def _codes(columns: int, kind: np.dtype[Any]) -> NDArray[np.float32]:
    least, greatest = np.iinfo(kind).min, np.iinfo(kind).max
    drawn = np.random.default_rng(columns).integers(least, greatest, (ROWS, columns), endpoint=True)
    drawn[0], drawn[1] = greatest, least
    return drawn.astype(np.float32)


def with_saturating_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every pair of every weight breaks the rule: the control that must differ."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for product, _, weight in products(copy):
        values = numpy_helper.to_array(weight)
        values = values.T if turned(product) else values
        signs = np.where(values < 0, -1, 1).astype(np.int8)
        saturating = signs[np.arange(len(signs)) // 2 * 2] * np.int8(127)
        weight.CopyFrom(
            numpy_helper.from_array(np.ascontiguousarray(saturating.T if turned(product) else saturating), weight.name)
        )
    return copy

"""Converts float32 weights, including the token embedding table, to 4 bits; all arithmetic stays float32.

MatMul nodes become `com.microsoft.MatMulNBits`, which ONNX Runtime, onnxruntime-web (Transformers.js from version 3)
and OpenVINO support at opset 17 and IR 8.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bge_export.calibration.moments import Moments, input_moments
from bge_export.contracts import Checkpoint
from bge_export.graph.products import constant_products
from bge_export.precision.graphs import fp16
from bge_export.precision.graphs.gptq import Blocks, round_weight
from bge_export.precision.graphs.q4_table import pack_table

DOMAIN = "com.microsoft"
BLOCK = 32
"""Inputs per scale: the default of onnxruntime's tools, supported by every kernel."""

INT8_PRODUCTS = 4
"""`accuracy_level`: allows kernels to round inputs to 8 bits, in blocks of each token. Without it, kernels unpack the
weights to float32 and are slower than float32 itself."""


def convert(model: onnx.ModelProto, checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return the graph with every constant matrix and the token embedding table in 4 bits.

    Args:
        model: a float32 graph with a type on every value; it is changed in place.
        checkpoint: provides the tokenizer and the pooling for calibration.
    """
    return quantize(model, input_moments(model, constant_products(model.graph), checkpoint))


def half(model: onnx.ModelProto, _checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return a graph of `convert` with float16 arithmetic and scales; the graph is changed in place.

    Inputs are not rounded to 8 bits here: the float16 kernels that round them give a text a different vector in a batch
    (cosine 0.9995 on bge-small-en; 0.9999995 without rounding).
    """
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend(kept)

    return fp16.convert(model)


def quantize(model: onnx.ModelProto, moments: Moments) -> onnx.ModelProto:
    """Return the graph in 4 bits, given the input moments of its `constant_products`; it is changed in place."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}

    # Layers may share a weight, which is then rounded once.
    rounded: dict[str, Blocks] = {}
    for node in constant_products(graph):
        name = node.input[1]
        if name not in rounded:
            weight = numpy_helper.to_array(weights[name]).astype(np.float32)
            rounded[name] = _round(weight, moments[name])
        _replace(graph, node, name, tuple(weights[name].dims), rounded[name])

    pack_table(graph)

    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)

    if rounded:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))

    return model


def _round(weight: NDArray[np.float32], moments: NDArray[np.float32]) -> Blocks:
    """Round a weight [K, N]; pad K with zeros, which MatMulNBits ignores, to a multiple of `BLOCK`."""
    missing = -len(weight) % BLOCK
    return round_weight(np.pad(weight, ((0, missing), (0, 0))), np.pad(moments, (0, missing)), BLOCK)


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, name: str, dims: tuple[int, ...], blocks: Blocks) -> None:
    """Replace a MatMul by a MatMulNBits; add its constants to the graph unless another node has added them."""
    constants: Mapping[str, NDArray[np.generic]] = {
        f"{name}/codes": pairs(blocks.codes.T).reshape(dims[1], -1, BLOCK // 2),
        f"{name}/scales": np.ascontiguousarray(blocks.scales.T),
        f"{name}/zeros": pairs(blocks.zeros.T),
    }

    present = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(
        numpy_helper.from_array(array, key) for key, array in constants.items() if key not in present
    )

    new = helper.make_node(
        "MatMulNBits",
        [node.input[0], *constants],
        list(node.output),
        node.name,
        domain=DOMAIN,
        K=dims[0],
        N=dims[1],
        bits=4,
        block_size=BLOCK,
        accuracy_level=INT8_PRODUCTS,
    )
    node.CopyFrom(new)


def pairs(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack 4-bit values in pairs along the last axis, the first in the low half of a byte; pad an odd length with 0."""
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return np.bitwise_or(even[:, ::2], np.left_shift(even[:, 1::2], np.uint8(4)), dtype=np.uint8)

"""float32 to 4-bit weights, the table of token embeddings included; all arithmetic stays float32.

The weights of MatMul become `com.microsoft.MatMulNBits`, which ONNX Runtime, onnxruntime-web (Transformers.js from
version 3) and OpenVINO read at opset 17 and IR 8.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bge_export.calibration.moments import Moments, input_moments
from bge_export.contracts import Checkpoint
from bge_export.graph.products import constant_products
from bge_export.precision import fp16
from bge_export.precision.gptq import Blocks, round_weight
from bge_export.precision.q4_table import pack_table

DOMAIN = "com.microsoft"
BLOCK = 32
"""Inputs that share a scale: what onnxruntime's own tools default to, and every kernel has."""

INT8_PRODUCTS = 4
"""`accuracy_level`: kernels that can may round each input to 8 bits, block by block of each token. Without, they unpack
the weights to float32 and are slower than float32 itself."""


def convert(model: onnx.ModelProto, checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return the graph with every constant matrix and the table of token embeddings in 4 bits.

    Args:
        model: a float32 graph with a type on every value; it is changed.
        checkpoint: whose tokenizer the calibration texts are fed through.
    """
    return quantize(model, input_moments(model, constant_products(model.graph), checkpoint))


def half(model: onnx.ModelProto, _checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return a graph of `convert` with float16 arithmetic and scales; it is changed.

    Inputs stay unrounded here: in float16 the kernels that round them give a text another vector in a batch (0.9995 on
    bge-small-en; 0.9999995 without).
    """
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return fp16.convert(model)


def quantize(model: onnx.ModelProto, moments: Moments) -> onnx.ModelProto:
    """Return the graph in 4 bits, given the moments of the inputs of its `constant_products`; it is changed."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
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
    """Round a weight [K, N]; where K is no multiple of `BLOCK`, zeros are added, which MatMulNBits leaves out."""
    missing = -len(weight) % BLOCK
    return round_weight(np.pad(weight, ((0, missing), (0, 0))), np.pad(moments, (0, missing)), BLOCK)


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, name: str, dims: tuple[int, ...], blocks: Blocks) -> None:
    """Turn a MatMul into a MatMulNBits, whose constants are added to the graph unless another node brought them."""
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
        "MatMulNBits", [node.input[0], *constants], list(node.output), node.name, domain=DOMAIN, K=dims[0], N=dims[1],
        bits=4, block_size=BLOCK, accuracy_level=INT8_PRODUCTS,
    )  # fmt: skip
    node.CopyFrom(new)


def pairs(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return codes of 4 bits two a byte along the last axis, the earlier one in the low half; an odd end is filled."""
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return np.bitwise_or(even[:, ::2], np.left_shift(even[:, 1::2], np.uint8(4)), dtype=np.uint8)

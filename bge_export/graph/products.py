"""Finds the matrix products with constant weights, which hold most of a graph's parameters."""

import onnx
from onnx import TensorProto


def constant_products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return each MatMul of a computed tensor and a constant float32 matrix."""
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2 and t.data_type == TensorProto.FLOAT}
    return [
        node
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices and node.input[0] not in matrices
    ]

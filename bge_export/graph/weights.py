"""Sets a graph's weights aside while passes change its operators, so that no pass copies them."""

import onnx
import onnx_ir as ir
from onnx import TensorProto

from bge_export.graph.tidy import SMALL_ELEMENTS

MATRIX = 2

Weights = dict[str, ir.TensorProtocol]
"""Name of an initializer when it was set aside -> its numbers."""


def set_aside(graph: ir.Graph) -> Weights:
    """Replace each large matrix by a mark of its name, type and shape; return what was replaced.

    Vectors stay: inference of shapes reads the operands of an `Add`.
    """
    aside: Weights = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and len(tensor.shape) == MATRIX and tensor.size > SMALL_ELEMENTS:
            aside[name] = tensor
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor(name, 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)

    return aside


def put_back(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Return the graph with its weights in place of their marks, whatever they are called now; it is changed."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            (mark,) = (entry.value for entry in tensor.external_data if entry.key == "location")
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = weights[mark].tobytes()

    return model

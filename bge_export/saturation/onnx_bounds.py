"""Derives qmax of the activations of an ONNX graph from its Clip nodes."""

import numpy as np
import onnx

from bge_export.saturation.bounds import GREATEST_CODE, Bounds, Grid, grid_of
from bge_export.saturation.onnx_constants import Graph
from bge_export.saturation.onnx_operators import ADDING, SELECTING, SHAPING

MOST_ERRORS = 8
"""Longest chain of tensors that are each the rounding error of the one before."""


def greatest_code(graph: Graph, name: str) -> int:
    """Return the largest quantized value of the 8-bit activations that a float tensor is dequantized from."""
    node = behind(graph, name, (*SHAPING, *SELECTING))
    rounding = None if node is None or node.op_type in ADDING or not node.input else graph.producer(node.input[0])

    padding = 0.0
    while rounding is not None and rounding.op_type == "Pad":
        padding = max(padding, _padding(graph, rounding))
        rounding = graph.producer(rounding.input[0])

    grid = _grid(graph, rounding)
    if rounding is None or grid is None:
        return GREATEST_CODE
    return grid.greatest_code(_bounds(graph, rounding.input[0]), padding)


def behind(graph: Graph, name: str, passed: tuple[str, ...]) -> onnx.NodeProto | None:
    """Return the nearest node at or before a tensor whose operator is not in `passed`."""
    node = graph.producer(name)
    while node is not None and node.op_type in passed and node.input:
        node = graph.producer(node.input[0])
    return node


def _padding(graph: Graph, node: onnx.NodeProto) -> float:
    """Return the value that a Pad fills with; qmax (255) if it is not constant."""
    if len(node.input) < 3 or not node.input[2]:
        return 0.0

    value = graph.constant(node.input[2])
    return GREATEST_CODE if value is None else float(value.item())


def _bounds(graph: Graph, name: str, depth: int = 0) -> Bounds | None:
    """Return the constant bounds of a float tensor, None if the graph does not imply any.

    They are those of a Clip, or of the rounding error of a tensor that its grid covers.
    """
    node = graph.producer(name)

    if node is not None and node.op_type == "Clip" and len(node.input) == 3 and all(node.input):
        least, greatest = (graph.constant(end) for end in node.input[1:])
        return None if least is None or greatest is None else (float(least.item()), float(greatest.item()))

    if node is None or node.op_type != "Sub" or depth > MOST_ERRORS:
        return None

    # A tensor minus its dequantized self: the rounding error.
    whole, back = node.input[0], graph.producer(node.input[1])
    rounding = None if back is None or back.op_type != "DequantizeLinear" else graph.producer(back.input[0])

    grid = _grid(graph, rounding)
    if grid is None or rounding is None or back is None or back.input[1:] != rounding.input[1:]:
        return None

    return grid.missed(_bounds(graph, whole, depth + 1)) if rounding.input[0] == whole else None


def _grid(graph: Graph, node: onnx.NodeProto | None) -> Grid | None:
    """Return the grid of a per-tensor QuantizeLinear to uint8, None for any other node."""
    if node is None or node.op_type != "QuantizeLinear" or len(node.input) < 3:
        return None

    scale, zero = (graph.constant(name) for name in node.input[1:3])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype != np.uint8:
        return None

    return grid_of(float(scale.item()), float(zero.item()))

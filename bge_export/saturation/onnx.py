"""Finds the int8 weights of an ONNX graph that are multiplied with 8-bit activations.

Both quantized representations are read: QuantizeLinear/DequantizeLinear pairs and integer operators. A weight whose
other operand is float is skipped, because runtimes dequantize it before they multiply. Products of two activations in
QuantizeLinear/DequantizeLinear form are skipped too, because ONNX Runtime converts these to uint8 if needed; integer
operators multiply them unchanged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from bge_export.errors import ArtifactError
from bge_export.files.onnx_reader import load_graph
from bge_export.files.regular import GRAPH_BYTES
from bge_export.saturation import Weights
from bge_export.saturation.bounds import GREATEST_CODE, Bounds, Grid, grid_of

INTEGER_PRODUCTS: Mapping[str, int] = {
    "MatMulInteger": 1,
    "QLinearMatMul": 3,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QGemm": 3,
    "QAttention": 1,
}
"""Operator of ONNX or ONNX Runtime -> index of its weight input; the activations have 8 bits in all of them."""

FLOAT_PRODUCTS = ("MatMul", "Gemm")
SHAPING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")
"""Operators that leave each value unchanged: runtimes move them across the quantization."""

SELECTING = ("Slice", "Gather")
"""Operators that drop some values."""

ADDING = ("Pad", "Concat", "Split", "Expand")
"""Further operators whose results are still 8-bit activations, but may mix several grids."""

GREATEST_SIGNED = 127


@dataclass(frozen=True)
class Graph:
    """A graph with lookup by tensor name; `folder` contains its external data."""

    graph: onnx.GraphProto
    folder: Path

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """Return the stored tensors by name."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Return the node that produces each tensor, by the tensor's name."""
        return {name: node for node in self.graph.node for name in node.output}

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return a value that depends on no input, computed from the stored tensors; None if it cannot be."""
        return self._constant(name, {})

    def _constant(self, name: str, known: dict[str, NDArray[np.generic] | None]) -> NDArray[np.generic] | None:
        """Implement `constant`; `known` caches shared values, or evaluation could take exponential time."""
        if name in self.tensors:
            return onnx.numpy_helper.to_array(self.tensors[name], str(self.folder))

        if name not in known:
            node = self.producers.get(name)
            known[name] = None  # before the recursion, so that a cycle ends

            if node is not None and node.op_type in (*SHAPING, *SELECTING, "Constant", "QuantizeLinear"):
                values = {one: self._constant(one, known) for one in node.input if one}
                known[name] = None if any(value is None for value in values.values()) else _run(node, values)

        return known[name]

    def codes(self, name: str) -> tuple[str, NDArray[np.int8]] | None:
        """Return name and integers of the int8 weight behind a float tensor, in that tensor's shape; or None."""
        node = self.producers.get(name)
        if node is None:
            return None
        if node.op_type == "DequantizeLinear":
            return self.stored(node.input[0])

        found = self.codes(node.input[0]) if node.op_type in (*SHAPING, *SELECTING) else None
        if found is None:
            return None

        others = {one: self.constant(one) for one in node.input[1:] if one}
        return found[0], np.asarray(_run(node, {node.input[0]: found[1], **others}), dtype=np.int8)

    def stored(self, name: str) -> tuple[str, NDArray[np.int8]] | None:
        """Return name and integers of a constant int8 weight, None if it is not constant or not int8."""
        value = self.constant(name)
        return None if value is None or value.dtype != np.int8 else (self.origin(name), value.astype(np.int8))

    def origin(self, name: str) -> str:
        """Return the name of the stored tensor that a constant is computed from."""
        while name not in self.tensors and self.producers[name].input:
            name = self.producers[name].input[0]
        return name

    def quantized(self, name: str) -> bool:
        """Return whether a float tensor holds 8-bit activations."""
        node = self.behind(name, (*SHAPING, *SELECTING, *ADDING))
        return node is not None and node.op_type == "DequantizeLinear" and self.constant(node.input[0]) is None

    def behind(self, name: str, passed: Sequence[str]) -> onnx.NodeProto | None:
        """Return the nearest node at or before a tensor whose operator is not in `passed`."""
        node = self.producers.get(name)
        while node is not None and node.op_type in passed:
            node = self.producers.get(node.input[0])
        return node

    def signed(self, name: str) -> bool:
        """Return whether quantized activations are int8; assume so unless the graph proves that they are not."""
        node = self.behind(name, (*SHAPING, *SELECTING, *ADDING))
        if node is None or node.op_type != "QuantizeLinear":
            return node is None or node.op_type != "DynamicQuantizeLinear"

        zero = self.constant(node.input[2]) if len(node.input) > 2 else None
        return zero is not None and zero.dtype == np.int8  # without a zero point, quantized values are uint8

    def greatest_code(self, name: str) -> int:
        """Return the largest quantized value of the 8-bit activations that a float tensor is dequantized from."""
        node = self.behind(name, (*SHAPING, *SELECTING))
        rounding = None if node is None or node.op_type in ADDING else self.producers.get(node.input[0])

        padding = 0.0
        while rounding is not None and rounding.op_type == "Pad":
            padding = max(padding, self.padding(rounding))
            rounding = self.producers.get(rounding.input[0])

        grid = self.grid(rounding)
        if rounding is None or grid is None:
            return GREATEST_CODE
        return grid.greatest_code(self.bounds(rounding.input[0]), padding)

    def padding(self, node: onnx.NodeProto) -> float:
        """Return the value that a Pad fills with; qmax (255) if it is not constant."""
        if len(node.input) < 3 or not node.input[2]:
            return 0.0

        value = self.constant(node.input[2])
        return GREATEST_CODE if value is None else float(value.item())

    def bounds(self, name: str) -> Bounds | None:
        """Return the constant bounds of a float tensor, None if the graph does not imply any.

        They are those of a Clip, or of the rounding error of a tensor that its grid covers.
        """
        node = self.producers.get(name)

        if node is not None and node.op_type == "Clip" and len(node.input) == 3 and all(node.input):
            least, greatest = (self.constant(end) for end in node.input[1:])
            return None if least is None or greatest is None else (float(least), float(greatest))

        if node is None or node.op_type != "Sub":
            return None

        # A tensor minus its dequantized self: the rounding error.
        whole, back = node.input[0], self.producers.get(node.input[1])
        rounding = None if back is None or back.op_type != "DequantizeLinear" else self.producers.get(back.input[0])

        grid = self.grid(rounding)
        if grid is None or rounding is None or back is None or back.input[1:] != rounding.input[1:]:
            return None

        return grid.missed(self.bounds(whole)) if rounding.input[0] == whole else None

    def grid(self, node: onnx.NodeProto | None) -> Grid | None:
        """Return the grid of a per-tensor QuantizeLinear to uint8, None for any other node."""
        if node is None or node.op_type != "QuantizeLinear" or len(node.input) < 3:
            return None

        scale, zero = (self.constant(name) for name in node.input[1:3])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype != np.uint8:
            return None

        return grid_of(float(scale.item()), float(zero.item()))


def int8_weights(path: Path) -> Weights:
    """Yield the int8 weights of a file that are multiplied with 8-bit activations.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        graph = Graph(load_graph(path).graph, path.parent)
        for node in graph.graph.node:
            yield from _of_node(graph, node)
    except Exception as error:
        raise ArtifactError(f"{path}: its weights cannot be read: {error}. Export it again.") from error


def _of_node(graph: Graph, node: onnx.NodeProto) -> Weights:
    """Yield the int8 weights of a matrix product, [..., K, N]."""
    if node.op_type in INTEGER_PRODUCTS:
        right = node.input[INTEGER_PRODUCTS[node.op_type]]

        found = graph.stored(right)
        if found is not None:
            yield found[0], _turned(found[1], _flag(node, "transB")), GREATEST_CODE
        elif graph.constant(right) is None and graph.signed(right):
            # The right operand is an activation as well: assume a pair of the largest values.
            yield right, np.full((2, 1), GREATEST_SIGNED, np.int8), GREATEST_CODE
    elif node.op_type in FLOAT_PRODUCTS:
        left, right = node.input[:2]

        weight, turned = graph.codes(right), _flag(node, "transB")
        if weight is not None and graph.quantized(left):
            yield weight[0], _turned(weight[1], turned), graph.greatest_code(left)

        # A weight on the left has its inputs along the last axis.
        weight, turned = graph.codes(left), not _flag(node, "transA")
        if weight is not None and graph.quantized(right):
            yield weight[0], _turned(weight[1], turned), graph.greatest_code(right)


def _turned(integers: NDArray[np.int8], turned: bool) -> NDArray[np.int8]:
    return np.swapaxes(integers, -1, -2) if turned else integers


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _run(node: onnx.NodeProto, values: Mapping[str, object]) -> NDArray[np.generic]:
    """Evaluate one node.

    Raises:
        ValueError: its result would exceed the size limit of a graph.
    """
    if node.op_type == "Gather":
        data, indices = (np.asarray(values[name]) for name in node.input[:2])
        # A row can be gathered any number of times: only here can a result be larger than its inputs.
        if indices.size * data.nbytes // max(min(data.shape, default=1), 1) > GRAPH_BYTES:
            raise ValueError(f"{node.name or node.output[0]!r} gathers more than {GRAPH_BYTES} bytes")

    (value,) = ReferenceEvaluator(node).run(None, dict(values))
    return np.asarray(value)

"""The int8 weights of an ONNX graph that are multiplied with 8-bit activations.

Quantized either way: between QuantizeLinear and DequantizeLinear, or in operators on integers. A weight whose other
operand stays float is left out: runtimes make it float before they multiply. So are products of two activations between
QuantizeLinear and DequantizeLinear, of which ONNX Runtime makes uint8 ones where it needs to; operators on integers
multiply them as they come.
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
"""Operator (ONNX's own and ONNX Runtime's) -> which of its inputs is the weight; the activations have 8 bits in all."""

FLOAT_PRODUCTS = ("MatMul", "Gemm")
SHAPING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")
"""Operators that leave each value as it is: runtimes move them around the quantization."""

SELECTING = ("Slice", "Gather")
"""Operators that leave some values out."""

ADDING = ("Pad", "Concat", "Split", "Expand")
"""Further operators behind which 8-bit activations still are some, if no longer of one grid."""

GREATEST_SIGNED = 127


@dataclass(frozen=True)
class Graph:
    """A graph by names; `folder` holds what is stored outside of it."""

    graph: onnx.GraphProto
    folder: Path

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """Return the stored tensors by name."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Return the node of each tensor."""
        return {name: node for node in self.graph.node for name in node.output}

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return a value that no input decides, computed through what stands between it and the stored tensors."""
        return self._constant(name, {})

    def _constant(self, name: str, known: dict[str, NDArray[np.generic] | None]) -> NDArray[np.generic] | None:
        """Return the same; `known` keeps what two ways lead to, else a few nodes could ask for it a million times."""
        if name in self.tensors:
            return onnx.numpy_helper.to_array(self.tensors[name], str(self.folder))
        if name not in known:
            node = self.producers.get(name)
            known[name] = None
            if node is not None and node.op_type in (*SHAPING, *SELECTING, "Constant", "QuantizeLinear"):
                values = {one: self._constant(one, known) for one in node.input if one}
                known[name] = None if any(value is None for value in values.values()) else _run(node, values)
        return known[name]

    def codes(self, name: str) -> tuple[str, NDArray[np.int8]] | None:
        """Return name and integers of an int8 weight that stands behind a float tensor, in that tensor's shape."""
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
        """Return name and integers of an int8 weight."""
        value = self.constant(name)
        return None if value is None or value.dtype != np.int8 else (self.origin(name), value.astype(np.int8))

    def origin(self, name: str) -> str:
        """Return the name under which a constant is stored."""
        while name not in self.tensors and self.producers[name].input:
            name = self.producers[name].input[0]
        return name

    def quantized(self, name: str) -> bool:
        """Return whether a float tensor holds 8-bit activations."""
        node = self.behind(name, (*SHAPING, *SELECTING, *ADDING))
        return node is not None and node.op_type == "DequantizeLinear" and self.constant(node.input[0]) is None

    def behind(self, name: str, passed: Sequence[str]) -> onnx.NodeProto | None:
        """Return the node of a tensor, or the next one before it whose operator is not passed over."""
        node = self.producers.get(name)
        while node is not None and node.op_type in passed:
            node = self.producers.get(node.input[0])
        return node

    def signed(self, name: str) -> bool:
        """Return whether codes that inputs decide are int8, which they are where nothing says that they are not."""
        node = self.behind(name, (*SHAPING, *SELECTING, *ADDING))
        if node is None or node.op_type != "QuantizeLinear":
            return node is None or node.op_type != "DynamicQuantizeLinear"
        zero = self.constant(node.input[2]) if len(node.input) > 2 else None
        return zero is not None and zero.dtype == np.int8  # without a zero point codes are uint8

    def greatest_code(self, name: str) -> int:
        """Return the greatest code that 8-bit activations behind a float tensor can have."""
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
        """Return what a Pad fills with, the greatest code where no constant says it."""
        if len(node.input) < 3 or not node.input[2]:
            return 0.0
        value = self.constant(node.input[2])
        return GREATEST_CODE if value is None else float(value.item())

    def bounds(self, name: str) -> Bounds | None:
        """Return between which constants the graph keeps a float tensor, None where it says nothing of them.

        They are those of a Clip, or what rounding to a grid can miss of a tensor within it.
        """
        node = self.producers.get(name)
        if node is not None and node.op_type == "Clip" and len(node.input) == 3 and all(node.input):
            least, greatest = (self.constant(end) for end in node.input[1:])
            return None if least is None or greatest is None else (float(least), float(greatest))
        if node is None or node.op_type != "Sub":
            return None
        whole, back = node.input[0], self.producers.get(node.input[1])
        rounding = None if back is None or back.op_type != "DequantizeLinear" else self.producers.get(back.input[0])
        grid = self.grid(rounding)
        if grid is None or rounding is None or back is None or back.input[1:] != rounding.input[1:]:
            return None
        return grid.missed(self.bounds(whole)) if rounding.input[0] == whole else None

    def grid(self, node: onnx.NodeProto | None) -> Grid | None:
        """Return the grid of a QuantizeLinear to uint8 with one scale, else None."""
        if node is None or node.op_type != "QuantizeLinear" or len(node.input) < 3:
            return None
        scale, zero = (self.constant(name) for name in node.input[1:3])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype != np.uint8:
            return None
        return grid_of(float(scale.item()), float(zero.item()))


def int8_weights(path: Path) -> Weights:
    """Yield the weights of a file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        graph = Graph(load_graph(path).graph, path.parent)
        for node in graph.graph.node:
            yield from _of_node(graph, node)
    except Exception as error:
        raise ArtifactError(f"{path}: its weights cannot be read: {error}. Export it again.") from error


def _of_node(graph: Graph, node: onnx.NodeProto) -> Weights:
    """Yield the int8 weight of a product, [..., K, N]."""
    if node.op_type in INTEGER_PRODUCTS:
        right = node.input[INTEGER_PRODUCTS[node.op_type]]
        found = graph.stored(right)
        if found is not None:
            yield found[0], _turned(found[1], _flag(node, "transB")), GREATEST_CODE
        elif graph.constant(right) is None and graph.signed(right):
            # Activations in a weight's place: a pair as large as it can be.
            yield right, np.full((2, 1), GREATEST_SIGNED, np.int8), GREATEST_CODE
    elif node.op_type in FLOAT_PRODUCTS:
        left, right = node.input[:2]
        weight, turned = graph.codes(right), _flag(node, "transB")
        if weight is not None and graph.quantized(left):
            yield weight[0], _turned(weight[1], turned), graph.greatest_code(left)
        # A weight on the left has its inputs last.
        weight, turned = graph.codes(left), not _flag(node, "transA")
        if weight is not None and graph.quantized(right):
            yield weight[0], _turned(weight[1], turned), graph.greatest_code(right)


def _turned(integers: NDArray[np.int8], turned: bool) -> NDArray[np.int8]:
    return np.swapaxes(integers, -1, -2) if turned else integers


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _run(node: onnx.NodeProto, values: Mapping[str, object]) -> NDArray[np.generic]:
    """Compute one node.

    Raises:
        ValueError: its result would be larger than a graph can be.
    """
    if node.op_type == "Gather":
        data, indices = (np.asarray(values[name]) for name in node.input[:2])
        # A row may be asked for any number of times: the one operator here whose result outgrows its inputs.
        if indices.size * data.nbytes // max(min(data.shape, default=1), 1) > GRAPH_BYTES:
            raise ValueError(f"{node.name or node.output[0]!r} gathers more than {GRAPH_BYTES} bytes")
    (value,) = ReferenceEvaluator(node).run(None, dict(values))
    return np.asarray(value)

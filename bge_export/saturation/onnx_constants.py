"""Computes the constants of an ONNX graph one node at a time, in bounded time and memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from bge_export.files.onnx_reader import graphs_of, ordered
from bge_export.files.regular import GRAPH_BYTES
from bge_export.saturation.onnx_operators import ELEMENTWISE, EVALUATED

Array = NDArray[np.generic]

DEEPEST = 200
"""Longest chain of nodes that is followed back from one tensor."""

MOST_REPEATS = 32
"""How often the bytes of a file may be computed anew; the files of this package need it about six times."""


@dataclass
class Work:
    """The bytes that may be computed for one file, and those that were so far."""

    most_bytes: int
    spent_bytes: int = 0

    @classmethod
    def of(cls, model: onnx.ModelProto, path: Path) -> "Work":
        """Return the work that a file is worth, by the size of its bytes on disk."""
        tensors = [tensor for graph in graphs_of(model) for tensor in graph.initializer]
        locations = {one.value for tensor in tensors for one in tensor.external_data if one.key == "location"}
        files = [path, *(path.parent / name for name in locations)]
        return cls(GRAPH_BYTES // 2 + MOST_REPEATS * sum(file.stat().st_size for file in files if file.is_file()))

    def spend(self, count: int) -> None:
        """Count bytes.

        Raises:
            ValueError: they are more than one result, or one file, may have.
        """
        if count > GRAPH_BYTES:
            raise ValueError(f"its result would have {count} bytes")

        self.spent_bytes += count
        if self.spent_bytes > self.most_bytes:
            raise ValueError(f"more than {self.most_bytes} bytes would be computed for this file")


@dataclass(frozen=True)
class Graph:
    """A graph, or the body of a node or function, with lookup by tensor name.

    Attributes:
        graph: its nodes and stored tensors.
        folder: contains the external data.
        opsets: domain -> version of its operators.
        work: what was computed for the file.
        around: the graph that contains this body; None for a main graph and for functions.
    """

    graph: onnx.GraphProto
    folder: Path
    opsets: Mapping[str, int]
    work: Work
    around: "Graph | None" = None

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        """Return the nodes, each after those whose results it reads."""
        return ordered(self.graph.node)

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """Return the stored tensors by name.

        Raises:
            ValueError: a tensor is stored twice, or a node gives it as well; runtimes differ in which they take.
        """
        found: dict[str, onnx.TensorProto] = {}
        for tensor in self.graph.initializer:
            if tensor.name in found or tensor.name in self.producers or tensor.name in self.sparse:
                raise ValueError(f"the tensor {tensor.name!r} is there twice")
            found[tensor.name] = tensor
        return found

    @cached_property
    def sparse(self) -> dict[str, onnx.SparseTensorProto]:
        """Return the tensors that are stored as positions and values, by name."""
        return {tensor.values.name: tensor for tensor in self.graph.sparse_initializer}

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Return the node that produces each tensor, by the tensor's name."""
        return {name: node for node in self.graph.node for name in node.output if name}

    def holds(self, name: str) -> bool:
        """Return whether a tensor is stored or made in this graph."""
        return name in self.tensors or name in self.sparse or name in self.producers

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that produces a tensor, here or in the graph around; None if no node does."""
        if self.around is not None and not self.holds(name):
            return self.around.producer(name)
        return None if name in self.tensors else self.producers.get(name)

    def constant(self, name: str) -> Array | None:
        """Return a value that depends on no input, computed from the stored tensors; None if it cannot be."""
        return self._constant(name, {}, 0)

    def _constant(self, name: str, known: dict[str, Array | None], depth: int) -> Array | None:
        """Implement `constant`; `known` caches shared values, or evaluation could take exponential time."""
        if name in self.tensors:
            value = onnx.numpy_helper.to_array(self.tensors[name], str(self.folder))
            self.work.spend(value.nbytes)
            return value
        if name in self.sparse:
            return self._dense(self.sparse[name])
        if self.around is not None and name not in self.producers:
            return self.around.constant(name)

        if name not in known:
            known[name] = None
            node = self.producers.get(name)

            if node is not None and node.op_type in EVALUATED and depth < DEEPEST:
                values = {one: self._constant(one, known, depth + 1) for one in node.input if one}
                found = {one: value for one, value in values.items() if value is not None}
                if len(found) == len(values):
                    known.update(zip(node.output, self.run(node, found), strict=True))

        return known[name]

    def _dense(self, tensor: onnx.SparseTensorProto) -> Array:
        """Return a sparse tensor as an array; its positions are numbers of elements, or one index for each axis."""
        values = onnx.numpy_helper.to_array(tensor.values, str(self.folder))
        indices = onnx.numpy_helper.to_array(tensor.indices, str(self.folder))
        self.work.spend(math.prod(tensor.dims) * values.itemsize)

        dense = np.zeros(tuple(tensor.dims), values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
        return dense

    def run(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> Sequence[Array]:
        """Return the results of a node, by the rules of the graph's own opset.

        Args:
            node: the node.
            values: its inputs by name.

        Raises:
            ValueError: a result would be too large, an integer does not fit its type, or the node is not valid.
        """
        if any(one.ref_attr_name for one in node.attribute):
            raise ValueError("the call of the function decides about it")

        given = [values[name] for name in node.input if name]
        self.work.spend(_most_elements(node, given) * max(4, *(value.itemsize for value in given), 0))
        self._refuse_overflow(node, values)

        inputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(filter(None, node.input))]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = onnx.GraphProto(name="one", node=[node], input=inputs, output=outputs)
        try:
            results = ReferenceEvaluator(graph, opsets=dict(self.opsets)).run(None, dict(values))
        except Exception as error:
            raise ValueError(f"{node.op_type} {node.name!r} cannot be computed: {error}") from error

        return [np.asarray(result) for result in results]

    def _refuse_overflow(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> None:
        """Raise ValueError if a Cast to int8 gets values beyond it: each runtime makes other integers of them."""
        kind = next((one.i for one in node.attribute if one.name == "to"), None)
        if node.op_type != "Cast" or kind != onnx.TensorProto.INT8:
            return

        given = values[node.input[0]]
        if given.size and not (given.min() >= -128 and given.max() <= 127):
            raise ValueError("values that are no int8 are cast to it")


def _most_elements(node: onnx.NodeProto, values: Sequence[Array]) -> int:
    """Return an upper bound of the number of elements that a node of `EVALUATED` gives."""
    kind, first = node.op_type, values[0] if values else np.zeros(0)

    if kind == "Gather":
        # A row can be gathered any number of times.
        return values[1].size * first.size // max(min(first.shape, default=1), 1)
    if kind == "ConstantOfShape":
        return math.prod(abs(int(axis)) for axis in first.reshape(-1))
    if kind == "Expand":
        return math.prod(np.broadcast_shapes(first.shape, tuple(int(axis) for axis in values[1].reshape(-1))))
    if kind == "Tile":
        return first.size * math.prod(abs(int(axis)) for axis in values[1].reshape(-1))
    if kind == "Pad":
        added = sum(abs(int(axis)) for axis in values[1].reshape(-1)) if len(values) > 1 else 0
        return math.prod(axis + added for axis in first.shape)
    if kind in ELEMENTWISE:
        return math.prod(np.broadcast_shapes(*(value.shape for value in values)))

    return sum(value.size for value in values)

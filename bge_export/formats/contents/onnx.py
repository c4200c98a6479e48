"""Reads what an ONNX file holds: initializers, constants and operators of its graph, subgraphs and functions.

Weights count if the outputs of the main graph depend on them. Those in bodies of control flow and in functions do not
count, since the gate refuses such files for their operators; their operators and files are listed.
"""

import mmap
import os
from pathlib import Path

from bge_export.files.regular import GRAPH_BYTES, open_regular
from bge_export.formats.contents import Contents
from bge_export.formats.contents.onnx_graph import Node, Scope
from bge_export.formats.contents.onnx_tensors import Tensor, read_sparse, read_tensor
from bge_export.formats.contents.protobuf import Message, Span, fields, span_of, text

DEEPEST = 50
"""The deepest allowed nesting of subgraphs; exports have none."""

MOST_PARTS = 300_000
"""Most nodes, attributes, tensors and names in a file; an encoder of 24 layers has about 15,000."""

MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODES, GRAPH_WEIGHTS, GRAPH_OUTPUTS, GRAPH_SPARSE = 1, 5, 12, 15
VALUE_NAME = 1
FUNCTION_NAME, FUNCTION_NODES, FUNCTION_DOMAIN, FUNCTION_ATTRIBUTES = 1, 7, 10, 11
NODE_INPUTS, NODE_OUTPUTS, NODE_OPERATOR, NODE_ATTRIBUTES, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER, ATTRIBUTE_FLOATS = 1, 3, 7
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)


def contents(path: Path) -> Contents:
    """Return what a file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not an ONNX file.
    """
    with open_regular(path, GRAPH_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError("it is empty")

        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as message:
            return _Reader(message).model((0, size))


class _Reader:
    """Reads one file; every method adds what it finds to `found`."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.found = Contents()
        self.parts = 0

    def model(self, span: Span) -> Contents:
        graph = Scope()  # Fields of a message that come twice are joined.
        for number, value in fields(self.message, span):
            if number == MODEL_GRAPH:
                self._graph(span_of(value), 0, graph)
            elif number == MODEL_FUNCTIONS:
                self._function(span_of(value))

        graph.list_operators(self.found)
        graph.count(self.found)
        return self.found

    def _graph(self, span: Span, depth: int, scope: Scope) -> None:
        if depth > DEEPEST:
            raise ValueError(f"its subgraphs are nested deeper than {DEEPEST}")

        for number, value in fields(self.message, span):
            if number == GRAPH_NODES:
                scope.add(self._node(span_of(value), depth))
            elif number == GRAPH_OUTPUTS:
                inside = fields(self.message, span_of(value))
                scope.outputs += [self._name(name) for field, name in inside if field == VALUE_NAME]
            elif number == GRAPH_WEIGHTS:
                tensor = self._tensor(span_of(value))
                scope.store(tensor.name, [tensor])
            elif number == GRAPH_SPARSE:
                parts = self._sparse(span_of(value))
                scope.store(next((one.name for one in parts if one.name), ""), parts)

    def _function(self, span: Span) -> None:
        scope = Scope()
        name = domain = ""
        for number, value in fields(self.message, span):
            if number == FUNCTION_NAME:
                name = text(self.message, value)
            elif number == FUNCTION_DOMAIN:
                domain = text(self.message, value)
            elif number == FUNCTION_NODES:
                scope.add(self._node(span_of(value), 0))
            elif number == FUNCTION_ATTRIBUTES:
                self._attribute(span_of(value), 0, Node())

        self.found.operators[f"function::{domain}.{name}"] += 1
        scope.list_operators(self.found)

    def _node(self, span: Span, depth: int) -> Node:
        self._count()
        node = Node()
        for number, value in fields(self.message, span):
            if number == NODE_INPUTS:
                node.inputs.append(self._name(value))
            elif number == NODE_OUTPUTS:
                node.outputs.append(self._name(value))
            elif number == NODE_OPERATOR:
                node.operator = text(self.message, value)
            elif number == NODE_DOMAIN:
                node.domain = text(self.message, value)
            elif number == NODE_ATTRIBUTES:
                self._attribute(span_of(value), depth, node)

        return node

    def _attribute(self, span: Span, depth: int, node: Node) -> None:
        self._count()
        name, integer, values = "", None, list[Tensor]()
        for number, value in fields(self.message, span):
            if number == ATTRIBUTE_NAME:
                name = text(self.message, value)
            elif number == ATTRIBUTE_INTEGER and isinstance(value, int):
                integer = value
            elif number in ATTRIBUTE_TENSORS:
                values.append(self._tensor(span_of(value)))
            elif number in ATTRIBUTE_SPARSE:
                node.tensors += self._sparse(span_of(value))
            elif number in ATTRIBUTE_GRAPHS:
                self._body(span_of(value), depth + 1, node)
            elif number == ATTRIBUTE_FLOATS and not isinstance(value, int):
                node.floats += (value[1] - value[0]) // 4

        if integer is not None:
            node.numbers[name] = integer
        if name == "value":
            node.values += [one.false for one in values]
        node.tensors += values

    def _body(self, span: Span, depth: int, node: Node) -> None:
        """Read a graph that a node runs: what it reads, the node reads too."""
        scope = Scope()
        self._graph(span, depth, scope)
        scope.list_operators(self.found)
        node.around += set(scope.reads())

    def _sparse(self, span: Span) -> list[Tensor]:
        return [self._noted(tensor) for tensor in read_sparse(self.message, span)]

    def _tensor(self, span: Span) -> Tensor:
        return self._noted(read_tensor(self.message, span))

    def _noted(self, tensor: Tensor) -> Tensor:
        """Return a tensor whose files are listed, wherever it stands."""
        self._count()
        self.found.files |= set(tensor.files)
        return tensor

    def _name(self, value: int | Span) -> str:
        self._count()
        return text(self.message, value)

    def _count(self) -> None:
        """Count a part; raise ValueError if there are more than any model has."""
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS} operators, attributes and names")

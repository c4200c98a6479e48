"""Reads what an ONNX file holds: initializers, constants and operators of its graph, subgraphs and functions."""

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

from bge_export.files.regular import GRAPH_BYTES, open_regular
from bge_export.formats.contents import TRAINING, Contents, size_of
from bge_export.formats.contents.onnx_tensors import Tensor, read_sparse, read_tensor
from bge_export.formats.contents.protobuf import Message, Span, fields, span_of, text

DEEPEST = 50
"""The deepest allowed nesting of subgraphs; exports have none."""

OWN_DOMAINS = ("", "ai.onnx")

PACKED = {"MatMulNBits": 4, "MatMulBnb4": 4}
"""Operators that unpack weights, and their bits if they do not say."""

MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODES, GRAPH_WEIGHTS, GRAPH_SPARSE = 1, 5, 15
FUNCTION_NAME, FUNCTION_NODES, FUNCTION_DOMAIN, FUNCTION_ATTRIBUTES = 1, 7, 10, 11
NODE_INPUTS, NODE_OUTPUTS, NODE_OPERATOR, NODE_ATTRIBUTES, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER, ATTRIBUTE_FLOATS = 1, 3, 7
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)

DECIDES = 2
"""Index of the input of Dropout that says whether it trains."""


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


@dataclass
class _Node:
    """What counts of a node: names, integer attributes, and whether its constant `value` is false."""

    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    values: list[bool] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.operator if self.domain in OWN_DOMAINS else f"{self.domain}::{self.operator}"


@dataclass
class _Scope:
    """One graph or function: whether each constant of it is false, and its Dropouts that an input decides about."""

    false: dict[str, bool] = field(default_factory=dict)
    dropouts: list[_Node] = field(default_factory=list)

    def add(self, name: str, *, false: bool) -> None:
        """Add a constant; one that is stored twice is false only if both are."""
        self.false[name] = false and self.false.get(name, True)


class _Reader:
    """Reads one file; every method adds what it finds to `found`."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.found = Contents()
        self.tensors: dict[str, tuple[str, int]] = {}
        self.gathered: set[str] = set()
        self.read_whole: set[str] = set()

    def model(self, span: Span) -> Contents:
        for number, value in fields(self.message, span):
            if number == MODEL_GRAPH:
                self._graph(span_of(value), 0)
            elif number == MODEL_FUNCTIONS:
                self._function(span_of(value))

        # What another operator reads too is no table, or a Gather that nothing uses would make one of any weight.
        for name in (self.gathered - self.read_whole) & self.tensors.keys():
            kind, size = self.tensors[name]
            self.found.tables[kind] += size
        return self.found

    def _graph(self, span: Span, depth: int) -> None:
        if depth > DEEPEST:
            raise ValueError(f"its subgraphs are nested deeper than {DEEPEST}")

        scope = _Scope()
        for number, value in fields(self.message, span):
            if number == GRAPH_NODES:
                self._node(span_of(value), depth, scope)
            elif number == GRAPH_WEIGHTS:
                tensor = self._tensor(span_of(value))
                scope.add(tensor.name, false=tensor.false)
            elif number == GRAPH_SPARSE:
                self._sparse(span_of(value))

        self._dropouts(scope)

    def _function(self, span: Span) -> None:
        scope = _Scope()
        name = domain = ""
        for number, value in fields(self.message, span):
            if number == FUNCTION_NAME:
                name = text(self.message, value)
            elif number == FUNCTION_DOMAIN:
                domain = text(self.message, value)
            elif number == FUNCTION_NODES:
                self._node(span_of(value), 0, scope)
            elif number == FUNCTION_ATTRIBUTES:
                self._attribute(span_of(value), 0, _Node())

        self.found.operators[f"function::{domain}.{name}"] += 1
        self._dropouts(scope)

    def _node(self, span: Span, depth: int, scope: _Scope) -> None:
        node = _Node()
        for number, value in fields(self.message, span):
            if number == NODE_INPUTS:
                node.inputs.append(text(self.message, value))
            elif number == NODE_OUTPUTS:
                node.outputs.append(text(self.message, value))
            elif number == NODE_OPERATOR:
                node.operator = text(self.message, value)
            elif number == NODE_DOMAIN:
                node.domain = text(self.message, value)
            elif number == NODE_ATTRIBUTES:
                self._attribute(span_of(value), depth, node)

        self._take(node, scope)

    def _take(self, node: _Node, scope: _Scope) -> None:
        """Add a node whose fields are all read; whether a Dropout trains is known at the end of its graph."""
        if node.operator == "Dropout" and any(node.inputs[DECIDES : DECIDES + 1]):
            scope.dropouts.append(node)
        else:
            self.found.operators[node.name] += 1

        self.read_whole |= set(node.inputs[1:] if node.operator == "Gather" else node.inputs)
        if node.operator == "Constant" and node.values:
            for name in node.outputs:
                scope.add(name, false=all(node.values))
        elif node.operator == "Gather":
            self.gathered |= set(node.inputs[:1])
        elif node.operator in PACKED:
            bits = node.numbers.get("bits", PACKED[node.operator])
            weights = size_of([node.numbers.get("K", 0), node.numbers.get("N", 0)])
            self.found.packed[f"{node.operator} {bits}"] += weights

    def _dropouts(self, scope: _Scope) -> None:
        """Add the Dropouts of a graph. One trains unless the input that decides is a constant that is false."""
        for node in scope.dropouts:
            trains = not scope.false.get(node.inputs[DECIDES], False)
            self.found.operators[node.name + (TRAINING if trains else "")] += 1

    def _attribute(self, span: Span, depth: int, node: _Node) -> None:
        name, integer, values = "", None, list[bool]()
        for number, value in fields(self.message, span):
            if number == ATTRIBUTE_NAME:
                name = text(self.message, value)
            elif number == ATTRIBUTE_INTEGER and isinstance(value, int):
                integer = value
            elif number in ATTRIBUTE_TENSORS:
                values.append(self._tensor(span_of(value)).false)
            elif number in ATTRIBUTE_SPARSE:
                self._sparse(span_of(value))
            elif number in ATTRIBUTE_GRAPHS:
                self._graph(span_of(value), depth + 1)
            elif number == ATTRIBUTE_FLOATS and not isinstance(value, int):
                self.found.weights["float32"] += (value[1] - value[0]) // 4

        if integer is not None:
            node.numbers[name] = integer
        if name == "value":
            node.values += values

    def _sparse(self, span: Span) -> None:
        for tensor in read_sparse(self.message, span):
            self._add(tensor)

    def _tensor(self, span: Span) -> Tensor:
        tensor = read_tensor(self.message, span)
        self._add(tensor)
        return tensor

    def _add(self, tensor: Tensor) -> None:
        self.tensors[tensor.name] = tensor.kind, tensor.size
        self.found.weights[tensor.kind] += tensor.size
        self.found.files |= set(tensor.files)

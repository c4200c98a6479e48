"""Reads what an ONNX file holds: initializers, constants and operators of its graph, subgraphs and functions."""

import math
import mmap
import os
from pathlib import Path

from bge_export.bundle.contents._facts import Contents
from bge_export.bundle.contents._protobuf import Message, Span, fields, span_of, text, varints
from bge_export.files.regular import GRAPH_BYTES, open_regular

DEEPEST = 50
"""The deepest allowed nesting of subgraphs; exports have none."""

TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""`TensorProto.DataType` -> the name that numpy uses; newer types are named by their number."""

PACKED = {"MatMulNBits": 4, "MatMulBnb4": 4}
"""Operators that unpack weights, and their bits if they do not say."""

MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODES, GRAPH_WEIGHTS, GRAPH_SPARSE = 1, 5, 15
FUNCTION_NODES = 7
NODE_INPUTS, NODE_OPERATOR, NODE_ATTRIBUTES, NODE_DOMAIN = 1, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER, ATTRIBUTE_FLOATS, ATTRIBUTE_INTEGERS = 1, 3, 7, 8
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_NAME, TENSOR_EXTERNAL = 1, 2, 8, 13
SPARSE_VALUES = 1
ENTRY_KEY, ENTRY_VALUE = 1, 2


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
        self.tensors: dict[str, tuple[str, int]] = {}
        self.gathered: set[str] = set()

    def model(self, span: Span) -> Contents:
        for number, value in fields(self.message, span):
            if number == MODEL_GRAPH:
                self._graph(span_of(value), 0)
            elif number == MODEL_FUNCTIONS:
                self._nodes(span_of(value), FUNCTION_NODES, 0)

        for name in self.gathered & self.tensors.keys():
            kind, size = self.tensors[name]
            self.found.tables[kind] += size
        return self.found

    def _graph(self, span: Span, depth: int) -> None:
        if depth > DEEPEST:
            raise ValueError(f"its subgraphs are nested deeper than {DEEPEST}")

        self._nodes(span, GRAPH_NODES, depth)
        for number, value in fields(self.message, span):
            if number == GRAPH_WEIGHTS:
                self._tensor(span_of(value))
            elif number == GRAPH_SPARSE:
                self._sparse(span_of(value))

    def _nodes(self, span: Span, place: int, depth: int) -> None:
        for number, value in fields(self.message, span):
            if number == place:
                self._node(span_of(value), depth)

    def _node(self, span: Span, depth: int) -> None:
        operator, domain, numbers, inputs = "", "", dict[str, int](), list[str]()
        for number, value in fields(self.message, span):
            if number == NODE_INPUTS:
                inputs.append(text(self.message, value))
            elif number == NODE_OPERATOR:
                operator = text(self.message, value)
            elif number == NODE_DOMAIN:
                domain = text(self.message, value)
            elif number == NODE_ATTRIBUTES:
                numbers |= self._attribute(span_of(value), depth)

        self.found.operators[operator if domain in ("", "ai.onnx") else f"{domain}:{operator}"] += 1
        if operator == "Gather":
            self.gathered |= set(inputs[:1])
        if operator in PACKED:
            bits = numbers.get("bits", PACKED[operator])
            self.found.packed[f"{operator} {bits}"] += numbers.get("K", 0) * numbers.get("N", 0)

    def _attribute(self, span: Span, depth: int) -> dict[str, int]:
        """Return the attribute's name and integer, if it is one."""
        name, integer = "", None
        for number, value in fields(self.message, span):
            if number == ATTRIBUTE_NAME:
                name = text(self.message, value)
            elif number == ATTRIBUTE_INTEGER and isinstance(value, int):
                integer = value
            elif number in ATTRIBUTE_TENSORS:
                self._tensor(span_of(value))
            elif number in ATTRIBUTE_SPARSE:
                self._sparse(span_of(value))
            elif number in ATTRIBUTE_GRAPHS:
                self._graph(span_of(value), depth + 1)
            elif number == ATTRIBUTE_FLOATS and not isinstance(value, int):
                self.found.weights["float32"] += (value[1] - value[0]) // 4

        return {} if integer is None else {name: integer}

    def _sparse(self, span: Span) -> None:
        for number, value in fields(self.message, span):
            if number == SPARSE_VALUES:
                self._tensor(span_of(value))

    def _tensor(self, span: Span) -> None:
        shape, kind, name = list[int](), 0, ""
        for number, value in fields(self.message, span):
            if number == TENSOR_SHAPE:
                shape += varints(self.message, value)
            elif number == TENSOR_TYPE and isinstance(value, int):
                kind = value
            elif number == TENSOR_NAME:
                name = text(self.message, value)
            elif number == TENSOR_EXTERNAL:
                self._external(span_of(value))

        self.tensors[name] = TYPES.get(kind, f"type {kind}"), math.prod(shape)
        self.found.weights[self.tensors[name][0]] += self.tensors[name][1]

    def _external(self, span: Span) -> None:
        """Add the file if the entry is the location of external data."""
        entry = {number: text(self.message, value) for number, value in fields(self.message, span)}
        if entry.get(ENTRY_KEY) == "location":
            self.found.files.add(entry.get(ENTRY_VALUE, ""))

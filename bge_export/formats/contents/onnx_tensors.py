"""Reads the tensors that an ONNX file stores: their types, sizes and other files, never the weights themselves."""

from collections.abc import Iterator
from dataclasses import dataclass

from bge_export.formats.contents import size_of
from bge_export.formats.contents.protobuf import Message, Span, fields, span_of, text, varints

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

SHAPE, TYPE, NAME, EXTERNAL = 1, 2, 8, 13
INTEGERS, RAW = 5, 9
SPARSE_PARTS = (1, 2)
"""Values and indices."""

ENTRY_KEY, ENTRY_VALUE = 1, 2
LONGEST_FALSE = 8
"""Bytes of one value that is false, in any type."""


@dataclass(frozen=True)
class Tensor:
    """A stored tensor.

    Attributes:
        name: its name; empty for one in an attribute.
        kind: its element type.
        size: the number of its values.
        files: the other files that hold them.
        false: whether it is one value that is known to be false or zero.
    """

    name: str
    kind: str
    size: int
    files: tuple[str, ...]
    false: bool


def read_tensor(message: Message, span: Span) -> Tensor:
    """Return a `TensorProto`.

    Raises:
        ValueError: it is not a valid one.
    """
    name, number_of_type, shape, files = "", 0, list[int](), list[str]()
    values: list[bool] = []

    for number, value in fields(message, span):
        if number == SHAPE:
            shape += varints(message, value)
        elif number == TYPE and isinstance(value, int):
            number_of_type = value
        elif number == NAME:
            name = text(message, value)
        elif number == EXTERNAL:
            files += _location(message, span_of(value))
        elif number in (INTEGERS, RAW):
            values.append(_is_false(message, value))

    size = size_of(shape)
    false = size == 1 and not files and bool(values) and all(values)
    return Tensor(name, TYPES.get(number_of_type, f"type {number_of_type}"), size, tuple(files), false)


def read_sparse(message: Message, span: Span) -> Iterator[Tensor]:
    """Yield the tensors of a `SparseTensorProto`.

    Raises:
        ValueError: it is not a valid one.
    """
    for number, value in fields(message, span):
        if number in SPARSE_PARTS:
            yield read_tensor(message, span_of(value))


def _is_false(message: Message, value: int | Span) -> bool:
    """Return whether a field holds few bytes, and no bit of them is set; booleans are stored as `int32`, or raw."""
    if isinstance(value, int):
        return value == 0

    start, end = value
    return end - start <= LONGEST_FALSE and not any(message[start:end])


def _location(message: Message, span: Span) -> list[str]:
    """Return the name of the file if an entry is the location of external data."""
    entry = {number: text(message, value) for number, value in fields(message, span)}
    return [entry.get(ENTRY_VALUE, "")] if entry.get(ENTRY_KEY) == "location" else []

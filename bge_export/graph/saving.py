"""Writes an ONNX graph to its file, one weight after the other: protobuf would build the whole file in memory first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

IR_VERSION = 8

INLINE_LIMIT_BYTES = 2_000_000_000
"""A protobuf message is limited to 2 GiB; larger weights go into `<model>.onnx_data`, the name that JavaScript clients
and text-embeddings-inference look for."""

BYTES = 2
"""Wire type of a protobuf field that begins with its length."""


def save(model: onnx.ModelProto, root: Path, name: str) -> tuple[str, ...]:
    """Write the graph to `root/name` with IR 8, weights inline below 2 GB; return its files, the model file first."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "bge_export", ""

    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)

    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < INLINE_LIMIT_BYTES:
        with path.open("wb") as file:
            file.writelines(parts_of(model))
        return (name,)

    # onnx_ir, because onnx.save_model would clear the tensors that the next precision is converted from.
    ir.save(ir.from_proto(model), path, external_data=f"{path.name}_data", size_threshold_bytes=1024)
    return (name, f"{name}_data")


def parts_of(model: onnx.ModelProto) -> Iterator[bytes]:
    """Yield the bytes of `model.SerializeToString(deterministic=True)` in parts, each weight as one."""
    graph, weights = model.graph, model.graph.initializer
    number = graph.DESCRIPTOR.fields_by_name["initializer"].number
    before, after = _around(graph, number)
    sizes = [tensor.ByteSize() for tensor in weights]
    heads = [_head(number, size) for size in sizes]
    size = len(before) + sum(map(len, heads)) + sum(sizes) + len(after)

    number = model.DESCRIPTOR.fields_by_name["graph"].number
    first, last = _around(model, number)
    yield first + _head(number, size) + before
    for head, tensor in zip(heads, weights, strict=True):
        yield head
        yield tensor.SerializeToString(deterministic=True)
    yield after + last


def _around(message: Any, number: int) -> tuple[bytes, bytes]:  # noqa: ANN401 - any message of onnx
    """Return the bytes of a message's fields before and after one of them; protobuf writes fields by their numbers."""
    before, after = type(message)(), type(message)()

    for field, value in message.ListFields():
        part = before if field.number < number else after
        if field.number == number:
            continue
        if field.is_repeated:
            getattr(part, field.name).extend(value)
        elif field.message_type is not None:
            getattr(part, field.name).CopyFrom(value)
        else:
            setattr(part, field.name, value)

    return before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True)


def _head(number: int, size: int) -> bytes:
    """Return what stands before the bytes of a field: its number and their length, each as a varint."""
    return _varint(number << 3 | BYTES) + _varint(size)


def _varint(value: int) -> bytes:
    """Return an unsigned integer in groups of seven bits, lowest first; all but the last have their high bit set."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7

    return bytes([*groups, value])

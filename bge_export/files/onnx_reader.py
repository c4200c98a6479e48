"""Reads ONNX files given by the user, up to a size limit and only if the graph is acyclic."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import Message

from bge_export.files.regular import GRAPH_BYTES, read_regular, refuse_irregular

KNOWN_TYPES = frozenset(onnx.TensorProto.DataType.values())

MOST_BYTES = 255
"""The longest file or folder name that every common file system allows, in bytes."""


def load_graph(path: Path) -> onnx.ModelProto:
    """Return an ONNX file without its external data.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too large.
        Exception: it is not a valid ONNX file; protobuf decides the type of the exception.
        ValueError: nodes form a cycle, two nodes produce the same tensor, a tensor has a type unknown to ONNX, or
            external data lies outside the folder.
    """
    model = onnx.load_model_from_string(read_regular(path, GRAPH_BYTES))

    _refuse_bytes(model)

    for graph in graphs_of(model):
        ordered(graph.node)
        for tensor in _tensors(graph):
            _refuse_tensor(tensor)

    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type not in KNOWN_TYPES:
            raise ValueError(f"{value.name!r} has the unknown type {value.type.tensor_type.elem_type}")

    return model


def load_with_data(path: Path) -> onnx.ModelProto:
    """Return an ONNX file with its external data in it.

    Raises:
        OSError, Exception, ValueError: see `load_graph`; or a file of external data is missing or not a regular file.
    """
    model = load_graph(path)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    for name in sorted({entry.value for entry in entries if entry.key == "location"}):
        refuse_irregular(path.parent / name)

    onnx.load_external_data_for_model(model, str(path.parent))
    return model


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield every graph of a model: the main one, bodies of control flow, and those of its functions as graphs."""
    yield model.graph
    yield from bodies_within(model.graph.node)

    for function in model.functions:
        yield onnx.GraphProto(name=function.name, node=function.node)
        yield from bodies_within(function.node)


def bodies_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a node runs: branches of an If, the body of a Loop or Scan; empty for other operators."""
    return [graph for one in node.attribute for graph in ([one.g] if one.HasField("g") else one.graphs)]


def bodies_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that nodes run, and those inside them; protobuf limits the depth."""
    for node in nodes:
        for body in bodies_of(node):
            yield body
            yield from bodies_within(body.node)


def reads_of(node: onnx.NodeProto) -> set[str]:
    """Return the names of the tensors that a node reads, including those that its bodies take from around them."""
    found = {name for name in node.input if name}

    for body in bodies_of(node):
        inside = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        inside |= {name for one in body.node for name in one.output}
        wanted = {value.name for value in body.output}.union(*(reads_of(one) for one in body.node))
        found |= wanted - inside

    return found


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that is stored in a graph; those of its bodies belong to the bodies."""
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)

    for node in graph.node:
        for one in node.attribute:
            yield from [one.t] if one.HasField("t") else one.tensors
            sparse += [one.sparse_tensor] if one.HasField("sparse_tensor") else one.sparse_tensors

    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def _refuse_tensor(tensor: onnx.TensorProto) -> None:
    """Raise ValueError if a tensor has an unknown type, a negative dimension, or data outside the folder."""
    if tensor.data_type not in KNOWN_TYPES or any(axis < 0 for axis in tensor.dims):
        raise ValueError(f"the tensor {tensor.name!r} has the type {tensor.data_type} {list(tensor.dims)}")

    for entry in tensor.external_data:
        _refuse_entry(tensor.name, entry.key, entry.value)


def _refuse_bytes(model: onnx.ModelProto) -> None:
    """Raise ValueError if any text of a file is not UTF-8: protobuf then returns bytes instead of a string."""
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        for field in message.DESCRIPTOR.fields:
            if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):  # weights are bytes, and would be copied
                continue

            value = getattr(message, field.name)
            repeated = not isinstance(value, str | bytes | Message)
            if field.type == field.TYPE_MESSAGE:
                waiting += value if repeated else [value] if message.HasField(field.name) else []
                continue

            for text in value if repeated else [value]:
                if not isinstance(text, str):
                    raise ValueError(f"the {field.name} {text[:80]!r} is not UTF-8")


def _refuse_entry(name: str, key: str, value: str) -> None:
    """Raise ValueError if external data is not a file in the graph's folder, or not a valid range of it."""
    parts = value.split("/")
    strange = bool(set(value) & set("\\:\0") or {"", ".", ".."} & set(parts))
    strange = strange or any(len(part.encode()) > MOST_BYTES for part in parts)

    if key == "location" and strange:
        raise ValueError(f"the tensor {name!r} lies in {value[:80]!r}, which is not a file in the graph's folder")
    if key in ("length", "offset") and not (value.isascii() and value.isdigit() and len(value) < 20):
        raise ValueError(f"the tensor {name!r} has the {key} {value[:80]!r}")


def ordered(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes in an order in which each comes after those whose results it reads.

    Raises:
        ValueError: there is none, or two nodes give the same tensor.
    """
    makers: dict[str, int] = {}
    for number, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers:
                raise ValueError(f"two nodes give the tensor {name!r}")
            makers[name] = number

    readers: dict[int, list[int]] = {}
    waiting: Counter[int] = Counter()
    for number, node in enumerate(nodes):
        for maker in {makers[name] for name in reads_of(node) if name in makers}:
            readers.setdefault(maker, []).append(number)
            waiting[number] += 1

    # Kahn's algorithm: a node is ready once all its makers are done; nodes of a cycle never are.
    ready = deque(number for number in range(len(nodes)) if not waiting[number])
    done = []
    while ready:
        done.append(ready.popleft())
        for reader in readers.get(done[-1], ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)

    if len(done) < len(nodes):
        stuck = next(node for number, node in enumerate(nodes) if waiting[number] > 0)
        raise ValueError(f"{stuck.op_type} {stuck.name!r} waits for its own result: the graph goes round in a circle")

    return [nodes[number] for number in done]

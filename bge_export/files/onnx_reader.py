"""Reads ONNX files given by the user, up to a size limit and only if the graph is acyclic."""

from collections import Counter
from pathlib import Path

import onnx

from bge_export.files.regular import GRAPH_BYTES, read_regular, refuse_irregular

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
    _refuse_bytes(model.graph)
    _refuse_circle(model.graph)

    known = set(onnx.TensorProto.DataType.values())
    tensors = [*model.graph.initializer]
    tensors += [one.t for node in model.graph.node for one in node.attribute if one.type == one.TENSOR]

    for tensor in tensors:
        if tensor.data_type not in known or any(axis < 0 for axis in tensor.dims):
            raise ValueError(f"the tensor {tensor.name!r} has the type {tensor.data_type} {list(tensor.dims)}")

        for entry in tensor.external_data:
            _refuse_entry(tensor.name, entry.key, entry.value)

    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type not in known:
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


def _refuse_bytes(graph: onnx.GraphProto) -> None:
    """Raise ValueError if a name is not UTF-8: protobuf then returns bytes instead of a string."""
    names: list[object] = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]

    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"the name {name!r} is not UTF-8")


def _refuse_entry(name: str, key: str, value: str) -> None:
    """Raise ValueError if external data is not a file in the graph's folder, or not a valid range of it."""
    parts = value.split("/")
    strange = bool(set(value) & set("\\:\0") or {"", ".", ".."} & set(parts))
    strange = strange or any(len(part.encode()) > MOST_BYTES for part in parts)

    if key == "location" and strange:
        raise ValueError(f"the tensor {name!r} lies in {value[:80]!r}, which is not a file in the graph's folder")
    if key in ("length", "offset") and not (value.isascii() and value.isdigit() and len(value) < 20):
        raise ValueError(f"the tensor {name!r} has the {key} {value[:80]!r}")


def _refuse_circle(graph: onnx.GraphProto) -> None:
    """Raise ValueError unless every node can run after the nodes whose results it reads."""
    makers: dict[str, int] = {}
    for number, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in makers:
                raise ValueError(f"two nodes give the tensor {name!r}")
            makers[name] = number

    readers: dict[int, list[int]] = {}
    waiting: Counter[int] = Counter()
    for number, node in enumerate(graph.node):
        for maker in {makers[name] for name in node.input if name in makers}:
            readers.setdefault(maker, []).append(number)
            waiting[number] += 1

    # Kahn's algorithm: a node is ready once all its makers are done; nodes of a cycle never are.
    ready = [number for number in range(len(graph.node)) if not waiting[number]]
    done = 0
    while ready:
        done += 1
        for reader in readers.get(ready.pop(), ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)

    if done < len(graph.node):
        stuck = next(node for number, node in enumerate(graph.node) if waiting[number] > 0)
        raise ValueError(f"{stuck.op_type} {stuck.name!r} waits for its own result: the graph goes round in a circle")

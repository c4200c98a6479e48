"""Runs the lookup of token ids in an ONNX file: the nodes between the ids and the rows of the table."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.files.onnx_reader import load_with_data
from bge_export.token_tables import Floats, Lookup, as_rows
from bge_export.token_tables._flow import Operation, ways_of

IDS = "input_ids"
PASSING = frozenset({"Cast", "Identity", "Pad", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten"})
LOOKUPS = frozenset({"Gather", "GatherND", "GatherBlockQuantized"})
OF_SHAPES = frozenset({"Shape", "Size"})
DECODING = frozenset(
    [
        "Add",
        "BitShift",
        "BitwiseAnd",
        "Concat",
        "DequantizeLinear",
        "Div",
        "Floor",
        "Mod",
        "Mul",
        "Slice",
        "Split",
        "Sub",
    ]
)
"""Operators that unpack and scale rows. Whatever else reads a row is no longer the lookup."""

COUNTING = frozenset({"Compress", "NonMaxSuppression", "NonZero", "OneHot", "Range", "Unique"})
"""Operators whose results have a shape that depends on values."""


def open_lookup(path: Path) -> Lookup:
    """Return the lookup of a file; see `token_tables`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingLibrary("onnxruntime", "onnxruntime", "reading the token table") from error

    try:
        part, count = lookup_part(load_with_data(path))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(part.SerializeToString(), options)
    except Exception as error:  # protobuf and the runtime raise many kinds
        first = str(error).partition("\n")[0]
        raise ArtifactError(f"{path}: its lookup of token ids cannot be run: {first}") from error

    def run(ids: NDArray[np.int64], *, positions: bool) -> Iterator[Floats]:
        # One token a text: positions then stay within any table of them.
        values = session.run(None, {IDS: ids[:, None]})
        return as_rows(values[count:] if positions else values[:count], len(ids))

    return Lookup(partial(run, positions=False), partial(run, positions=True))


def lookup_part(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return the part of a model between the ids and the rows; each value that may be the rows is an output.

    Also return the number of these values; what counts of ids look up elsewhere follows them.

    Raises:
        ValueError: the outputs depend on the ids in several ways.
    """
    graph = model.graph
    constants = _constants(graph)
    operations = [_operation(node, constants) for node in graph.node]
    ways = ways_of(operations, IDS, [value.name for value in graph.output])
    if not ways.rows:
        raise ValueError("its outputs do not depend on the ids by one lookup alone")

    found = [*ways.rows, *ways.positions]
    nodes = _needed(graph.node, found)
    used = {name for node in nodes for name in node.input}
    ids = helper.make_tensor_value_info(IDS, TensorProto.INT64, ["texts", "tokens"])
    part = helper.make_graph(nodes, "lookup", [ids], [helper.make_empty_tensor_value_info(name) for name in found])
    part.initializer.extend(tensor for tensor in graph.initializer if tensor.name in used)
    part.sparse_initializer.extend(tensor for tensor in graph.sparse_initializer if tensor.values.name in used)

    cut = helper.make_model(part, opset_imports=model.opset_import, functions=model.functions)
    cut.ir_version = model.ir_version
    return cut, len(ways.rows)


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the values that depend on no input."""
    constants = {tensor.name for tensor in graph.initializer} | {one.values.name for one in graph.sparse_initializer}
    constants.add("")
    for node in graph.node:
        if set(node.input) <= constants and not _has_body(node):
            constants |= set(node.output)
    return constants


def _operation(node: onnx.NodeProto, constants: Collection[str]) -> Operation:
    inputs = tuple(name for name in node.input if name not in constants)
    kind = "other"
    if node.op_type in PASSING:
        kind = "passes"
    elif node.op_type in LOOKUPS and len(node.input) > 1 and node.input[0] in constants:
        kind = "looks"
    elif node.op_type in OF_SHAPES:
        kind = "shapes"
    elif node.op_type in DECODING:
        kind = "decodes"
    elif node.op_type in COUNTING:
        kind = "counts"

    # A body may read any value around it, so it depends on something else too.
    return Operation(kind, (*inputs, "a body") if _has_body(node) else inputs, tuple(filter(None, node.output)))


def _needed(nodes: Sequence[onnx.NodeProto], names: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the nodes that some values depend on, in their order."""
    wanted, kept = set(names), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _has_body(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)

"""Cuts an encoder's graph: what comes before its layers, and what comes after them."""

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.convenience import extract

from bge_export.encoder.matching import array, lookups, maker, need, operand


def prelude_of(model: onnx.ModelProto, values: list[ir.Value], *, by_sequence: bool) -> onnx.ModelProto:
    """Return the graph from the model's inputs to `values`, with all sizes read from the token ids.

    Some models read batch size and length from the embeddings; the prelude reads them from the ids, so that it can be
    cut before the embeddings' normalisation and the embeddings can be stored in another order.

    Args:
        model: the graph.
        values: the sum of embeddings, [B, S, H] or [S, B, H], and the terms added to the scores.
        by_sequence: whether the ids of all lookups are transposed, for [S, B, H]; the prelude reads them as they are.
    """
    copy = ir.from_proto(model)
    ids = copy.graph.inputs[0]

    if by_sequence:
        embedded = next(v for node in copy.graph for v in node.outputs if v.name == values[0].name)
        for gather, position in lookups(embedded):
            turned = maker(operand(gather, position), "Transpose")
            gather.replace_input_with(position, operand(turned, 0))

    for node in list(copy.graph):
        if node.op_type == "Shape" and operand(node, 0).const_value is None and _rank(operand(node, 0)) == 3:
            need(set(_gathered(node)) <= {0, 1}, f"{node.name}: reads more than batch size and length")
            node.replace_input_with(0, ids)
            node.outputs[0].shape = None

    names = [value.name or "" for value in values]
    cut = _extracted(copy.graph, [value.name or "" for value in copy.graph.inputs], names)
    return ir.to_proto(ir.Model(cut, ir_version=model.ir_version))


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _gathered(shape: ir.Node) -> Iterator[int]:
    """Yield the indices that are read from a shape; -1 for any other use of the shape."""
    for node in shape.outputs[0].consumers():
        index = array(operand(node, 1)) if node.op_type == "Gather" else None
        yield int(index.reshape(())) if index is not None and index.size == 1 else -1


def tail_of(model: onnx.ModelProto, last: ir.Value) -> onnx.ModelProto:
    """Return the graph from the last hidden state (and the model's inputs) to all outputs but the first."""
    copy = ir.from_proto(model)
    inputs = [value.name or "" for value in copy.graph.inputs]
    outputs = [value.name or "" for value in copy.graph.outputs[1:]]
    cut = _extracted(copy.graph, [last.name or "", *inputs], outputs)
    return ir.to_proto(ir.Model(cut, ir_version=model.ir_version))


def _extracted(graph: ir.Graph, inputs: list[str], outputs: list[str]) -> ir.Graph:
    """Return the subgraph between values, with its initializers sorted by name."""
    cut = extract(graph, inputs, outputs)

    # `extract` collects initializers in a set, whose order differs between runs.
    named = sorted(cut.initializers.items())
    cut.initializers.clear()
    cut.initializers.update(named)
    return cut

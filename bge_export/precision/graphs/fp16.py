"""Converts float32 graphs to float16; inputs and outputs keep their types."""

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx import TensorProto
from onnx_ir.passes.common import TopologicalSortPass

from bge_export.contracts import LAST_HIDDEN_STATE, LOGITS

POOLING = "pooling/"
"""Prefix of the pooling head's nodes (`tracing.TracedEncoder.pooling`)."""

INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def convert(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with float16 weights and arithmetic, made by onnxruntime's converter.

    Two parts stay float32: the head, whose pooling in float16 changes the norm of the embedding by 2e-4, and whose
    classifier of a reranker loses digits of a sum that cancels; and arithmetic whose result becomes an index (MPNet's
    distance buckets are a logarithm, rounded down: in float16 some tokens get the wrong bucket). The converter can only
    exclude single nodes and rounds between them, so these parts are removed before the conversion and put back
    afterwards.

    Args:
        model: a float32 graph with a type on every value; it is changed in place.

    Returns:
        The graph; its inputs and outputs keep the types that consumers expect (int64 and float32).
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph = model.graph

    # Integer results of the removed nodes become inputs until the nodes are put back.
    kept = [*_index_arithmetic(graph), *_head(graph)]
    pooled = list(graph.output)[1:]
    read = _read_from_outside(graph, kept)
    constants = _own_constants(graph, kept)
    values = _take_out(graph, kept, pooled)
    indices = [value for value in values if value.type.tensor_type.elem_type in INTEGERS]
    graph.input.extend(indices)
    graph.output.extend(read)  # outputs stay float32, which the nodes read that are put back

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)

    for value in indices:
        converted.graph.input.remove(value)
    for value in read:
        converted.graph.output.remove(value)
    converted.graph.node.extend(kept)
    converted.graph.output.extend(pooled)
    converted.graph.value_info.extend(values)
    converted.graph.initializer.extend(constants)

    ordered = ir.from_proto(converted)
    TopologicalSortPass()(ordered)
    return ir.to_proto(ordered)


def _head(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of the pooling, or all of a reranker's that are computed from its last states."""
    yield from (node for node in graph.node if node.name.startswith(POOLING))
    if not any(value.name == LOGITS for value in graph.output):
        return

    after = {LAST_HIDDEN_STATE}
    for node in graph.node:
        if after.intersection(node.input):
            after.update(node.output)
            yield node


def _read_from_outside(graph: onnx.GraphProto, kept: list[onnx.NodeProto]) -> list[onnx.ValueInfoProto]:
    """Return the float values that the head reads of other nodes, beside outputs of the graph, such as logits."""
    own = {name for node in kept for name in node.output} | {tensor.name for tensor in graph.initializer}
    heads = [node for node in kept if node.name.startswith(POOLING)]
    given = {name for node in heads for name in node.input} - own - {value.name for value in graph.output}
    return [
        onnx.ValueInfoProto.FromString(value.SerializeToString())
        for value in graph.value_info
        if value.name in given and value.type.tensor_type.elem_type == TensorProto.FLOAT
    ]


def _index_arithmetic(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield each cast of a float to an integer, and all nodes that compute the float from integers."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    maker = {name: node for node in graph.node for name in node.output}

    casts = [n for n in graph.node if n.op_type == "Cast" and kinds.get(n.output[0]) in INTEGERS]
    stack = [node for node in casts if kinds.get(node.input[0]) == TensorProto.FLOAT]

    found: dict[str, onnx.NodeProto] = {}
    while stack:
        node = stack.pop()
        found[node.name] = node
        sources = (maker[name] for name in node.input if kinds.get(name) == TensorProto.FLOAT and name in maker)
        stack.extend(source for source in sources if source.name not in found)

    yield from found.values()


def _own_constants(graph: onnx.GraphProto, kept: list[onnx.NodeProto]) -> list[onnx.TensorProto]:
    """Remove the float constants of `kept` from the graph and return them; copy those that other nodes use too."""
    shared = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    names = {node.name for node in kept}
    others = {name for node in graph.node if node.name not in names for name in node.input}

    copies: dict[str, onnx.TensorProto] = {}
    for node in kept:
        for position, name in enumerate(node.input):
            if name in shared:
                copy = copies.setdefault(name, TensorProto.FromString(shared[name].SerializeToString()))
                copy.name = node.input[position] = f"float32/{name}"

    for name in copies.keys() - others:
        graph.initializer.remove(shared[name])

    return list(copies.values())


def _take_out(
    graph: onnx.GraphProto, kept: list[onnx.NodeProto], pooled: list[onnx.ValueInfoProto]
) -> list[onnx.ValueInfoProto]:
    """Remove nodes, the types of their results and the pooled outputs from the graph; return the types."""
    results = {name for node in kept for name in node.output}
    values = [value for value in graph.value_info if value.name in results]

    for value in values:
        graph.value_info.remove(value)
    for node in kept:
        graph.node.remove(node)
    for output in pooled:
        graph.output.remove(output)

    return values

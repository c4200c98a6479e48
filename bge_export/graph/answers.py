"""Reduces the graph of a reranker, or of a model with token weights or vectors, to its answers when it is written.

Until then the last hidden state is its first output: the passes that rearrange and quantize an encoder find its end
there. Nobody who loads such a file reads states, and clients that take the first output must get an answer.
"""

from collections.abc import Iterator

import onnx

from bge_export.contracts import LAST_HIDDEN_STATE, ModelSpec


def answers_only(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """Return the graph without the states, and without nodes that only they need, unless it only embeds.

    Args:
        model: the graph, which is changed in place; that of an embedding model is returned as it is.
        spec: what the checkpoint reads and gives.
    """
    if spec.only_dense:
        return model

    outputs = [value for value in model.graph.output if value.name != LAST_HIDDEN_STATE]
    del model.graph.output[:]
    model.graph.output.extend(outputs)

    needed = {value.name for value in outputs}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_read(node))

    # The nodes are copied before the list that owns them is emptied.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, also inside its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read(inner)

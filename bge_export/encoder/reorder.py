"""Permutes the channels of an encoder exactly; at run time only the final hidden states need a permutation."""

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from bge_export.encoder.encoder import Encoder, Floats, Layer, Linear, Norm

Order = NDArray[np.int64]


def reorder_inner(layer: Layer, order: Order) -> Layer:
    """Return the layer with the neurons of its feed-forward permuted."""
    return replace(layer, up=_columns(layer.up, order), down=_rows(layer.down, order))


def reorder_heads(layer: Layer, order: Order) -> Layer:
    """Return the layer with the channels of its values permuted; `order` must keep each channel within its head."""
    return replace(layer, value=_columns(layer.value, order), output=_rows(layer.output, order))


def reorder_hidden(encoder: Encoder, order: Order) -> Encoder:
    """Return the encoder with its hidden channels permuted; `hidden_order` records the order."""
    layers = tuple(
        replace(
            layer,
            query=_rows(layer.query, order),
            key=_rows(layer.key, order),
            value=_rows(layer.value, order),
            output=_columns(layer.output, order),
            attention_norm=_norm(layer.attention_norm, order),
            up=_rows(layer.up, order),
            down=_columns(layer.down, order),
            feedforward_norm=_norm(layer.feedforward_norm, order),
        )
        for layer in encoder.layers
    )

    return replace(
        encoder,
        prelude=_reorder_tables(encoder.prelude, order),
        embedding_norm=_norm(encoder.embedding_norm, order),
        layers=layers,
        hidden_order=order,
    )


def embedding_tables(prelude: onnx.ModelProto) -> list[str] | None:
    """Return the tables whose rows the prelude adds; None if its first output is not a plain sum of table lookups."""
    makers = {name: node for node in prelude.graph.node for name in node.output}
    initializers = {tensor.name for tensor in prelude.graph.initializer}

    found: list[str] = []
    stack = [prelude.graph.output[0].name]
    while stack:
        node = makers.get(stack.pop())
        if node is not None and node.op_type == "Add":
            stack.extend(node.input)
        elif node is not None and node.op_type == "Gather" and node.input[0] in initializers:
            found.append(node.input[0])
        else:
            return None

    return found


def _reorder_tables(prelude: onnx.ModelProto, order: Order) -> onnx.ModelProto:
    tables = embedding_tables(prelude)
    if tables is None:
        raise ValueError("the embeddings are not a plain sum of lookups")

    copy = onnx.ModelProto()
    copy.CopyFrom(prelude)

    for tensor in copy.graph.initializer:
        if tensor.name in tables:
            columns = np.ascontiguousarray(numpy_helper.to_array(tensor)[:, order])
            tensor.CopyFrom(numpy_helper.from_array(columns, tensor.name))

    return copy


def _rows(linear: Linear, order: Order) -> Linear:
    return replace(linear, weight=np.ascontiguousarray(linear.weight[order]))


def _columns(linear: Linear, order: Order) -> Linear:
    bias: Floats | None = None if linear.bias is None else linear.bias[order]
    return Linear(np.ascontiguousarray(linear.weight[:, order]), bias)


def _norm(norm: Norm, order: Order) -> Norm:
    return replace(norm, gamma=norm.gamma[order], beta=norm.beta[order])

"""Reads an ONNX graph into an `Encoder`: matches the post-norm transformer by operators, not names or positions.

Two forms are known: the tidy graph as it is traced, [B, S, width], and the one of `arrange`, rows of tokens.
"""

from dataclasses import dataclass
from itertools import pairwise

import onnx
import onnx_ir as ir

from bge_export.encoder.cutting import prelude_of, tail_of
from bge_export.encoder.encoder import Encoder, Layer, Linear
from bge_export.encoder.matching import (
    UnknownGraph,
    activation_after,
    array,
    linear_after,
    linear_before,
    maker,
    need,
    norm_before,
    only_user,
    operand,
    operands,
    permutation,
    residual_norm,
)
from bge_export.encoder.reorder import embedding_tables


@dataclass(frozen=True)
class _Axes:
    """The order of axes in which a form splits states into heads, makes columns of keys, and puts heads together."""

    heads: tuple[int, ...]
    keys: tuple[int, ...]
    together: tuple[int, ...]


BY_BATCH = _Axes((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
BY_SEQUENCE = _Axes((1, 2, 0, 3), (1, 2, 3, 0), (2, 0, 1, 3))


def read_encoder(model: onnx.ModelProto) -> Encoder:
    """Return the encoder that a graph computes.

    Args:
        model: a float32 graph from `graph.trace.trace` or `arrange.arrange_floats`.

    Raises:
        UnknownGraph: a part of the graph does not match; the message names it.
    """
    graph = ir.from_proto(model).graph
    softmaxes = [node for node in graph if node.op_type == "Softmax"]
    if not softmaxes:
        raise UnknownGraph("the graph holds no Softmax, so no attention")

    # One layer per softmax, each reading the result of the one before.
    found = [_read_layer(node) for node in softmaxes]
    for before, after in pairwise(found):
        need(before.result is after.start, f"{after.name}: its input is not the result of the layer before")
        need(same(before.biases, after.biases), f"{after.name}: other values are added to its scores than before")
        need(before.axes is after.axes, f"{after.name}: its axes are in another order than before")

    norm, embedded = norm_before(found[0].start)
    last = found[-1].result

    by_sequence = found[0].axes is BY_SEQUENCE
    if by_sequence:
        embedded = operand(maker(embedded, "Reshape"), 0)
        last = only_user(only_user(last, "Reshape").outputs[0], "Transpose").outputs[0]
    need(last is graph.outputs[0], "the last normalisation is not the first output")

    prelude = prelude_of(model, [embedded, *found[0].biases], by_sequence=by_sequence)
    need(embedding_tables(prelude) is not None, "the embeddings are not a plain sum of table lookups")

    return Encoder(
        prelude=prelude,
        embedding_norm=norm,
        layers=tuple(item.layer for item in found),
        tail=tail_of(model, last) if len(graph.outputs) > 1 else None,
    )


def same(some: list[ir.Value], others: list[ir.Value]) -> bool:
    """Return whether two lists hold the same value objects in the same order."""
    return [id(value) for value in some] == [id(value) for value in others]


@dataclass(frozen=True)
class _Found:
    name: str
    layer: Layer
    start: ir.Value
    result: ir.Value
    biases: list[ir.Value]
    axes: _Axes


def _read_layer(softmax: ir.Node) -> _Found:
    name = softmax.name or "Softmax"
    need(softmax.attributes.get_int("axis", -1) in (-1, 3), f"{name}: not over the last axis")

    scores = _scores(operand(softmax, 0))
    if scores is None:
        raise UnknownGraph(f"{name}: its input is not a product of queries and keys")
    product, scale, biases = scores

    mixed = only_user(softmax.outputs[0], "MatMul")
    rows = only_user(mixed.outputs[0], "Transpose")
    axes = next((axes for axes in (BY_BATCH, BY_SEQUENCE) if axes.together == permutation(rows)), None)
    if axes is None:
        raise UnknownGraph(f"{name}: heads are put together in another order")

    query, start, heads = _heads(operand(product, 0), axes.heads)
    key, start_key, heads_key = _heads(operand(product, 1), axes.keys)
    value, start_value, heads_value = _heads(operand(mixed, 1), axes.heads)

    need(start is start_key and start is start_value, f"{name}: queries, keys and values read different tensors")
    need(heads == heads_key == heads_value, f"{name}: queries, keys and values have different heads")

    output, attended = linear_after(only_user(rows.outputs[0], "Reshape").outputs[0])
    attention_norm, middle = residual_norm(attended, start)

    up, inner = linear_after(middle, residual=True)
    activation, activated = activation_after(inner)
    down, fed = linear_after(activated)
    feedforward_norm, result = residual_norm(fed, middle)

    layer = Layer(query, key, value, output, attention_norm, up, down, feedforward_norm, heads, scale, activation)
    return _Found(name, layer, start, result, biases, axes)


def _scores(value: ir.Value) -> tuple[ir.Node, float, list[ir.Value]] | None:
    """Return the product of queries and keys that `value` is computed from, its scale, and the terms added to it."""
    node = value.producer()
    if node is None:
        return None

    if node.op_type == "MatMul":
        return node, 1.0, []

    # Either operand may be the product; the other one is a mask or a bias.
    if node.op_type == "Add":
        for position in (0, 1):
            below = _scores(operand(node, position))
            if below is not None:
                return below[0], below[1], [*below[2], operand(node, 1 - position)]

    # A scale after an added term would scale that term too: not matched.
    if node.op_type in ("Mul", "Div"):
        pair = operands(node)
        below = None if pair is None or pair[1].size != 1 else _scores(pair[0])
        if below is not None and pair is not None and not below[2]:
            factor = float(pair[1].reshape(()))
            return below[0], below[1] * factor if node.op_type == "Mul" else below[1] / factor, []

    return None


def _heads(value: ir.Value, axes: tuple[int, ...]) -> tuple[Linear, ir.Value, int]:
    """Return the linear layer whose result `value` splits into heads, its input, and the number of heads."""
    transpose = maker(value, "Transpose")
    need(permutation(transpose) == axes, f"{transpose.name}: another order of axes than {axes}")

    reshape = maker(operand(transpose, 0), "Reshape")
    heads, width = _split(reshape)
    linear, source = linear_before(operand(reshape, 0))
    return linear, source, heads if heads > 0 else linear.weight.shape[1] // width


def _split(reshape: ir.Node) -> tuple[int, int]:
    """Return the number of heads and their width; one of them may be -1, for the rest.

    Sizes of the batch may be computed, and stand before them in a `Concat`.
    """
    target = operand(reshape, 1)
    node = target.producer()
    constant = array(target if node is None else operand(node, len(node.inputs) - 1))
    if constant is None or constant.size != (4 if node is None else 2) or (node and node.op_type != "Concat"):
        raise UnknownGraph(f"{reshape.name}: the heads are not constant")
    return int(constant[-2]), int(constant[-1])

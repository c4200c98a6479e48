"""Reads a tidy ONNX graph into an `Encoder`: matches the post-norm transformer by operators, not names or positions."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.convenience import extract

from bge_export.encoder.encoder import Activation, Encoder, Floats, Layer, Linear, Norm
from bge_export.encoder.reorder import embedding_tables
from bge_export.errors import ExportError

HEADS_TO_ROWS = (0, 2, 1, 3)
KEYS_TO_COLUMNS = (0, 2, 3, 1)
ROOT_TOLERANCE = 1e-6


class UnknownGraph(ExportError):
    """The graph is not a post-norm transformer encoder that can be quantized layer by layer."""


def read_encoder(model: onnx.ModelProto) -> Encoder:
    """Return the encoder that a tidy graph computes.

    Args:
        model: a float32 graph from `graph.trace.trace`.

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
        _need(before.result is after.start, f"{after.name}: its input is not the result of the layer before")
        _need(same(before.biases, after.biases), f"{after.name}: other values are added to its scores than before")

    last = found[-1].result
    _need(last is graph.outputs[0], "the last normalisation is not the first output")

    norm, embedded = _norm(found[0].start)
    prelude = _prelude(model, [embedded, *found[0].biases])
    _need(embedding_tables(prelude) is not None, "the embeddings are not a plain sum of table lookups")

    return Encoder(
        prelude=prelude,
        embedding_norm=norm,
        layers=tuple(item.layer for item in found),
        tail=_tail(model, last) if len(graph.outputs) > 1 else None,
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


def _read_layer(softmax: ir.Node) -> _Found:
    name = softmax.name or "Softmax"
    _need(softmax.attributes.get_int("axis", -1) in (-1, 3), f"{name}: not over the last axis")

    scores = _scores(_input(softmax, 0))
    if scores is None:
        raise UnknownGraph(f"{name}: its input is not a product of queries and keys")
    product, scale, biases = scores

    query, start, heads = _heads(_input(product, 0), HEADS_TO_ROWS)
    key, start_key, heads_key = _heads(_input(product, 1), KEYS_TO_COLUMNS)
    mixed = _only_user(softmax.outputs[0], "MatMul")
    value, start_value, heads_value = _heads(_input(mixed, 1), HEADS_TO_ROWS)

    _need(start is start_key and start is start_value, f"{name}: queries, keys and values read different tensors")
    _need(heads == heads_key == heads_value, f"{name}: queries, keys and values have different heads")

    rows = _only_user(mixed.outputs[0], "Transpose")
    _need(_perm(rows) == HEADS_TO_ROWS, f"{name}: heads are put together in another order")
    output, attended = _linear_after(_only_user(rows.outputs[0], "Reshape").outputs[0])
    attention_norm, middle = _residual_norm(attended, start)

    up, inner = _linear_after(middle, residual=True)
    activation, activated = _activation(inner)
    down, fed = _linear_after(activated)
    feedforward_norm, result = _residual_norm(fed, middle)

    layer = Layer(query, key, value, output, attention_norm, up, down, feedforward_norm, heads, scale, activation)
    return _Found(name, layer, start, result, biases)


def _need(condition: bool, problem: str) -> None:
    if not condition:
        raise UnknownGraph(problem)


def _maker(value: ir.Value, op_type: str) -> ir.Node:
    node = value.producer()
    if node is None or node.op_type != op_type:
        raise UnknownGraph(f"{value.name}: made by {node.op_type if node else 'nothing'}, not by {op_type}")
    return node


def _only_user(value: ir.Value, op_type: str) -> ir.Node:
    users = [node for node in value.consumers() if node.op_type == op_type]
    if len(users) != 1 or len(value.consumers()) != 1:
        raise UnknownGraph(f"{value.name}: not read by one {op_type} alone")
    return users[0]


def _input(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position]
    if value is None:
        raise UnknownGraph(f"{node.name}: has no input {position}")
    return value


def _perm(node: ir.Node) -> tuple[int, ...]:
    return tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else ()


def _array(value: ir.Value) -> Floats | None:
    return None if value.const_value is None else np.asarray(value.const_value.numpy(), dtype=np.float32)


def _operands(node: ir.Node) -> tuple[ir.Value, Floats] | None:
    """Return the computed and the constant operand of a node; None unless it has one of each."""
    first, second = _input(node, 0), _input(node, 1)

    for computed, constant in ((first, second), (second, first)):
        array = _array(constant)
        if array is not None and computed.const_value is None:
            return computed, array

    return None


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
            below = _scores(_input(node, position))
            if below is not None:
                return below[0], below[1], [*below[2], _input(node, 1 - position)]

    # A scale after an added term would scale that term too: not matched.
    if node.op_type in ("Mul", "Div"):
        operands = _operands(node)
        below = None if operands is None or operands[1].size != 1 else _scores(operands[0])
        if below is not None and operands is not None and not below[2]:
            factor = float(operands[1].reshape(()))
            return below[0], below[1] * factor if node.op_type == "Mul" else below[1] / factor, []

    return None


def _heads(value: ir.Value, perm: tuple[int, ...]) -> tuple[Linear, ir.Value, int]:
    """Return the linear layer whose result `value` splits into heads, its input, and the number of heads."""
    transpose = _maker(value, "Transpose")
    _need(_perm(transpose) == perm, f"{transpose.name}: another order of axes than {perm}")

    reshape = _maker(_input(transpose, 0), "Reshape")
    target = _array(_input(reshape, 1))
    _need(target is not None and target.size == 4, f"{reshape.name}: the heads are not constant")

    linear, source = _linear_before(_input(reshape, 0))
    width = linear.weight.shape[1]
    assert target is not None  # noqa: S101 - needed above
    heads = int(target[2]) if target[2] > 0 else width // int(target[3])
    return linear, source, heads


def _linear_before(value: ir.Value) -> tuple[Linear, ir.Value]:
    """Return the linear layer that computes `value`, and its input."""
    node = value.producer()
    bias = None
    if node is not None and node.op_type == "Add" and (operands := _operands(node)):
        value, bias = operands

    product = _maker(value, "MatMul")
    constant = _input(product, 1)
    weight = _array(constant)

    if weight is None or weight.ndim != 2:
        raise UnknownGraph(f"{product.name}: the weight is not a constant matrix")
    return Linear(weight, bias, constant.name or ""), _input(product, 0)


def _linear_after(value: ir.Value, *, residual: bool = False) -> tuple[Linear, ir.Value]:
    """Return the only linear layer that reads `value` (a residual's `Add` may read it too), and its result."""
    readers = [node for node in value.consumers() if not (residual and node.op_type == "Add")]
    _need(len(readers) == 1 and readers[0].op_type == "MatMul", f"{value.name}: not read by one linear layer")

    result = readers[0].outputs[0]
    users = result.consumers()
    if len(users) == 1 and users[0].op_type == "Add" and _operands(users[0]):
        result = users[0].outputs[0]

    return _linear_before(result)[0], result


def _norm(value: ir.Value) -> tuple[Norm, ir.Value]:
    """Return the layer normalisation that computes `value`, and its input."""
    node = _maker(value, "LayerNormalization")
    _need(node.attributes.get_int("axis", -1) in (-1, 2), f"{node.name}: not over the last axis")

    gamma, beta = _array(_input(node, 1)), _array(_input(node, 2))
    if gamma is None or beta is None:
        raise UnknownGraph(f"{node.name}: gamma or beta is not constant")
    return Norm(gamma, beta, node.attributes.get_float("epsilon", 1e-5)), _input(node, 0)


def _residual_norm(value: ir.Value, residual: ir.Value) -> tuple[Norm, ir.Value]:
    """Return the normalisation of `value + residual`, and its result."""
    add = _only_user(value, "Add")
    _need({id(_input(add, 0)), id(_input(add, 1))} == {id(value), id(residual)}, f"{add.name}: no residual")
    result = _only_user(add.outputs[0], "LayerNormalization").outputs[0]
    return _norm(result)[0], result


def _activation(value: ir.Value) -> tuple[Activation, ir.Value]:
    """Return the activation that reads `value`, and its result."""
    users = value.consumers()
    if len(users) == 1 and users[0].op_type == "Relu":
        return "relu", users[0].outputs[0]

    result = _erf_gelu(value)
    if result is None:
        raise UnknownGraph(f"{value.name}: the activation is neither GELU by Erf nor ReLU")
    return "gelu", result


def _erf_gelu(value: ir.Value) -> ir.Value | None:
    """Return the GELU x (1 + erf(x / sqrt 2)) / 2 of `value`, operands in any order; None if the graph has none."""
    erf = next((n for use in value.consumers() for n in use.outputs[0].consumers() if n.op_type == "Erf"), None)
    if erf is None or not _is(_maker_constant(erf, "Div"), np.sqrt(2)):
        return None

    one = _only_user(erf.outputs[0], "Add")
    if not _is(_constant(one), 1.0):
        return None

    product = _only_user(one.outputs[0], "Mul")
    half = _only_user(product.outputs[0], "Mul")
    own = {id(_input(product, 0)), id(_input(product, 1))} == {id(one.outputs[0]), id(value)}
    return half.outputs[0] if own and _is(_constant(half), 0.5) else None


def _constant(node: ir.Node) -> Floats | None:
    operands = _operands(node)
    return None if operands is None else operands[1]


def _maker_constant(node: ir.Node, op_type: str) -> Floats | None:
    return _constant(_maker(_input(node, 0), op_type))


def _is(array: Floats | None, number: float) -> bool:
    return array is not None and array.size == 1 and abs(float(array.reshape(())) - number) < ROOT_TOLERANCE


def _prelude(model: onnx.ModelProto, values: list[ir.Value]) -> onnx.ModelProto:
    """Return the graph from the model's inputs to `values`, with all sizes read from the token ids.

    Some models read batch size and length from the embeddings; the prelude reads them from the ids, so that it can be
    cut before the embeddings' normalisation and the embeddings can be stored in another order.
    """
    copy = ir.from_proto(model)
    ids = copy.graph.inputs[0]

    for node in list(copy.graph):
        if node.op_type == "Shape" and _input(node, 0).const_value is None and _rank(_input(node, 0)) == 3:
            _need(set(_gathered(node)) <= {0, 1}, f"{node.name}: reads more than batch size and length")
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
        index = _array(_input(node, 1)) if node.op_type == "Gather" else None
        yield int(index.reshape(())) if index is not None and index.size == 1 else -1


def _tail(model: onnx.ModelProto, last: ir.Value) -> onnx.ModelProto:
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

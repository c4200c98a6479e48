"""Matches parts of an encoder's graph by their operators: linear layers, normalisations, residuals, activations."""

import numpy as np
import onnx_ir as ir

from bge_export.encoder.encoder import Activation, Floats, Linear, Norm
from bge_export.errors import ExportError

ROOT_TOLERANCE = 1e-6


class UnknownGraph(ExportError):
    """The graph is not a post-norm transformer encoder that can be quantized layer by layer."""


def need(condition: bool, problem: str) -> None:
    """Raise `UnknownGraph` with the problem unless a condition holds."""
    if not condition:
        raise UnknownGraph(problem)


def maker(value: ir.Value, op_type: str) -> ir.Node:
    """Return the node that computes a value, which must be of a type."""
    node = value.producer()
    if node is None or node.op_type != op_type:
        raise UnknownGraph(f"{value.name}: made by {node.op_type if node else 'nothing'}, not by {op_type}")
    return node


def only_user(value: ir.Value, op_type: str) -> ir.Node:
    """Return the only node that reads a value, which must be of a type."""
    users = [node for node in value.consumers() if node.op_type == op_type]
    if len(users) != 1 or len(value.consumers()) != 1:
        raise UnknownGraph(f"{value.name}: not read by one {op_type} alone")
    return users[0]


def operand(node: ir.Node, position: int) -> ir.Value:
    """Return an input of a node, which must be there."""
    value = node.inputs[position]
    if value is None:
        raise UnknownGraph(f"{node.name}: has no input {position}")
    return value


def permutation(node: ir.Node) -> tuple[int, ...]:
    """Return the order of axes of a Transpose; empty if it is not given."""
    return tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else ()


def array(value: ir.Value) -> Floats | None:
    """Return the numbers of a constant, or None."""
    return None if value.const_value is None else np.asarray(value.const_value.numpy(), dtype=np.float32)


def operands(node: ir.Node) -> tuple[ir.Value, Floats] | None:
    """Return the computed and the constant operand of a node; None unless it has one of each."""
    first, second = operand(node, 0), operand(node, 1)

    for computed, constant in ((first, second), (second, first)):
        numbers = array(constant)
        if numbers is not None and computed.const_value is None:
            return computed, numbers

    return None


def linear_before(value: ir.Value) -> tuple[Linear, ir.Value]:
    """Return the linear layer that computes `value`, and its input."""
    node = value.producer()
    bias = None
    if node is not None and node.op_type == "Add" and (pair := operands(node)):
        value, bias = pair

    product = maker(value, "MatMul")
    constant = operand(product, 1)
    weight = array(constant)

    if weight is None or weight.ndim != 2:
        raise UnknownGraph(f"{product.name}: the weight is not a constant matrix")
    return Linear(weight, bias, constant.name or ""), operand(product, 0)


def linear_after(value: ir.Value, *, residual: bool = False) -> tuple[Linear, ir.Value]:
    """Return the only linear layer that reads `value` (a residual's `Add` may read it too), and its result."""
    readers = [node for node in value.consumers() if not (residual and node.op_type == "Add")]
    need(len(readers) == 1 and readers[0].op_type == "MatMul", f"{value.name}: not read by one linear layer")

    result = readers[0].outputs[0]
    users = result.consumers()
    if len(users) == 1 and users[0].op_type == "Add" and operands(users[0]):
        result = users[0].outputs[0]

    return linear_before(result)[0], result


def norm_before(value: ir.Value) -> tuple[Norm, ir.Value]:
    """Return the layer normalisation that computes `value`, and its input."""
    node = maker(value, "LayerNormalization")
    need(node.attributes.get_int("axis", -1) in (-1, 2), f"{node.name}: not over the last axis")

    gamma, beta = array(operand(node, 1)), array(operand(node, 2))
    if gamma is None or beta is None:
        raise UnknownGraph(f"{node.name}: gamma or beta is not constant")
    return Norm(gamma, beta, node.attributes.get_float("epsilon", 1e-5)), operand(node, 0)


def residual_norm(value: ir.Value, residual: ir.Value) -> tuple[Norm, ir.Value]:
    """Return the normalisation of `value + residual`, and its result."""
    add = only_user(value, "Add")
    need({id(operand(add, 0)), id(operand(add, 1))} == {id(value), id(residual)}, f"{add.name}: no residual")
    result = only_user(add.outputs[0], "LayerNormalization").outputs[0]
    return norm_before(result)[0], result


def activation_after(value: ir.Value) -> tuple[Activation, ir.Value]:
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

    one = only_user(erf.outputs[0], "Add")
    if not _is(_constant(one), 1.0):
        return None

    product = only_user(one.outputs[0], "Mul")
    half = only_user(product.outputs[0], "Mul")
    own = {id(operand(product, 0)), id(operand(product, 1))} == {id(one.outputs[0]), id(value)}
    return half.outputs[0] if own and _is(_constant(half), 0.5) else None


def _constant(node: ir.Node) -> Floats | None:
    pair = operands(node)
    return None if pair is None else pair[1]


def _maker_constant(node: ir.Node, op_type: str) -> Floats | None:
    return _constant(maker(operand(node, 0), op_type))


def _is(numbers: Floats | None, number: float) -> bool:
    return numbers is not None and numbers.size == 1 and abs(float(numbers.reshape(())) - number) < ROOT_TOLERANCE


def lookups(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return the embedding lookups that a sum is made of, each with the input index of its ids."""
    node = value.producer()
    if node is None:
        raise UnknownGraph(f"{value.name}: the embeddings are not a sum of lookups")
    if node.op_type == "Gather":
        return [(node, 1)]

    return [
        found
        for source in node.inputs
        if source is not None and source.const_value is None
        for found in lookups(source)
    ]

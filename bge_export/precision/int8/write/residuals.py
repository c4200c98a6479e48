"""Adds residuals to a graph of the plain arrangement: what rounding leaves of inputs and weights is multiplied too.

A residual is rounded on a grid of its own, so inputs have about 16 bits and weights 14, at two or three integer
products in place of one. Inputs with a residual have levels to spare: their ranges are doubled, so that a text beyond
the calibrated range is not clipped. The high part of a weight with a residual is rounded anew, on a grid so coarse that
no pair of its integers can saturate: limited integers would leave a residual as large as a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bge_export.encoder.encoder import Floats
from bge_export.precision.int8.plan.grid import LEVELS
from bge_export.precision.int8.round.precise_inputs import PRECISE_MARGIN
from bge_export.precision.int8.round.rounding import Rounded
from bge_export.saturation import PAIR_SUM

Residuals = Literal["none", "inputs", "inputs and weights"]
"""The variants of the plain arrangement, from fast to accurate."""

MIDDLE = 128
"""Zero point of the residual of an input, which is as often negative as positive."""


@dataclass(frozen=True)
class TwoParts:
    """A weight [K, N] as the sum of two rounded ones; no pair of the integers of either can saturate."""

    high: Rounded
    rest: Rounded

    @classmethod
    def of(cls, weight: Floats) -> "TwoParts":
        """Round a weight, and what that leaves."""
        high = _coarse(weight)
        return cls(high, _coarse(weight - high.weight))


def _coarse(weight: Floats) -> Rounded:
    scale = (np.maximum(np.abs(weight).max(axis=0), np.float32(1e-30)) / np.float32(PAIR_SUM // 2)).astype(np.float32)
    return Rounded(np.rint(weight / scale).astype(np.int8), scale)


def add_residuals(plain: onnx.ModelProto, weights: Mapping[str, TwoParts], residuals: Residuals) -> onnx.ModelProto:
    """Return the graph with residuals.

    Args:
        plain: a graph of the plain arrangement; it is not modified.
        weights: name of each product -> its weight in two parts.
        residuals: which of them to add.
    """
    if residuals == "none":
        copy = onnx.ModelProto()
        copy.CopyFrom(plain)
        return copy

    model = ir.from_proto(plain)
    writer = _Writer(model.graph)
    for node in [node for node in model.graph if node.name in weights]:
        writer.add(node, weights[node.name or ""] if residuals == "inputs and weights" else None)

    RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


class _Writer:
    """Adds nodes to a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.inputs: dict[ir.Value, ir.Value] = {}

    def add(self, product: ir.Node, parts: TwoParts | None) -> None:
        """Add the residual of a product's input and, if its weight is given in two parts, that of the weight."""
        whole, weight = product.inputs
        if whole is None or weight is None:
            raise ValueError(f"{product.name} is not a product of two values")
        if whole not in self.inputs:
            self.inputs[whole] = self._rest_of_input(whole)

        name, total = product.name or "", product.outputs[0]
        users = list(total.uses())
        if parts is not None:
            weight = self._weight(product, parts.high, f"{name}/high")
            product.replace_input_with(1, weight)

        added = [self._op(product, "MatMul", [self.inputs[whole], weight], f"{name}/rest")]
        if parts is not None:
            finer = self._weight(product, parts.rest, f"{name}/finer")
            added.append(self._op(product, "MatMul", [whole, finer], f"{name}/finest"))

        # Before the first reader of the product, so behind the product itself.
        for number, part in enumerate(added):
            total = self._op(users[0].node, "Add", [total, part], f"{name}/sum.{number}")
        for user, position in users:
            user.replace_input_with(position, total)

    def _rest_of_input(self, whole: ir.Value) -> ir.Value:
        """Double the range of a rounded input, and return its residual, rounded."""
        dequantize = whole.producer()
        codes = None if dequantize is None else dequantize.inputs[0]
        quantize = None if codes is None else codes.producer()
        if dequantize is None or quantize is None:
            raise ValueError(f"{whole.name} is not a rounded input")
        name, x, scale = dequantize.name or "", quantize.inputs[0], dequantize.inputs[1]
        if x is None or scale is None or scale.const_value is None:
            raise ValueError(f"{whole.name} is not rounded on a constant grid")

        step = (scale.const_value.numpy() * PRECISE_MARGIN).astype(np.float32)
        wider = self._constant(step, f"{name}/scale")
        for node in (quantize, dequantize):
            node.replace_input_with(1, wider)

        first = next(use.node for use in whole.uses() if use.node.op_type == "MatMul")
        grid = [
            self._constant((step / np.float32(LEVELS)).astype(np.float32), f"{name}/rest.scale"),
            self._constant(np.array(MIDDLE, np.uint8), f"{name}/rest.zero"),
        ]
        missed = self._op(first, "Sub", [x, whole], f"{name}/missed")
        codes = self._op(first, "QuantizeLinear", [missed, *grid], f"{name}/rest.codes")
        return self._op(first, "DequantizeLinear", [codes, *grid], f"{name}/rest")

    def _weight(self, before: ir.Node, rounded: Rounded, name: str) -> ir.Value:
        values = [
            self._constant(rounded.integers, f"{name}.integers"),
            self._constant(rounded.scale, f"{name}.scale"),
            self._constant(np.zeros(len(rounded.scale), np.int8), f"{name}.zero"),
        ]
        return self._op(before, "DequantizeLinear", values, f"{name}/weight", axis=1)

    def _op(self, before: ir.Node, kind: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        node = ir.node(kind, inputs, attributes, name=name)
        node.outputs[0].name = f"{name}:0"
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _constant(self, array: np.ndarray, name: str) -> ir.Value:
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return value

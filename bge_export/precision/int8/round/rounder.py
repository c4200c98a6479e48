"""Rounds the weights that read a quantization point, once for all variants that share them.

A quantization point with a residual has its own scaling (`precise_inputs.py`), and its neurons are not split, so the
integers of its weights differ from those of the point without a residual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bge_export.encoder.encoder import POINTS, Encoder, Layer, Linear
from bge_export.encoder.folds import scale_values
from bge_export.encoder.forward import as_tensor
from bge_export.encoder.reorder import Order, reorder_inner
from bge_export.precision.int8.plan.input_scaling import InputPlan
from bge_export.precision.int8.plan.layers import LayerPlan
from bge_export.precision.int8.plan.splitting import split
from bge_export.precision.int8.round.pairing import Reader, order_channels
from bge_export.precision.int8.round.precise_inputs import plan_precise
from bge_export.precision.int8.round.quantized import QuantizedLinear, Rows
from bge_export.precision.int8.round.rounding import COARSE, FACTORS, GREATEST, Rounded, round_weight
from bge_export.precision.int8.round.variant import Point

Precise = Mapping[str, bool]
"""Which quantization points of a layer have a residual."""


@dataclass(frozen=True)
class _JoinedWeight:
    """The weights that read a quantization point, side by side, as rounded for its scaled input.

    Attributes:
        names: names of the linear layers.
        weight: the weights, [K, N].
        widths: number of outputs of each layer.
        gram: Hessian of the scaled input, [K, K].
        importance: importance of the outputs, [N].
        paired: whether the saturation constraint binds the weights.
        order_up: order of the neurons if copies share the integers of their neuron, or None.
    """

    names: tuple[str, ...]
    weight: Tensor
    widths: tuple[int, ...]
    gram: Tensor
    importance: Tensor
    paired: bool
    order_up: Order | None


class Rounder:
    """Rounds the layers of an encoder that is folded and whose channels are ordered."""

    def __init__(self, encoder: Encoder, plans: Sequence[LayerPlan]) -> None:
        """Keep the float32 encoder and its plans; nothing is rounded yet."""
        self.encoder, self.plans = encoder, plans
        self._rounded: dict[tuple[object, ...], dict[str, QuantizedLinear]] = {}
        self._orders: dict[tuple[int, bool], Order] = {}
        self._precise: dict[Point, InputPlan] = {}

    def input(self, layer_index: int, point: str, *, precise: bool) -> InputPlan:
        """Return the scaling of an input; neurons without a residual are unscaled, on the grid of `LayerPlan.down`."""
        plan = self.plans[layer_index]
        if not precise:
            return plan.input(point)

        if (layer_index, point) not in self._precise:
            joined, _ = _joined(self.encoder.layers[layer_index], point)
            squares = plan.grams[point].diagonal()
            found = plan_precise(plan.input(point), joined, squares, plan.importance[point], paired=point == "down")
            self._precise[layer_index, point] = found

        return self._precise[layer_index, point]

    def float_layer(self, layer_index: int, precise: Precise) -> Layer:
        """Return the float32 layer, scaled and split, with its neurons in order."""
        layer = self.encoder.layers[layer_index]
        if not precise["down"]:
            layer = split(layer, self.plans[layer_index].down)

        layer = reorder_inner(layer, self.order(layer_index, precise=precise["down"]))
        return scale_values(layer, self.input(layer_index, "output", precise=precise["output"]).scale.numpy())

    def shape_of(self, layer_index: int, point: str) -> tuple[int, int]:
        """Return the number of channels of a quantization point, and of the outputs computed from them."""
        inputs, outputs = _joined(self.encoder.layers[layer_index], point)[0].shape
        return inputs, outputs

    def order(self, layer_index: int, *, precise: bool) -> Order:
        """Return the order of a layer's neurons that costs the saturation constraint least."""
        if (layer_index, precise) not in self._orders:
            plan, layer = self.plans[layer_index], self.encoder.layers[layer_index]
            scale = self.input(layer_index, "down", precise=True).scale if precise else torch.ones(1)
            weight = as_tensor((layer if precise else split(layer, plan.down)).down.weight) * scale[:, None]

            squares = plan.grams["down" if precise else "split"].diagonal() / scale.square()
            reader = Reader(weight, squares, plan.importance["down"])
            self._orders[layer_index, precise] = order_channels([reader])[0].numpy()

        return self._orders[layer_index, precise]

    def rounded(
        self, layer_index: int, point: str, precise: Precise, *, finer: Rows | None
    ) -> dict[str, QuantizedLinear]:
        """Return the rounded linear layers that read a quantization point, by name."""
        # Columns of `value` carry the scale of the attention's output; neurons of `up` are split with those of `down`.
        other = {"qkv": "output", "up": "down"}.get(point, point)
        key = (layer_index, point, finer, precise[point], precise[other])
        if key not in self._rounded:
            self._rounded[key] = self._round(layer_index, point, precise, finer)
        return self._rounded[key]

    def weight_error(self, layer_index: int, point: str, *, precise: bool) -> float:
        """Return the predicted 1 - cosine from the rounded weights of a quantization point, mean over texts.

        Args:
            layer_index: index of the layer.
            point: name of the quantization point.
            precise: whether all inputs of the layer have a residual.
        """
        every = dict.fromkeys(POINTS, precise)
        whole = self._joined_weight(layer_index, point, every)
        rounded = self.rounded(layer_index, point, every, finer=None)

        missed = torch.cat([as_tensor(rounded[name].weight.weight) for name in whole.names], dim=1) - whole.weight
        error = float(((whole.gram @ missed * missed).sum(0) * whole.importance).sum())
        return 0.5 * self.plans[layer_index].length * error

    def left_out_error(self, layer_index: int, point: str) -> float:
        """Return the predicted 1 - cosine from omitting the product of an input's residual and the weights' residual.

        Both residuals are modelled as rounding errors that are uniform over a step. The step of the input is that of
        the grid; the step of the weights is the scale of an output channel, twice as large if the high part is coarse.
        """
        every = dict.fromkeys(POINTS, True)
        own = self._joined_weight(layer_index, point, every)

        step = self.input(layer_index, point, precise=True).grid.scale
        weight_steps = own.weight.abs().amax(0) / GREATEST * (COARSE[0] if own.paired else 1.0)

        squares = len(own.weight) * step**2 / 12 * weight_steps.square() / 12
        return 0.5 * self.plans[layer_index].length * float((squares * own.importance).sum())

    def _joined_weight(self, layer_index: int, point: str, precise: Precise) -> _JoinedWeight:
        plan, layer = self.plans[layer_index], self.float_layer(layer_index, precise)
        weight, widths = _joined(layer, point)
        order = self.order(layer_index, precise=precise["down"])
        importance = plan.importance[point]

        # Split neurons are not scaled, and their Hessian is computed with the copies.
        if point == "down" and not precise["down"]:
            return _JoinedWeight(
                (point,), weight, widths, plan.grams["split"][order][:, order], importance, paired=True, order_up=None
            )

        scale = self.input(layer_index, point, precise=precise[point]).scale
        order_up = None
        if point == "up":
            # A copy's outputs are as important as its neuron's; padding has no importance.
            copies = [] if precise["down"] else [copy.neuron for copy in plan.down.copies]
            empty = torch.zeros(len(order) - plan.neurons - len(copies))
            importance = torch.cat([importance, importance[copies], empty])[order]
            order_up = None if precise["down"] else order

        gram = plan.grams[point]
        if point == "down":
            gram, scale = gram[order][:, order], scale[order]
        if point != "output":
            weight = weight * scale[:, None]  # the weights of `output` are scaled with the values
        gram = gram / scale[:, None] / scale

        paired = point == "down" or not precise[point]
        return _JoinedWeight(_names(point), weight, widths, gram, importance, paired=paired, order_up=order_up)

    def _round(self, layer_index: int, name: str, precise: Precise, finer: Rows | None) -> dict[str, QuantizedLinear]:
        layer, whole = self.float_layer(layer_index, precise), self._joined_weight(layer_index, name, precise)

        def part(weight: Tensor, factors: Sequence[float]) -> Rounded:
            if whole.order_up is None:
                return round_weight(weight, whole.gram, factors, paired=whole.paired)
            return _round_up(weight, whole, self.plans[layer_index], factors)

        rounded = part(whole.weight, COARSE if finer == "all" and whole.paired else FACTORS)
        rest = None if finer is None else part(whole.weight - as_tensor(rounded.weight), FACTORS)

        result, start = {}, 0
        for each, width in zip(whole.names, whole.widths, strict=True):
            own = slice(start, start + width)
            start += width
            linear: Linear = getattr(layer, each)
            result[each] = QuantizedLinear(
                _columns(rounded, own), linear.bias, None if rest is None else _columns(rest, own)
            )
        return result


def _names(point: str) -> tuple[str, ...]:
    """Return the names of the linear layers that read a quantization point."""
    return ("query", "key", "value") if point == "qkv" else (point,)


def _joined(layer: Layer, point: str) -> tuple[Tensor, tuple[int, ...]]:
    """Return the weights that read a quantization point, side by side, [K, N], and the number of outputs of each."""
    parts = [as_tensor(getattr(layer, name).weight) for name in _names(point)]
    return torch.cat(parts, dim=1), tuple(part.shape[1] for part in parts)


def _round_up(weight: Tensor, whole: _JoinedWeight, plan: LayerPlan, factors: Sequence[float]) -> Rounded:
    """Round `up`, whose neurons are ordered; copies share the integers of their neuron, stretched by their factor."""
    order = whole.order_up
    assert order is not None  # noqa: S101 - the caller checked

    columns = np.argsort(order)
    base = round_weight(weight[:, columns[: plan.neurons]], whole.gram, factors, paired=whole.paired)

    copies = plan.down.copies
    neurons = [copy.neuron for copy in copies]
    stretched = np.array([copy.factor for copy in copies], np.float32)
    empty = weight.shape[1] - plan.neurons - len(copies)
    zeros = np.zeros((len(weight), empty), np.int8)

    integers = np.concatenate([base.integers, base.integers[:, neurons], zeros], axis=1)
    scale = np.concatenate([base.scale, base.scale[neurons] * stretched, np.ones(empty, np.float32)])
    return Rounded(np.ascontiguousarray(integers[:, order]), scale[order])


def _columns(rounded: Rounded, columns: slice) -> Rounded:
    return Rounded(np.ascontiguousarray(rounded.integers[:, columns]), rounded.scale[columns])

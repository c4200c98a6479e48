"""Builds quantized encoders from plans: folds and shifts once, then assembles the layers of any requested variant."""

from dataclasses import replace
from typing import Any

from bge_export.encoder.encoder import POINTS, Encoder, Layer, Linear
from bge_export.encoder.folds import fold_attention, shift_attention, shift_feedforward, with_layer
from bge_export.precision.int8.plan.layers import LayerPlan
from bge_export.precision.int8.round.ordering import ordered
from bge_export.precision.int8.round.quantized import (
    InputQuantization,
    Parts,
    QuantizedEncoder,
    QuantizedLayer,
    QuantizedLinear,
    Rows,
)
from bge_export.precision.int8.round.rounder import Rounder
from bge_export.precision.int8.round.variant import Variant
from bge_export.progress import advance

FIRST_MARGIN = 1.3
"""Factor by which a grid exceeds the observed range if only first tokens have a residual; not for `down`, whose grid is
planned."""


class Builder:
    """Builds the variants of one encoder; weights that two variants share are rounded once."""

    def __init__(self, encoder: Encoder, plans: list[LayerPlan]) -> None:
        """Prune, shift, fold and order a float32 encoder, as it was read, according to its plans."""
        for layer_index, plan in enumerate(plans):
            encoder = shift_attention(encoder, layer_index, plan.qkv.shift.numpy())
            layer = shift_feedforward(plan.pruning.layer(encoder.layers[layer_index]), plan.up.shift.numpy())
            encoder = with_layer(encoder, layer_index, fold_attention(layer))

        self.encoder, self.plans = ordered(encoder, plans)
        self._rounder = Rounder(self.encoder, self.plans)

    @property
    def weights(self) -> int:
        """Return the number of weights in the layers."""
        shapes = [self.shape_of(layer_index, point) for layer_index in range(len(self.plans)) for point in POINTS]
        return sum(inputs * outputs for inputs, outputs in shapes)

    def shape_of(self, layer_index: int, point: str) -> tuple[int, int]:
        """Return the number of channels of a quantization point, and of the outputs computed from them."""
        return self._rounder.shape_of(layer_index, point)

    def weight_error(self, layer_index: int, point: str, *, precise: bool) -> float:
        """Return the predicted 1 - cosine from a point's rounded weights; see `Rounder.weight_error`."""
        return self._rounder.weight_error(layer_index, point, precise=precise)

    def left_out_error(self, layer_index: int, point: str) -> float:
        """Return the predicted 1 - cosine from omitting the product of residuals; see `Rounder.left_out_error`."""
        return self._rounder.left_out_error(layer_index, point)

    def layer_rounded_at(self, layer_index: int, point: str, variant: Variant) -> Layer:
        """Return a float32 layer in which only the weights that read one of its inputs have rounded values.

        Outlier neurons are split and values scaled as in the variant; the input itself is not rounded yet.
        """
        precise = {name: (layer_index, name) in variant.precise for name in POINTS}
        layer = self._rounder.float_layer(layer_index, precise)
        scale = self.input_quantization(layer_index, point, variant).scale

        for name, linear in self._rounder.rounded(layer_index, point, precise, finer=None).items():
            weight = linear.weight.weight
            own: dict[str, Any] = {name: Linear(weight if scale is None else weight / scale[:, None], linear.bias)}
            layer = replace(layer, **own)

        return layer

    def build(self, variant: Variant) -> QuantizedEncoder:
        """Return the encoder quantized as a variant; progress counts layers."""
        layers = []
        for layer_index in range(len(self.plans)):
            layers.append(self._layer(layer_index, variant))
            advance()

        own = self.encoder
        return QuantizedEncoder(own.prelude, own.embedding_norm, tuple(layers), own.tail, own.hidden_order)

    def _layer(self, layer_index: int, variant: Variant) -> QuantizedLayer:
        precise = {point: (layer_index, point) in variant.precise for point in POINTS}
        layer = self._rounder.float_layer(layer_index, precise)

        linear: dict[str, QuantizedLinear] = {}
        for point in POINTS:
            finer = variant.weight_rows((layer_index, point))
            linear |= self._rounder.rounded(layer_index, point, precise, finer=finer)

        def quantization(point: str) -> InputQuantization:
            return self.input_quantization(layer_index, point, variant)

        return QuantizedLayer(
            qkv=quantization("qkv"),
            query=linear["query"],
            key=linear["key"],
            value=linear["value"],
            output_quantization=quantization("output"),
            output=linear["output"],
            attention_norm=layer.attention_norm,
            up_quantization=quantization("up"),
            up=linear["up"],
            down_quantization=quantization("down"),
            down=linear["down"],
            feedforward_norm=layer.feedforward_norm,
            heads=layer.heads,
            activation=layer.activation,
            scores=None if precise["qkv"] else self.plans[layer_index].scores,
            peaks=self.plans[layer_index].peaks,
        )

    def input_quantization(self, layer_index: int, point: str, variant: Variant) -> InputQuantization:
        """Return how a variant quantizes the input of a linear layer."""
        precise = (layer_index, point) in variant.precise
        first = (layer_index, point) in variant.first
        parts: Parts = 2 if precise or first else 1
        rows: Rows = "first" if first else "all"

        # Unless all its rows have a residual, `down` keeps the grid that its neurons were split for, unscaled.
        if point == "down" and not precise:
            return InputQuantization(None, self.plans[layer_index].down.grid, parts, rows)

        own = self._rounder.input(layer_index, point, precise=precise)
        own = replace(own, margin=variant.widening * (FIRST_MARGIN if first else own.margin))

        scale = own.scale.numpy()
        if point == "down":
            scale = scale[self._rounder.order(layer_index, precise=True)]
        return InputQuantization(None if point == "output" else scale, own.grid, parts, rows)

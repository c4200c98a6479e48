"""Builds quantized encoders from plans: folds and shifts once, then assembles the layers of any requested variant."""

from dataclasses import replace
from typing import Any

from bge_export.encoder.encoder import SITES, Encoder, Layer, Linear
from bge_export.encoder.folds import fold_attention, shift_attention, shift_feedforward, with_layer
from bge_export.precision.int8.plan.layers import LayerPlan
from bge_export.precision.int8.round.ordering import ordered
from bge_export.precision.int8.round.quantized import (
    Parts,
    QuantizedEncoder,
    QuantizedLayer,
    QuantizedLinear,
    Rows,
    Site,
)
from bge_export.precision.int8.round.rounder import Rounder
from bge_export.precision.int8.round.variant import Form
from bge_export.progress import advance

FIRST_MARGIN = 1.3
"""Factor by which a grid exceeds the observed range if only first tokens have a residual; not for `down`, whose grid is
planned."""


class Builder:
    """Builds the variants of one encoder; weights that two variants share are rounded once."""

    def __init__(self, encoder: Encoder, plans: list[LayerPlan]) -> None:
        """Prune, shift, fold and order a float32 encoder, as it was read, according to its plans."""
        for place, plan in enumerate(plans):
            encoder = shift_attention(encoder, place, plan.qkv.shift.numpy())
            layer = shift_feedforward(plan.pruning.layer(encoder.layers[place]), plan.up.shift.numpy())
            encoder = with_layer(encoder, place, fold_attention(layer))

        self.encoder, self.plans = ordered(encoder, plans)
        self._rounder = Rounder(self.encoder, self.plans)

    @property
    def weights(self) -> int:
        """Return the number of weights in the layers."""
        shapes = [self.shape_of(place, site) for place in range(len(self.plans)) for site in SITES]
        return sum(inputs * outputs for inputs, outputs in shapes)

    def shape_of(self, place: int, site: str) -> tuple[int, int]:
        """Return the number of channels of a quantization point, and of the outputs computed from them."""
        return self._rounder.shape_of(place, site)

    def weight_error(self, place: int, site: str, *, precise: bool) -> float:
        """Return the predicted 1 - cosine from a point's rounded weights; see `Rounder.weight_error`."""
        return self._rounder.weight_error(place, site, precise=precise)

    def left_out_error(self, place: int, site: str) -> float:
        """Return the predicted 1 - cosine from omitting the product of residuals; see `Rounder.left_out_error`."""
        return self._rounder.left_out_error(place, site)

    def layer_rounded_at(self, place: int, site: str, form: Form) -> Layer:
        """Return a float32 layer in which only the weights that read one of its inputs have rounded values.

        Outlier neurons are split and values scaled as in the variant; the input itself is not rounded yet.
        """
        precise = {name: (place, name) in form.precise for name in SITES}
        layer = self._rounder.float_layer(place, precise)
        scale = self.site(place, site, form).scale

        for name, linear in self._rounder.rounded(place, site, precise, finer=None).items():
            weight = linear.weight.weight
            own: dict[str, Any] = {name: Linear(weight if scale is None else weight / scale[:, None], linear.bias)}
            layer = replace(layer, **own)

        return layer

    def build(self, form: Form) -> QuantizedEncoder:
        """Return the encoder quantized as a variant; progress counts layers."""
        layers = []
        for place in range(len(self.plans)):
            layers.append(self._layer(place, form))
            advance()

        own = self.encoder
        return QuantizedEncoder(own.prelude, own.embedding_norm, tuple(layers), own.tail, own.hidden_order)

    def _layer(self, place: int, form: Form) -> QuantizedLayer:
        precise = {site: (place, site) in form.precise for site in SITES}
        layer = self._rounder.float_layer(place, precise)

        linear: dict[str, QuantizedLinear] = {}
        for site in SITES:
            finer = form.weight_rows((place, site))
            linear |= self._rounder.rounded(place, site, precise, finer=finer)

        def grid(site: str) -> Site:
            return self.site(place, site, form)

        return QuantizedLayer(
            qkv=grid("qkv"),
            query=linear["query"],
            key=linear["key"],
            value=linear["value"],
            output_site=grid("output"),
            output=linear["output"],
            attention_norm=layer.attention_norm,
            up_site=grid("up"),
            up=linear["up"],
            down_site=grid("down"),
            down=linear["down"],
            feedforward_norm=layer.feedforward_norm,
            heads=layer.heads,
            activation=layer.activation,
            scores=None if precise["qkv"] else self.plans[place].scores,
            peaks=self.plans[place].peaks,
        )

    def site(self, place: int, site: str, form: Form) -> Site:
        """Return how a variant quantizes the input of a linear layer."""
        precise = (place, site) in form.precise
        first = (place, site) in form.first
        parts: Parts = 2 if precise or first else 1
        rows: Rows = "first" if first else "all"

        # Unless all its rows have a residual, `down` keeps the grid that its neurons were split for, unscaled.
        if site == "down" and not precise:
            return Site(None, self.plans[place].down.grid, parts, rows)

        own = self._rounder.input(place, site, precise=precise)
        own = replace(own, margin=form.widening * (FIRST_MARGIN if first else own.margin))

        scale = own.scale.numpy()
        if site == "down":
            scale = scale[self._rounder.order(place, precise=True)]
        return Site(None if site == "output" else scale, own.grid, parts, rows)

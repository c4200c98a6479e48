"""The recipe: calibrate, fold, shift and scale, split, round. Nothing is chosen by name or position, all by texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.contracts import EmbeddingSpec
from bge_export.int8.calibration import Batch, Observation, Tokens, importance, observe, observed_tokens
from bge_export.int8.encoder import SITES, Encoder, Layer, Linear
from bge_export.int8.folds import fold_attention, scale_values, shift_attention, shift_feedforward, with_layer
from bge_export.int8.forward import activate, as_tensor
from bge_export.int8.quantized import QuantizedEncoder, QuantizedLayer, QuantizedLinear, Site
from bge_export.int8.rounding import Rounded, hessian, round_weight, token_weights
from bge_export.int8.sites import EXPONENTS, LIMITS, OUTPUT_EXPONENTS, InputPlan, plan_input
from bge_export.int8.splitting import SplitPlan, plan_split, split


@dataclass(frozen=True)
class Settings:
    """What is set by hand; each has a measurement in docs/decisions/0014.

    Attributes:
        input_margin, output_margin, down_margin: how much wider grids are than the ranges seen.
        budget: copies of giant neurons a layer, at most.
    """

    input_margin: float = 1.05
    output_margin: float = 1.15
    down_margin: float = 1.0
    budget: int = 32


@dataclass(frozen=True)
class LayerPlan:
    """What was chosen for one layer."""

    qkv: InputPlan
    output: InputPlan
    up: InputPlan
    down: SplitPlan


def quantize(
    encoder: Encoder, spec: EmbeddingSpec, texts: Sequence[Batch], ranges: Sequence[Batch],
    settings: Settings, advance: Callable[[int], None],
) -> tuple[QuantizedEncoder, list[LayerPlan]]:  # fmt: skip
    """Return the encoder on 8 bits, and what was chosen.

    Args:
        encoder: in float32, as it was read.
        spec: how the embedding is pooled.
        texts: calibration texts.
        ranges: further texts, only for ranges.
        settings: the constants.
        advance: called with 1 after each batch and layer.
    """
    tokens = observed_tokens(texts)
    weights = importance(encoder, spec, texts, tokens, advance)
    plans: list[LayerPlan] = []
    rounded: list[dict[str, Rounded]] = []
    changed = encoder
    for place, seen in enumerate(observe(encoder, texts, ranges, weights)):
        plan = plan_layer(encoder.layers[place], seen, tokens, settings)
        changed = shift_attention(changed, place, plan.qkv.shift.numpy())
        layer = transform(changed.layers[place], plan)
        changed = with_layer(changed, place, layer)
        rounded.append(_round_layer(layer, plan, seen))
        plans.append(plan)
        advance(1)
    layers = tuple(
        _quantized(layer, plan, integers) for layer, plan, integers in zip(changed.layers, plans, rounded, strict=True)
    )
    return QuantizedEncoder(encoder.prelude, changed.embedding_norm, layers, encoder.tail), plans


def plan_layer(layer: Layer, seen: Observation, tokens: Tokens, settings: Settings) -> LayerPlan:
    """Choose shifts, scales, grids and copies for one layer."""

    def middle(site: str) -> Tensor:
        return (seen.low[site] + seen.high[site]) / 2

    qkv_weight = torch.cat([as_tensor(part.weight) for part in (layer.query, layer.key, layer.value)], dim=1)
    qkv = plan_input(
        seen.inputs["qkv"], seen.low["qkv"], seen.high["qkv"], qkv_weight, seen.importance["qkv"], tokens,
        shift=middle("qkv"), exponents=EXPONENTS, limits=(), margin=settings.input_margin,
    )  # fmt: skip
    # The values of shifted inputs, without bias: the softmax's weights sum to one, so the rest is a constant.
    constant = qkv.shift @ as_tensor(layer.value.weight)
    if layer.value.bias is not None:
        constant = constant + as_tensor(layer.value.bias)
    output = plan_input(
        seen.inputs["output"], seen.low["output"], seen.high["output"], as_tensor(layer.output.weight),
        seen.importance["output"], tokens,
        shift=constant, exponents=OUTPUT_EXPONENTS, limits=(), margin=settings.output_margin,
    )  # fmt: skip
    up = plan_input(
        seen.inputs["up"], seen.low["up"], seen.high["up"], as_tensor(layer.up.weight),
        seen.importance["up"], tokens,
        shift=middle("up"), exponents=EXPONENTS, limits=LIMITS, margin=settings.input_margin,
    )  # fmt: skip
    down = plan_split(
        layer, seen.inner, seen.high["down"], seen.importance["down"],
        budget=settings.budget, margin=settings.down_margin, texts=int(tokens.text.max()) + 1,
    )  # fmt: skip
    return LayerPlan(qkv, output, up, down)


def transform(layer: Layer, plan: LayerPlan) -> Layer:
    """Return the layer (whose attention input is shifted already) folded, scaled and split."""
    layer = shift_feedforward(layer, plan.up.shift.numpy())
    layer = split(layer, plan.down)
    return scale_values(fold_attention(layer), plan.output.scale.numpy())


def _round_layer(layer: Layer, plan: LayerPlan, seen: Observation) -> dict[str, Rounded]:
    """Round the weights of a transformed layer on the inputs that it is given."""
    values = {
        "qkv": (seen.inputs["qkv"] - plan.qkv.shift) / plan.qkv.scale,
        "output": (seen.inputs["output"] - plan.output.shift) / plan.output.scale,
        "up": (seen.inputs["up"] - plan.up.shift) / plan.up.scale,
        "down": _split_values(layer, plan.down, seen),
    }
    grams = {site: hessian(values[site], token_weights(seen.importance[site].token)) for site in SITES}
    result: dict[str, Rounded] = {}
    for name, site in (("query", "qkv"), ("key", "qkv"), ("value", "qkv"), ("output", "output"), ("down", "down")):
        weight = as_tensor(getattr(layer, name).weight)
        scaled = weight * plan.qkv.scale[:, None] if site == "qkv" else weight
        result[name] = round_weight(scaled, grams[site])
    result["up"] = _round_up(layer, plan, grams["up"], seen.inner.shape[1])
    return result


def _split_values(layer: Layer, plan: SplitPlan, seen: Observation) -> Tensor:
    """Return the inputs of `down` in the split layer, [T, inner width]."""
    factors = torch.tensor([copy.factor for copy in plan.copies])
    starts = torch.tensor([copy.start for copy in plan.copies])
    neurons = [copy.neuron for copy in plan.copies]
    copies = activate(layer, (seen.inner[:, neurons] - starts) * factors)
    own = seen.inputs["down"].clamp(max=plan.grid.greatest)
    empty = layer.down.weight.shape[0] - own.shape[1] - len(neurons)
    return torch.cat([own, copies, torch.zeros(len(own), empty)], dim=1)


def _round_up(layer: Layer, plan: LayerPlan, gram: Tensor, own: int) -> Rounded:
    """Round `up`, which has `own` neurons; copies of a neuron share its integers, stretched by their factor."""
    weight = as_tensor(layer.up.weight) * plan.up.scale[:, None]
    copies = plan.down.copies
    base = round_weight(weight[:, :own], gram)
    if not copies:
        return base
    neurons = [copy.neuron for copy in copies]
    factors = torch.tensor([copy.factor for copy in copies]).numpy()
    empty = weight.shape[1] - own - len(copies)
    integers, scale = as_tensor(base.integers), as_tensor(base.scale)
    zeros = torch.zeros(len(integers), empty, dtype=torch.int8)
    return Rounded(
        torch.cat([integers, integers[:, neurons], zeros], dim=1).numpy(),
        torch.cat([scale, scale[neurons] * as_tensor(factors), torch.ones(empty)]).numpy(),
    )


def _quantized(layer: Layer, plan: LayerPlan, rounded: dict[str, Rounded]) -> QuantizedLayer:
    def linear(name: str) -> QuantizedLinear:
        own: Linear = getattr(layer, name)
        return QuantizedLinear(rounded[name], own.bias)

    return QuantizedLayer(
        qkv=Site(plan.qkv.scale.numpy(), plan.qkv.grid),
        query=linear("query"), key=linear("key"), value=linear("value"),
        output_site=Site(None, plan.output.grid), output=linear("output"), attention_norm=layer.attention_norm,
        up_site=Site(plan.up.scale.numpy(), plan.up.grid), up=linear("up"),
        down_site=Site(None, plan.down.grid), down=linear("down"), feedforward_norm=layer.feedforward_norm,
        heads=layer.heads, activation=layer.activation,
    )  # fmt: skip

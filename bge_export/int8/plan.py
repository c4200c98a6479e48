"""Chooses, for one layer after the other, how each input is brought onto 8 bits: in one part, and in two.

Both forms are planned at once, so that going from the fast end to the exact end needs no second calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.contracts import EmbeddingSpec, Track
from bge_export.int8.calibration import Batch, Observation, Tokens, importance, observe, observed_tokens
from bge_export.int8.encoder import SITES, Encoder, Layer
from bge_export.int8.forward import activate, as_tensor
from bge_export.int8.rounding import hessian, token_weights
from bge_export.int8.sites import EXPONENTS, LIMITS, OUTPUT_EXPONENTS, Input, InputPlan, plan_input, plan_precise_input
from bge_export.int8.splitting import BUDGET, SplitPlan, plan_split, split


@dataclass(frozen=True)
class Settings:
    """What is set by hand; measured in docs/decisions/0016.

    Attributes:
        input_margin: how much wider the grids of normalised states are than the ranges seen.
        output_margin: the same for the attention's output, which varies more from text to text.
        down_margin: the same for neurons.
        precise_margin: the same for inputs rounded in two parts.
        budget: copies of giant neurons a layer, at most.
        precise: whether inputs are planned in two parts too.
    """

    input_margin: float = 1.1
    output_margin: float = 1.2
    down_margin: float = 1.05
    precise_margin: float = 1.3
    budget: int = BUDGET
    precise: bool = False


@dataclass(frozen=True)
class LayerPlan:
    """What was chosen for one layer, and the moments of its inputs that rounding needs.

    Attributes:
        qkv, output, up: scalings in one part.
        precise: scalings in two parts, of the same three; empty where they were not planned.
        down: range and copies in one part.
        precise_down: range without copies, in two parts.
        grams: by site, of the shifted input before it is scaled, [K, K]; "split" of `down`'s with its copies.
        importance: by site, of the outputs, [N].
        neurons: I, before copies.
    """

    qkv: InputPlan
    output: InputPlan
    up: InputPlan
    precise: dict[str, InputPlan]
    down: SplitPlan
    precise_down: SplitPlan
    grams: dict[str, Tensor]
    importance: dict[str, Tensor]
    neurons: int

    def activation_error(self, site: str) -> float:
        """Return the predicted 1 - cosine, mean over texts, by rounding the site's input in one part."""
        plan: InputPlan | SplitPlan = getattr(self, site)
        return plan.activation_error


def plan_layers(
    encoder: Encoder, spec: EmbeddingSpec, texts: Sequence[Batch], ranges: Sequence[Batch], settings: Settings,
    track: Track,
) -> list[LayerPlan]:  # fmt: skip
    """Return the plan of each layer.

    Args:
        encoder: in float32, as it was read.
        spec: how the embedding is pooled.
        texts: calibration texts.
        ranges: further texts, only for ranges.
        settings: the constants.
        track: shows two stages, of batches of `texts` and of layers.
    """
    tokens = observed_tokens(texts)
    with track("int8: calibrating, batches", len(texts)) as advance:
        weights = importance(encoder, spec, texts, tokens, advance)
    plans = []
    with track("int8: planning, layers", len(encoder.layers)) as advance:
        for layer, seen in zip(encoder.layers, observe(encoder, texts, ranges, weights), strict=True):
            plans.append(_plan_layer(layer, seen, tokens, settings))
            advance(1)
    return plans


def _plan_layer(layer: Layer, seen: Observation, tokens: Tokens, settings: Settings) -> LayerPlan:
    def site(name: str, weight: Tensor, shift: Tensor) -> Input:
        return Input(seen.inputs[name], seen.low[name], seen.high[name], shift, weight, seen.importance[name], tokens)

    def middle(name: str) -> Tensor:
        return (seen.low[name] + seen.high[name]) / 2

    joined = torch.cat([as_tensor(part.weight) for part in (layer.query, layer.key, layer.value)], dim=1)
    # The softmax's weights sum to one: of shifted inputs without bias, it mixes values that differ by a constant.
    constant = middle("qkv") @ as_tensor(layer.value.weight)
    if layer.value.bias is not None:
        constant = constant + as_tensor(layer.value.bias)
    inputs = {
        "qkv": site("qkv", joined, middle("qkv")),
        "output": site("output", as_tensor(layer.output.weight), constant),
        "up": site("up", as_tensor(layer.up.weight), middle("up")),
    }
    count = int(tokens.text.max()) + 1
    down, precise_down = (
        plan_split(
            layer, seen.inner, seen.high["down"], seen.importance["down"], budget=budget, margin=settings.down_margin,
            texts=count,
        )
        for budget in (settings.budget, 0)
    )  # fmt: skip
    margin = settings.input_margin
    return LayerPlan(
        qkv=plan_input(inputs["qkv"], exponents=EXPONENTS, margin=margin),
        output=plan_input(inputs["output"], exponents=OUTPUT_EXPONENTS, margin=settings.output_margin),
        up=plan_input(inputs["up"], exponents=EXPONENTS, limits=LIMITS, margin=margin),
        precise={
            name: plan_precise_input(item, margin=settings.precise_margin)
            for name, item in inputs.items()
            if settings.precise
        },
        down=down,
        precise_down=precise_down,
        grams=_grams(layer, seen, inputs, down),
        importance={name: seen.importance[name].output for name in SITES},
        neurons=seen.inner.shape[1],
    )


def _grams(layer: Layer, seen: Observation, inputs: dict[str, Input], plan: SplitPlan) -> dict[str, Tensor]:
    weights = {name: token_weights(seen.importance[name].token) for name in SITES}
    grams = {name: hessian(site.x - site.shift, weights[name]) for name, site in inputs.items()}
    grams["down"] = hessian(seen.inputs["down"], weights["down"])
    grams["split"] = hessian(_split_values(split(layer, plan), plan, seen), weights["down"])
    return grams


def _split_values(layer: Layer, plan: SplitPlan, seen: Observation) -> Tensor:
    """Return the inputs of `down` in the split layer, [T, inner width]."""
    factors = torch.tensor([copy.factor for copy in plan.copies])
    starts = torch.tensor([copy.start for copy in plan.copies])
    neurons = [copy.neuron for copy in plan.copies]
    copies = activate(layer, (seen.inner[:, neurons] - starts) * factors)
    own = seen.inputs["down"].clamp(max=plan.grid.greatest)
    empty = layer.down.weight.shape[0] - own.shape[1] - len(neurons)
    return torch.cat([own, copies, torch.zeros(len(own), empty)], dim=1)

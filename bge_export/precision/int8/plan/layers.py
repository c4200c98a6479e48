"""Plans, layer by layer, how each input of a linear layer is quantized to 8 bits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.calibration.hessian import CHUNK, hessian, token_weights
from bge_export.calibration.objective import Objective
from bge_export.calibration.observing import CalibrationSet, Observation, Tokens, importance, observe, observed_tokens
from bge_export.encoder.encoder import POINTS, Encoder, Layer, Linear
from bge_export.encoder.forward import activate, as_tensor
from bge_export.memory import release
from bge_export.precision.int8.plan.input_scaling import (
    EXPONENTS,
    LIMITS,
    OUTPUT_EXPONENTS,
    Input,
    InputPlan,
    plan_input,
)
from bge_export.precision.int8.plan.peaks import PeakPlan, plan_peaks
from bge_export.precision.int8.plan.pruning import Pruning, plan_pruning
from bge_export.precision.int8.plan.scores import ScorePlan, plan_scores
from bge_export.precision.int8.plan.splitting import GELU_LEAST, SplitPlan, plan_split, split
from bge_export.progress import advance, stage


@dataclass(frozen=True)
class Settings:
    """Constants that are set by hand; measured in docs/decisions/0016.

    Attributes:
        input_margin: factor by which the grids of normalised states exceed the observed ranges.
        output_margin: the same for the attention's output, which varies more from text to text.
        down_margin: the same for neurons.
    """

    input_margin: float = 1.25
    output_margin: float = 1.2
    down_margin: float = 1.05


@dataclass(frozen=True)
class LayerPlan:
    """The choices for one layer, and the moments of its inputs that rounding needs.

    Dictionaries are keyed by quantization point.

    Attributes:
        qkv, output, up: scalings.
        down: range and copies of `down`'s input without a residual.
        whole_down: range of the same input without copies; it is scaled if it gets a residual.
        grams: Hessians of the shifted, unscaled inputs, [K, K]; "split" is that of `down`'s input with its copies.
        importance: importance of the outputs, [N].
        first: share of the importance that the first tokens of the texts have.
        length: mean number of tokens of a text.
        pruning: neurons that are kept; all other attributes count only these.
        scores: quantization of queries and keys.
        peaks: how scores are kept in the range of an exponential.
    """

    qkv: InputPlan
    output: InputPlan
    up: InputPlan
    down: SplitPlan
    whole_down: InputPlan
    grams: dict[str, Tensor]
    importance: dict[str, Tensor]
    first: dict[str, float]
    length: float
    pruning: Pruning
    scores: ScorePlan
    peaks: PeakPlan

    @property
    def neurons(self) -> int:
        """Return the number of neurons kept, without copies."""
        return len(self.pruning.kept)

    def input(self, point: str) -> InputPlan:
        """Return the scaling of an input; for `down`, that of the input without copies."""
        found: InputPlan = self.whole_down if point == "down" else getattr(self, point)
        return found

    def gram(self, point: str) -> Tensor:
        """Return the Hessian of a scaled input that has no residual, [K, K]."""
        scale = self.input(point).scale
        return self.grams[point] / scale[:, None] / scale

    def activation_error(self, point: str) -> float:
        """Return the predicted 1 - cosine, mean over texts, from rounding an input without a residual."""
        plan: InputPlan | SplitPlan = getattr(self, point)
        return plan.activation_error

    def first_error(self, point: str) -> float:
        """Return the part of `activation_error` that the first tokens of the texts cause."""
        return self.activation_error(point) * self.first[point]


def plan_layers(encoder: Encoder, objective: Objective, texts: CalibrationSet, settings: Settings) -> list[LayerPlan]:
    """Return the plan of each layer; two stages show progress: batches of the chosen texts, then layers.

    Args:
        encoder: the float32 encoder, as it was read.
        objective: what rounding must keep.
        texts: the calibration set.
        settings: the constants.
    """
    tokens = observed_tokens(texts.chosen)
    with stage("int8: calibrating, batches", len(texts.chosen)):
        weights = importance(encoder, objective, texts.chosen, tokens)
    release()

    states = [batch.state for batch in texts.batches]
    by_key = all(batch.bias.ndim == 4 and batch.bias.shape[1:3] == (1, 1) for batch in texts.chosen)
    plans = []
    with stage("int8: planning, layers", len(encoder.layers)):
        for layer_index, layer in enumerate(encoder.layers):
            seen = observe(layer, texts, states, weights.pop(0))

            # Only the last layer is pruned: there, only pooled tokens matter.
            last = layer_index + 1 == len(encoder.layers)
            pruning = plan_pruning(layer, seen, tokens) if last else Pruning.none(layer)
            plans.append(_plan_layer(layer, seen, pruning, tokens, settings, by_key=by_key))

            # One layer's tensors are large; free them before the next layer.
            del seen, pruning
            release()
            advance()
    return plans


def _plan_layer(
    layer: Layer, seen: Observation, pruning: Pruning, tokens: Tokens, settings: Settings, *, by_key: bool
) -> LayerPlan:
    count = int(tokens.text.max()) + 1
    layer, seen = pruning.layer(layer), pruning.observation(seen)

    def scaled_input(name: str, weight: Tensor, shift: Tensor) -> Input:
        return Input(seen.inputs[name], seen.low[name], seen.high[name], shift, weight, seen.importance[name], tokens)

    def middle(name: str) -> Tensor:
        return (seen.low[name] + seen.high[name]) / 2

    joined = torch.cat([as_tensor(part.weight) for part in (layer.query, layer.key, layer.value)], dim=1)

    # Softmax weights sum to 1, so shifted inputs without a bias change the mixed values by a constant.
    constant = _left_out(layer.value, middle("qkv"))
    lacking = _left_out(layer.key, middle("qkv"))
    query = (seen.low["query"] * layer.score_scale, seen.high["query"] * layer.score_scale)

    inputs = {
        "qkv": scaled_input("qkv", joined, middle("qkv")),
        "output": scaled_input("output", as_tensor(layer.output.weight), constant),
        "up": scaled_input("up", as_tensor(layer.up.weight), middle("up")),
    }
    down = plan_split(
        layer,
        seen.inner,
        seen.high["down"],
        seen.importance["down"],
        margin=settings.down_margin,
        texts=count,
    )

    margin = settings.input_margin
    return LayerPlan(
        qkv=plan_input(inputs["qkv"], exponents=EXPONENTS, margin=margin),
        output=plan_input(inputs["output"], exponents=OUTPUT_EXPONENTS, margin=settings.output_margin),
        up=plan_input(inputs["up"], exponents=EXPONENTS, limits=LIMITS, margin=margin),
        down=down,
        whole_down=_whole_down(layer, seen),
        grams=_grams(layer, seen, inputs, down),
        importance={name: seen.importance[name].output for name in POINTS},
        first={name: _share(seen.importance[name].token, tokens.first) for name in POINTS},
        length=len(tokens.text) / count,
        pruning=pruning,
        scores=plan_scores(query, (seen.low["key"], seen.high["key"]), lacking),
        peaks=plan_peaks(seen.query * layer.score_scale, seen.peaks, lacking, by_key=by_key),
    )


def _left_out(linear: Linear, shift: Tensor) -> Tensor:
    """Return the constant that a layer's outputs lack after its inputs are shifted and its bias is folded away, [N]."""
    constant = shift @ as_tensor(linear.weight)
    return constant if linear.bias is None else constant + as_tensor(linear.bias)


def _whole_down(layer: Layer, seen: Observation) -> InputPlan:
    high = seen.high["down"]
    low = torch.full_like(high, GELU_LEAST if layer.activation == "gelu" else 0.0)
    return InputPlan(torch.zeros_like(high), torch.ones_like(high), low, high, 1.0, 0.0, 0.0)


def _share(importance: Tensor, which: Tensor) -> float:
    return (importance[which].sum() / importance.sum().clamp(min=1e-30)).item()


def _grams(layer: Layer, seen: Observation, inputs: dict[str, Input], plan: SplitPlan) -> dict[str, Tensor]:
    weights = {name: token_weights(seen.importance[name].token) for name in POINTS}
    grams = {name: hessian(each.x - each.shift, weights[name]) for name, each in inputs.items()}
    grams["down"] = hessian(seen.inputs["down"], weights["down"])
    grams["split"] = _split_gram(split(layer, plan), plan, seen, grams["down"], weights["down"])
    return grams


def _split_gram(layer: Layer, plan: SplitPlan, seen: Observation, gram: Tensor, weights: Tensor) -> Tensor:
    """Return the Hessian of the inputs of `down` in the split layer, [M, M].

    Only clipped neurons and copies differ from the unsplit layer, so only their rows are computed, in chunks of tokens
    to save memory.

    Args:
        layer: the split layer.
        plan: how the layer is split.
        seen: observation of the layer before the split, on the calibration texts.
        gram: Hessian of `down`'s inputs before the split, [K, K].
        weights: weights of the tokens, [T].
    """
    factors = torch.tensor([copy.factor for copy in plan.copies])
    starts = torch.tensor([copy.start for copy in plan.copies])
    neurons = [copy.neuron for copy in plan.copies]

    whole = seen.inputs["down"]
    neurons_before, width = whole.shape[1], layer.down.weight.shape[0]
    clipped = (whole.amax(0) > plan.grid.greatest).nonzero()[:, 0]
    changed = torch.cat([clipped, torch.arange(neurons_before, width)])

    rows = torch.zeros(len(changed), width)
    for start in range(0, len(whole), CHUNK):
        some = slice(start, start + CHUNK)
        copies = activate(layer, (seen.inner[some][:, neurons] - starts) * factors)
        empty = torch.zeros(len(copies), width - neurons_before - len(neurons))
        values = torch.cat([whole[some].clamp(max=plan.grid.greatest), copies, empty], dim=1)
        rows.addmm_((values[:, changed] * weights[some, None]).T, values)

    found = torch.zeros(width, width)
    found[:neurons_before, :neurons_before] = gram
    found[changed] = rows
    found[:, changed] = rows.T
    return found

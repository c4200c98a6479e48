"""Runs an `Encoder` in torch in float32, so that calibration can observe it and each rewrite can be checked."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from bge_export.encoder.encoder import Encoder, Floats, Layer, Linear, Norm

Rounding = Mapping[str, Callable[[Tensor], Tensor]]
NO_ROUNDING: Rounding = MappingProxyType({})


@dataclass(frozen=True)
class Trace:
    """Inputs and outputs of one layer's linear layers on a batch, each [B, S, width].

    Attributes:
        inputs: inputs by quantization point (`encoder.POINTS`).
        outputs: outputs by quantization point; queries, keys and values are concatenated.
        inner: the result of `up` before the activation.
        peaks: the largest score of each query, [B, S, heads], without gradient.
        state: the layer's result.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    inner: Tensor
    peaks: Tensor
    state: Tensor


def as_tensor(array: Floats) -> Tensor:
    """Return a tensor that shares no memory with the array."""
    return torch.tensor(array)


def linear(layer: Linear, x: Tensor) -> Tensor:
    """Return x @ weight + bias."""
    result = x @ as_tensor(layer.weight)
    return result if layer.bias is None else result + as_tensor(layer.bias)


def normalize(norm: Norm, x: Tensor) -> Tensor:
    """Return the layer normalisation of x over its last axis."""
    return functional.layer_norm(x, x.shape[-1:], as_tensor(norm.gamma), as_tensor(norm.beta), norm.epsilon)


def activate(layer: Layer, x: Tensor) -> Tensor:
    """Return the layer's activation of x, clipped at the layer's upper bound."""
    result = functional.gelu(x) if layer.activation == "gelu" else functional.relu(x)
    return result if layer.clip is None else result.clamp(max=layer.clip)


def run_layer(layer: Layer, x: Tensor, bias: Tensor, rounding: Rounding = NO_ROUNDING) -> Trace:
    """Run one layer and return its tensors.

    Args:
        layer: the layer.
        x: its input, [B, S, H].
        bias: terms added to the scores, broadcastable to [B, heads, S, S].
        rounding: function applied to the linear layers' input, by quantization point.
    """

    def read(point: str, values: Tensor) -> Tensor:
        return rounding[point](values) if point in rounding else values

    rows, length, _ = x.shape

    seen = read("qkv", x)
    qkv = torch.cat([linear(part, seen) for part in (layer.query, layer.key, layer.value)], dim=-1)
    widths = [part.weight.shape[1] for part in (layer.query, layer.key, layer.value)]
    query, key, value = (
        part.reshape(rows, length, layer.heads, -1).transpose(1, 2) for part in torch.split(qkv, widths, dim=-1)
    )

    scores = query @ key.transpose(-1, -2) * layer.score_scale + bias
    mixed = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(rows, length, -1)

    output = linear(layer.output, read("output", mixed))
    middle = normalize(layer.attention_norm, output + x)

    inner = linear(layer.up, read("up", middle))
    activated = activate(layer, inner)
    down = linear(layer.down, read("down", activated))

    return Trace(
        inputs={"qkv": x, "output": mixed, "up": middle, "down": activated},
        outputs={"qkv": qkv, "output": output, "up": inner, "down": down},
        inner=inner,
        peaks=scores.detach().amax(-1).transpose(1, 2),
        state=normalize(layer.feedforward_norm, down + middle),
    )


def run(encoder: Encoder, embedded: Tensor, bias: Tensor) -> Tensor:
    """Return the last hidden state [B, S, H] for a sum of embeddings [B, S, H], both in the model's channel order."""
    order = None if encoder.hidden_order is None else torch.from_numpy(encoder.hidden_order)
    state = normalize(encoder.embedding_norm, embedded if order is None else embedded[..., order])

    for layer in encoder.layers:
        state = run_layer(layer, state, bias).state

    return state if order is None else state[..., order.argsort()]


def gelu_gap(x: Tensor) -> Tensor:
    """Return ReLU(x) - GELU(x), at most 0.17: the error of splitting a GELU neuron near its boundary."""
    return functional.relu(x) - 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

"""The encoder as data classes, on which quantization works between the source graph and the written graphs.

    graph ──reading──▶ Encoder ──folds, scales, splits──▶ Encoder ──rounding──▶ QuantizedEncoder ──arrange──▶ graph

Every step before rounding preserves the function (splitting: up to the curvature of the activation), so each step can
be checked by running the encoder in float32 (`forward.py`).

Dimensions: T tokens, H hidden width, I inner width of the feed-forward, K inputs and N outputs of a linear layer.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Activation = Literal["gelu", "relu"]

POINTS = ("qkv", "output", "up", "down")
"""Quantization points of a layer: the inputs of its linear layers (query, key and value share one)."""


@dataclass(frozen=True)
class Linear:
    """y = x @ weight + bias.

    Attributes:
        weight: [K, N] float32.
        bias: [N] float32, or None.
        source: name of the weight in the source graph; empty once the weight differs from it.
    """

    weight: Floats
    bias: Floats | None
    source: str = ""

    def moved(self, shift: Floats) -> "Linear":
        """Return the layer whose result for x - shift equals this layer's result for x."""
        moved = (self.weight.T.astype(np.float64) @ shift).astype(np.float32)
        return replace(self, bias=moved if self.bias is None else self.bias + moved)

    def added(self, vector: Floats) -> "Linear":
        """Return the layer with `vector` [N] added to its result."""
        return replace(self, bias=vector if self.bias is None else self.bias + vector)


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the hidden width: `gamma`, `beta` [H] float32."""

    gamma: Floats
    beta: Floats
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """One post-norm transformer layer.

    Attributes:
        query, key, value, output, up, down: the linear layers.
        attention_norm: normalisation after the attention's residual.
        feedforward_norm: normalisation after the feed-forward's residual.
        heads: number of heads; the head width is H / heads.
        score_scale: factor of the scores before the softmax.
        activation: function between `up` and `down`.
        clip: upper bound of the activation that `down` reads; None if it is not bounded.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    feedforward_norm: Norm
    heads: int
    score_scale: float
    activation: Activation
    clip: float | None = None


@dataclass(frozen=True)
class Encoder:
    """A whole encoder.

    Attributes:
        prelude: the graph before the first normalisation, from the model's inputs to the sum of embeddings [B, S, H]
            (its first output) and to the terms added to the scores (its other outputs, such as the mask [B, 1, 1, S]).
        embedding_norm: normalisation of the sum of embeddings.
        layers: the layers in order.
        tail: the graph after the last hidden state (a pooling head), with that state as its first input; None if there
            is none.
        hidden_order: channel i of the layers is channel hidden_order[i] of the model, [H] int64; None for the
            identity.
    """

    prelude: onnx.ModelProto
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    tail: onnx.ModelProto | None
    hidden_order: NDArray[np.int64] | None = None

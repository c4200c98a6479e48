"""An encoder as data: what quantization changes, between the graph it is read from and the graphs it is written as.

    graph ──reading──▶ Encoder ──folds, scales, splits──▶ Encoder ──rounding──▶ QuantizedEncoder ──arrange──▶ graph

Every step before rounding leaves the function as it is (splitting: up to the activation's own curve), so each can be
checked by running the encoder in float32 (`forward.py`).

Letters: T tokens, H hidden width, I inner width of the feed-forward, K inputs and N outputs of a linear layer.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Activation = Literal["gelu", "relu"]

SITES = ("qkv", "output", "up", "down")
"""Where activations are rounded in a layer: the inputs of its linear layers (query, key and value read the same)."""


@dataclass(frozen=True)
class Linear:
    """y = x @ weight + bias.

    Attributes:
        weight: [K, N] float32.
        bias: [N] float32, or None.
        source: name of the weight in the graph that it was read from; empty once the weight is another.
    """

    weight: Floats
    bias: Floats | None
    source: str = ""

    def moved(self, shift: Floats) -> "Linear":
        """Return the layer that gives for x - shift what this one gives for x."""
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
        query, key, value, output, up, down: its linear layers.
        attention_norm: after the attention's residual.
        feedforward_norm: after the feed-forward's residual.
        heads: how many; the head width is H / heads.
        score_scale: what scores are multiplied by before the softmax.
        activation: between `up` and `down`.
        clip: the largest value of the activation that `down` is given; None where it is not bounded.
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
        prelude: the part of the graph before the first normalisation, as a graph of its own: from the model's inputs
            to the sum of embeddings [B, S, H] (its first output) and to what is added to the scores (the others, such
            as the mask [B, 1, 1, S]).
        embedding_norm: the normalisation of the sum of embeddings.
        layers: in order.
        tail: the part after the last hidden state (a pooling head), whose first input that state is; None without.
        hidden_order: channel i of the layers is channel hidden_order[i] of the model, [H] int64; None for the same.
    """

    prelude: onnx.ModelProto
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    tail: onnx.ModelProto | None
    hidden_order: NDArray[np.int64] | None = None

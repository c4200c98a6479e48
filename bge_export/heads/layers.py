"""The layers between pooling and the vector: as fields of a spec, and in numpy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LayerKind = Literal["dense", "layernorm", "normalize", "truncate"]
Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]

Tensors = Mapping[str, NDArray[np.float32]]
"""The weights of one layer, by sentence-transformers' names; empty for a layer without any."""

NAMES: Mapping[LayerKind, str] = {
    "dense": "Dense",
    "layernorm": "LayerNorm",
    "normalize": "Normalize",
    "truncate": "Truncate",
}
"""Kind -> how the folder of its module ends, and how people read it."""

LEAST = -1e9
"""Stands for the states of padding where a pooling takes the largest values, as in sentence-transformers."""

LAYER_NORM_EPSILON = 1e-5
"""torch's default, which sentence-transformers' LayerNorm has."""


@dataclass(frozen=True)
class Layer:
    """One layer, from a vector to a vector.

    Attributes:
        kind: `dense` multiplies by a matrix and adds a bias, `layernorm` has weights of its own too, `normalize`
            divides by the L2 norm, `truncate` keeps the first components.
        reads: the width that it reads.
        dim: the width that it gives.
        activation: what a dense layer does at last.
    """

    kind: LayerKind
    reads: int
    dim: int
    activation: Activation = "identity"

    @property
    def weighted(self) -> bool:
        """Return whether the layer has weights."""
        return self.kind in ("dense", "layernorm")

    def __str__(self) -> str:
        """Return the layer as people read it."""
        if self.kind == "dense":
            after = "" if self.activation == "identity" else f" with {self.activation}"
            return f"Dense {self.reads} to {self.dim}{after}"
        if self.kind == "truncate":
            return f"the first {self.dim} of {self.reads}"
        return NAMES[self.kind]


def module_folders(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the folder of each layer's module in an exported folder, such as `2_Dense`."""
    return tuple(f"{number}_{NAMES[layer.kind]}" for number, layer in enumerate(layers, start=2))


def apply_layers(rows: NDArray[np.float32], layers: Sequence[Layer], tensors: Sequence[Tensors]) -> NDArray[np.float32]:
    """Return [B, D] float32: rows [B, R] through all layers, in float64 in between.

    Args:
        rows: pooled states.
        layers: the layers.
        tensors: the weights of each.
    """
    values = rows.astype(np.float64)
    for layer, weights in zip(layers, tensors, strict=True):
        values = _applied(values, layer, weights)
    return values.astype(np.float32)


def _applied(values: NDArray[np.float64], layer: Layer, weights: Tensors) -> NDArray[np.float64]:
    if layer.kind == "truncate":
        return values[:, : layer.dim]

    if layer.kind == "normalize":
        norms = np.sqrt((values * values).sum(axis=1, keepdims=True))
        with np.errstate(invalid="ignore"):
            return np.asarray(values / np.where(norms == 0.0, 1.0, norms))

    if layer.kind == "layernorm":
        centred = values - values.mean(axis=1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + LAYER_NORM_EPSILON)
        return np.asarray(centred / spread * weights["norm.weight"] + weights["norm.bias"])

    product = values @ weights["linear.weight"].astype(np.float64).T
    if "linear.bias" in weights:
        product = product + weights["linear.bias"]
    return ACTIVATIONS[layer.activation](product)


def _gelu(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values * 0.5 * (1.0 + np.vectorize(math.erf, otypes=[np.float64])(values / math.sqrt(2.0))))


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and its inverse zero
        return np.asarray(1.0 / (1.0 + np.exp(-values)))


ACTIVATIONS: Mapping[Activation, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "identity": lambda values: values,
    "tanh": lambda values: np.asarray(np.tanh(values)),
    "relu": lambda values: np.asarray(np.maximum(values, 0.0)),
    "gelu": _gelu,
    "sigmoid": _sigmoid,
    "silu": lambda values: values * _sigmoid(values),
}

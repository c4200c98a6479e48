"""The dense head in torch, apart from the rest because torch loads slowly."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bge_export.contracts import Pooling
from bge_export.heads.layers import LAYER_NORM_EPSILON, LEAST, Activation, Layer, Tensors

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
}


class DenseModule(nn.Module):
    """Pooling, the layers after it and optional L2 normalisation, in a graph or under a gradient."""

    def __init__(
        self,
        width: int,
        pooling: Pooling,
        *,
        normalize: bool,
        layers: Sequence[Layer] = (),
        tensors: Sequence[Tensors] = (),
        may_be_empty: bool = False,
    ) -> None:
        """Make a module.

        Args:
            width: D, the width of the token states.
            pooling: which token states form a vector.
            normalize: whether the vector is divided by its norm at last.
            layers: what lies between.
            tensors: the weights of each layer.
            may_be_empty: whether texts may have no tokens, so that their mean must be zero; other graphs need no guard.
        """
        super().__init__()
        self.width = width
        self.pooling = pooling
        self.normalize = normalize
        self.may_be_empty = may_be_empty
        self.layers = nn.Sequential(*(_module(*one) for one in zip(layers, tensors, strict=True)))

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [B, D] from states [B, S, D] and the mask [B, S], integers or booleans."""
        vector: Tensor = self.layers(self._pooled(states, attention_mask))
        return nn.functional.normalize(vector, dim=-1) if self.normalize else vector

    def _pooled(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states[:, 0]

        if self.pooling == "mean":
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            count = weights.sum(1)
            return (states * weights).sum(1) / (count.clamp(min=1.0) if self.may_be_empty else count)

        if self.pooling == "max":
            kept = attention_mask.unsqueeze(-1).to(torch.bool)
            return torch.where(kept, states, torch.full_like(states, LEAST)).amax(1)

        if self.pooling in ("mean_sqrt_len", "weightedmean"):
            return self._weighed(states, attention_mask.to(torch.int64))

        # The last token's place, whether padding precedes or follows the text.
        places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        last = (attention_mask.to(torch.int64) * places).amax(1, keepdim=True).unsqueeze(-1)
        return torch.gather(states, 1, last.expand(-1, -1, self.width))[:, 0]

    def _weighed(self, states: Tensor, kept: Tensor) -> Tensor:
        """Return the sum of all tokens by the root of their number, or their mean weighed by their places."""
        weights = (kept if self.pooling == "mean_sqrt_len" else kept * kept.cumsum(1)).to(states.dtype)
        total = weights.sum(1, keepdim=True)
        by = total.sqrt() if self.pooling == "mean_sqrt_len" else total
        return (states * weights.unsqueeze(-1)).sum(1) / by


def _module(layer: Layer, tensors: Tensors) -> nn.Module:
    """Return one layer, [B, R] -> [B, D]."""
    if layer.kind == "truncate":
        return _Truncate(layer.dim)
    if layer.kind == "normalize":
        return _Normalize()

    weights = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    if layer.kind == "layernorm":
        norm = nn.LayerNorm(layer.dim, eps=LAYER_NORM_EPSILON)
        norm.load_state_dict({name.removeprefix("norm."): tensor for name, tensor in weights.items()})
        return norm

    linear = nn.Linear(layer.reads, layer.dim, bias="linear.bias" in weights)
    linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in weights.items()})
    return nn.Sequential(linear, ACTIVATIONS[layer.activation]())


class _Truncate(nn.Module):
    """Keeps the first components of a vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, rows: Tensor) -> Tensor:
        return rows[:, : self.dim]


class _Normalize(nn.Module):
    """Divides a vector by its L2 norm."""

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.normalize(rows, dim=-1)

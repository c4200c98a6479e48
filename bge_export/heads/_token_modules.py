"""The sparse and the multi-vector head in torch, apart from the rest because torch loads slowly."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class TokenWeights(nn.Module):
    """BGE-M3's weights: a linear layer of width one comes before."""

    def forward(self, given: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG002 - as every head's
        """Return [B, S] from [B, S, 1]; padding has a weight too, and nobody reads it."""
        return torch.relu(given).squeeze(-1)


class VocabularyWeights(nn.Module):
    """SPLADE's weights, from the logits of a masked language model."""

    def __init__(self, pooling: Literal["max", "sum"], *, log_twice: bool) -> None:
        """Make a module without weights; the arguments are fields of `Sparse`."""
        super().__init__()
        self.pooling = pooling
        self.log_twice = log_twice

    def forward(self, logits: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [B, V] from [B, S, V] and the mask [B, S]."""
        kept = torch.relu(logits * attention_mask.unsqueeze(-1).to(logits.dtype))

        # The logarithm keeps the order, so the maximum needs it once a text and not once a token.
        if self.pooling == "max":
            kept = kept.amax(1)
        weights = torch.log(1.0 + kept)
        if self.log_twice:
            weights = torch.log(1.0 + weights)
        return weights if self.pooling == "max" else weights.sum(1)


class TokenVectors(nn.Module):
    """Vectors of tokens; the head's linear layers come before."""

    def __init__(self, skipped: int, *, normalize: bool) -> None:
        """Make a module without weights; the arguments are fields of `MultiVector`."""
        super().__init__()
        self.skipped = skipped
        self.normalize = normalize

    def forward(self, given: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [B, S - skipped, M] from [B, S, M]; where a token is skipped, padding becomes zero."""
        if self.skipped:
            mask = attention_mask[:, self.skipped :].unsqueeze(-1)
            given = given[:, self.skipped :] * mask.to(given.dtype)
        return nn.functional.normalize(given, dim=-1) if self.normalize else given


class Layered(nn.Module):
    """Linear layers, one after the other, and what follows them."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor | None]], last: nn.Module) -> None:
        """Keep the layers' weights [out, in] and biases [out], if there are any."""
        super().__init__()
        self.layers = nn.ModuleList(_linear(weight, bias) for weight, bias in layers)
        self.last = last

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the head's answers from states [B, S, D] and the mask [B, S]."""
        for layer in self.layers:
            states = layer(states)
        answers: Tensor = self.last(states, attention_mask)
        return answers


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer

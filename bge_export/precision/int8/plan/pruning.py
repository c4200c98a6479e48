"""Prunes the neurons of the last layer that the embedding does not need.

Only the pooled tokens of the last layer reach the embedding, and hundreds of bge-small's 1536 neurons there move it by
less than rounding does. They are removed, and the remaining neurons compensate for the loss by a least-squares fit that
is weighted by importance (Optimal Brain Surgeon, Hassibi and Stork 1993, for a group).
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bge_export.calibration.hessian import DAMPING, hessian, token_weights
from bge_export.calibration.observing import Importance, Observation, Tokens
from bge_export.encoder.encoder import Layer, Linear
from bge_export.encoder.forward import as_tensor
from bge_export.precision.int8.plan.input_scaling import objective, text_errors

MOST_ERROR = 4e-6
"""1 - cosine that pruning a layer may cost, on texts that are not in the fit: mean and root mean square over the texts,
averaged. Rounding costs 200e-6. On the texts of the fit the cost would be a tenth: neurons that few texts need are easy
to predict from others on those texts, and not on new ones."""

SHARES = (*(n / 48 for n in (1, 2, 4, 6)), *(n / 12 for n in range(2, 12)))
"""Shares of the neurons to prune, tried in this order until one costs too much."""


@dataclass(frozen=True)
class Pruning:
    """A pruned feed-forward.

    Attributes:
        kept: indices of the neurons that stay, [n] int64, ascending.
        down: linear layer that reads them.
    """

    kept: Tensor
    down: Linear

    @classmethod
    def none(cls, layer: Layer) -> "Pruning":
        """Return the pruning that keeps every neuron of a layer."""
        return cls(torch.arange(layer.down.weight.shape[0]), layer.down)

    def layer(self, layer: Layer) -> Layer:
        """Return the layer with only the kept neurons."""
        columns = self.kept.numpy()
        bias = None if layer.up.bias is None else layer.up.bias[columns]
        up = Linear(np.ascontiguousarray(layer.up.weight[:, columns]), bias)
        return replace(layer, up=up, down=self.down)

    def observation(self, seen: Observation) -> Observation:
        """Return the observation of the kept neurons."""
        up = seen.importance["up"]
        narrow = Importance(up.token, up.output[self.kept], up.sample[:, self.kept])

        return replace(
            seen,
            inputs=seen.inputs | {"down": seen.inputs["down"][:, self.kept]},
            inner=seen.inner[:, self.kept],
            importance=seen.importance | {"up": narrow},
            low=seen.low | {"down": seen.low["down"][self.kept]},
            high=seen.high | {"down": seen.high["down"][self.kept]},
        )


def plan_pruning(layer: Layer, seen: Observation, tokens: Tokens) -> Pruning:
    """Return the pruning with the fewest neurons that costs the embedding at most `MOST_ERROR`.

    Args:
        layer: the layer.
        seen: observation of the layer on the calibration texts.
        tokens: the observed tokens.
    """
    weight, importance = as_tensor(layer.down.weight), seen.importance["down"]
    impact = (weight.square() * importance.output).sum(1)
    found = Pruning.none(layer)
    halves = [tokens.text % 2 == half for half in (0, 1)]

    @cache
    def fit(which: int | None) -> _Fit:
        """Return the fit to one half of the texts, or to all; computed on demand, since few layers are pruned."""
        rows = slice(None) if which is None else halves[which]
        return _Fit.of(seen.inputs["down"][rows], token_weights(importance.token[rows]), impact)

    for count in (int(share * len(weight)) for share in SHARES):
        errors = torch.zeros(int(tokens.text.max()) + 1)
        for which, half in enumerate(halves):
            missed = fit(which).missed(seen.inputs["down"][tokens.sample], weight, count)
            left_out = ~half[tokens.sample]
            errors += text_errors(missed * left_out[:, None], importance, tokens)
            if not objective(errors) <= MOST_ERROR:  # the other half can only add to the error
                return found

        kept, answer, change = fit(None).answer(weight, count)
        found = Pruning(kept, Linear((weight[kept] + answer).numpy(), layer.down.bias).added(change.numpy()))
    return found


@dataclass(frozen=True)
class _Fit:
    """Statistics of the neurons on some tokens.

    Attributes:
        mean: mean of each neuron, [I].
        gram: Hessian of the deviations from the mean, [I, I].
        order: indices of the neurons, the least important first.
    """

    mean: Tensor
    gram: Tensor
    order: Tensor

    @classmethod
    def of(cls, inner: Tensor, weights: Tensor, impact: Tensor) -> "_Fit":
        """Compute them from tokens [T, I] with weights [T]; `impact` is the cost of each neuron's square, [I]."""
        mean = inner.mean(0)
        pull = torch.outer(weights @ inner, mean)
        gram = hessian(inner, weights) - pull - pull.T + weights.sum() * torch.outer(mean, mean)
        return cls(mean, gram, torch.argsort(impact * gram.diagonal()))

    def answer(self, weight: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return, without `count` neurons, the kept ones, the addition to their rows of `weight`, and to the bias."""
        gone, kept = self.order[:count], self.order[count:].sort().values
        own = self.gram[kept][:, kept]
        damped = own + DAMPING * own.diagonal().mean() * torch.eye(len(kept))
        answer = torch.linalg.solve(damped, self.gram[kept][:, gone] @ weight[gone])
        return kept, answer, self.mean[gone] @ weight[gone] - self.mean[kept] @ answer

    def missed(self, inner: Tensor, weight: Tensor, count: int) -> Tensor:
        """Return the change of the outputs for tokens [T, I] if `count` neurons are pruned."""
        kept, answer, change = self.answer(weight, count)
        gone = self.order[:count]
        return inner[:, kept] @ answer + change - inner[:, gone] @ weight[gone]

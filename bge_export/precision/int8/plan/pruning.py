"""Neurons that the embedding does without.

Only the pooled tokens of the last layer reach the embedding, and of bge-small's 1536 neurons there hundreds move it by
less than rounding does. They are left out, and the neurons that stay take over what can be told from them: the least
squares answer to the change, weighted by importance (Optimal Brain Surgeon, Hassibi and Stork 1993, for a group).
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
from bge_export.precision.int8.plan.sites import objective, text_errors

MOST_ERROR = 4e-6
"""1 - cosine that the neurons left out of a layer may cost, on texts that the answer was not computed on: mean and root
mean square over the texts, averaged. Rounding costs 200e-6. On the answer's own texts it would be a tenth of that:
neurons that few texts need are well told from others on these, and not on the next."""

SHARES = (*(n / 48 for n in (1, 2, 4, 6)), *(n / 12 for n in range(2, 12)))
"""Shares of the neurons that are tried, until one costs too much."""


@dataclass(frozen=True)
class Pruning:
    """What is left of a feed-forward.

    Attributes:
        kept: the neurons that stay, [n] int64 in their order.
        down: reads them.
    """

    kept: Tensor
    down: Linear

    @classmethod
    def none(cls, layer: Layer) -> "Pruning":
        """Return what leaves every neuron of a layer where it is."""
        return cls(torch.arange(layer.down.weight.shape[0]), layer.down)

    def layer(self, layer: Layer) -> Layer:
        """Return the layer with these neurons alone."""
        places = self.kept.numpy()
        bias = None if layer.up.bias is None else layer.up.bias[places]
        up = Linear(np.ascontiguousarray(layer.up.weight[:, places]), bias)
        return replace(layer, up=up, down=self.down)

    def observation(self, seen: Observation) -> Observation:
        """Return what was seen of these neurons."""
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
    """Return the fewest neurons that cost the embedding no more than `MOST_ERROR`.

    Args:
        layer: the layer.
        seen: the layer on the calibration texts.
        tokens: which tokens it was seen on.
    """
    weight, importance = as_tensor(layer.down.weight), seen.importance["down"]
    impact = (weight.square() * importance.output).sum(1)
    found = Pruning.none(layer)
    halves = [tokens.text % 2 == half for half in (0, 1)]

    @cache
    def fit(which: int | None) -> _Fit:
        """Look at one half of the texts, or at all; only where it is needed, since few layers are pruned."""
        rows = slice(None) if which is None else halves[which]
        return _Fit.of(seen.inputs["down"][rows], token_weights(importance.token[rows]), impact)

    for count in (int(share * len(weight)) for share in SHARES):
        errors = torch.zeros(int(tokens.text.max()) + 1)
        for which, half in enumerate(halves):
            missed = fit(which).missed(seen.inputs["down"][tokens.sample], weight, count)
            left_out = ~half[tokens.sample]
            errors += text_errors(missed * left_out[:, None], importance, tokens)
            if not objective(errors) <= MOST_ERROR:  # the other half can only add to it
                return found
        kept, answer, change = fit(None).answer(weight, count)
        found = Pruning(kept, Linear((weight[kept] + answer).numpy(), layer.down.bias).added(change.numpy()))
    return found


@dataclass(frozen=True)
class _Fit:
    """What some tokens say about the neurons.

    Attributes:
        mean: of each, [I].
        gram: Hessian of what differs from it, [I, I].
        order: the least important first.
    """

    mean: Tensor
    gram: Tensor
    order: Tensor

    @classmethod
    def of(cls, inner: Tensor, weights: Tensor, impact: Tensor) -> "_Fit":
        """Look at tokens [T, I] with weights [T]; `impact` is what each neuron's square costs, [I]."""
        mean = inner.mean(0)
        pull = torch.outer(weights @ inner, mean)
        gram = hessian(inner, weights) - pull - pull.T + weights.sum() * torch.outer(mean, mean)
        return cls(mean, gram, torch.argsort(impact * gram.diagonal()))

    def answer(self, weight: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return without `count` neurons which stay, what their rows of `weight` gain, and what the bias gains."""
        gone, kept = self.order[:count], self.order[count:].sort().values
        own = self.gram[kept][:, kept]
        damped = own + DAMPING * own.diagonal().mean() * torch.eye(len(kept))
        answer = torch.linalg.solve(damped, self.gram[kept][:, gone] @ weight[gone])
        return kept, answer, self.mean[gone] @ weight[gone] - self.mean[kept] @ answer

    def missed(self, inner: Tensor, weight: Tensor, count: int) -> Tensor:
        """Return how other outputs are for tokens [T, I] without `count` neurons."""
        kept, answer, change = self.answer(weight, count)
        gone = self.order[:count]
        return inner[:, kept] @ answer + change - inner[:, gone] @ weight[gone]

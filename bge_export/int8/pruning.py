"""Neurons that the embedding does without.

Only the pooled tokens of the last layer reach the embedding, and of bge-small's 1536 neurons there hundreds move it by
less than rounding does. They are left out, and the neurons that stay take over what can be told from them: the least
squares answer to the change, weighted by importance (Optimal Brain Surgeon, Hassibi and Stork 1993, for a group).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bge_export.int8.calibration import Importance, Observation, Tokens
from bge_export.int8.encoder import Layer, Linear
from bge_export.int8.forward import as_tensor
from bge_export.int8.rounding import DAMPING, hessian, token_weights
from bge_export.int8.sites import text_errors

MOST_ERROR = 2e-6
"""1 - cosine that the neurons left out of a layer may cost, predicted, mean over the texts; rounding costs 200e-6."""

SHARES = (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12, 1 / 24, 1 / 48)
"""Shares of the neurons that are tried."""


@dataclass(frozen=True)
class Pruning:
    """What is left of a feed-forward.

    Attributes:
        kept: the neurons that stay, [n] int64 in their order.
        down: reads them.
    """

    kept: Tensor
    down: Linear

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
    everything = Pruning(torch.arange(len(weight)), layer.down)
    mean = seen.inputs["down"].mean(0)
    weights = token_weights(importance.token)
    spread = (weights[:, None] * (seen.inputs["down"] - mean).square()).sum(0)
    alone = 0.5 * (weight.square() * importance.output).sum(1) * spread * len(weights) / int(tokens.text.max() + 1)
    order = torch.argsort(alone)
    counts = [count for share in SHARES if alone[order[: (count := int(share * len(weight)))]].sum() <= MOST_ERROR]
    if not counts:
        return everything
    centred = seen.inputs["down"] - mean
    gram = hessian(centred, weights)
    for count in counts:
        gone, kept = order[:count], order[count:].sort().values
        own = gram[kept][:, kept]
        damped = own + DAMPING * own.diagonal().mean() * torch.eye(len(kept))
        answer = torch.linalg.solve(damped, gram[kept][:, gone] @ weight[gone])
        sample = centred[tokens.sample]
        errors = text_errors(sample[:, kept] @ answer - sample[:, gone] @ weight[gone], importance, tokens)
        if errors.mean() <= MOST_ERROR:
            change = mean[gone] @ weight[gone] - mean[kept] @ answer
            return Pruning(kept, Linear((weight[kept] + answer).numpy(), layer.down.bias).added(change.numpy()))
    return everything

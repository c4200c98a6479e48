"""The Hessian of a layer's inputs, which says how much an error in a weight costs."""

import torch
from torch import Tensor

DAMPING = 0.05
"""Added to the Hessian's diagonal, times its mean. GPTQ's own 0.01 fits calibration texts better and others worse."""

MOST_IMPORTANT, LEAST_IMPORTANT = 50.0, 0.3
"""Bounds of a token's weight relative to the mean, so that a few tokens do not decide alone."""

CHUNK = 2048
"""Tokens whose products are added to a Hessian at once."""


def token_weights(importance: Tensor) -> Tensor:
    """Return each token's weight in the Hessian, [T], of mean about 1."""
    weights = (importance / importance.mean().clamp(min=1e-30)).clamp(max=MOST_IMPORTANT) + LEAST_IMPORTANT
    return weights / weights.sum()


def hessian(y: Tensor, weights: Tensor) -> Tensor:
    """Return sum of w y y^T, [K, K] float32, for the inputs y [T, K] of a site; some tokens at once, to save memory."""
    total = torch.zeros(y.shape[1], y.shape[1])
    for start in range(0, len(y), CHUNK):
        some = slice(start, start + CHUNK)
        total.addmm_((y[some] * weights[some, None]).T, y[some])
    return total

"""Computes the Hessian of a layer's inputs, which weighs the errors of its quantized weights."""

import torch
from torch import Tensor

DAMPING = 0.05
"""Share of the diagonal's mean added to the diagonal. GPTQ's 0.01 fits calibration texts better, other texts worse."""

MOST_IMPORTANT, LEAST_IMPORTANT = 50.0, 0.3
"""Upper bound of a token's relative importance and offset added to it, so that a few tokens do not dominate."""

CHUNK = 2048
"""Tokens added to a Hessian in one matrix product."""


def token_weights(importance: Tensor) -> Tensor:
    """Return each token's weight in the Hessian, [T]; the weights sum to 1."""
    weights = (importance / importance.mean().clamp(min=1e-30)).clamp(max=MOST_IMPORTANT) + LEAST_IMPORTANT
    return weights / weights.sum()


def hessian(y: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of w y y^T, [K, K] float32, over inputs y [T, K]; computed in chunks of tokens to save memory."""
    total = torch.zeros(y.shape[1], y.shape[1])
    for start in range(0, len(y), CHUNK):
        some = slice(start, start + CHUNK)
        total.addmm_((y[some] * weights[some, None]).T, y[some])
    return total

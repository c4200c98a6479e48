"""Chooses the shift and scale of a linear layer's input before rounding, by the predicted error of the embedding.

Channels of one tensor share 256 levels, so a few wide channels spoil the others. Dividing channel j by s_j and
multiplying row j of the weight by it changes nothing in floating point and evens the ranges (SmoothQuant, Xiao et al.
2023, without its weight term); subtracting the middle of each range z_j first makes them narrower (Outlier
Suppression+, Wei et al. 2023).

The predicted error of a text is 1/2 sum over its tokens and outputs of importance * (W e)^2, where e is the rounding
error. It agrees with the measured 1 - cosine within 10 to 25 %.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.calibration.observing import Importance, Tokens
from bge_export.precision.int8.plan.grid import LEVELS, Grid, grid_between

EXPONENTS = (0.5, 0.7, 0.85, 1.0)
OUTPUT_EXPONENTS = (0.0, 0.25, 0.5, 0.7, 0.85)
LIMITS = (1.5, 2.5)
"""Further candidates: channels wider than this many medians are scaled down to that width, others are unchanged."""

MOST_FOR_ONE = 20.0
"""A sampled token stands for at most this many other tokens of its text."""

WEIGHT_SHARE = 0.5
"""Share of the weights' error under plain rounding that remains after GPTQ (`rounding.py`)."""


@dataclass(frozen=True)
class InputPlan:
    """Scaling of a linear layer's input: the layer reads (x - shift) / scale, rounded to a grid.

    Attributes:
        shift, scale: [K] float32; a negative scale sign-flips a channel.
        low, high: range of x - shift over the texts and the texts for ranges, [K].
        margin: factor by which the grid exceeds the observed range, because new texts reach farther.
        error: predicted error of the embedding: mean and root mean square over the texts, averaged.
        activation_error: mean over the texts of the part that comes from rounding the activations.
        levels: qmax of the grid.
    """

    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    margin: float
    error: float
    activation_error: float
    levels: int = LEVELS

    @property
    def grid(self) -> Grid:
        """Return the grid of the scaled input."""
        return _grid(self.low, self.high, self.scale, self.margin, self.levels)


@dataclass(frozen=True)
class Input:
    """Observed data of a linear layer's input, from which its scaling is chosen.

    Attributes:
        x: the input on all tokens, [T, K].
        low, high: range of each channel over the texts and the texts for ranges, [K].
        shift: subtracted first, [K].
        weight: weights of all linear layers that read the input, side by side, [K, N].
        importance: importance of their outputs.
        tokens: the tokens of `x`.
    """

    x: Tensor
    low: Tensor
    high: Tensor
    shift: Tensor
    weight: Tensor
    importance: Importance
    tokens: Tokens

    @property
    def sample(self) -> Tensor:
        """Return the shifted input on the sampled tokens, [n, K]."""
        return self.x[self.tokens.sample] - self.shift

    @property
    def reach(self) -> Tensor:
        """Return the largest distance of each channel from the shift, [K]."""
        return torch.maximum((self.low - self.shift).abs(), (self.high - self.shift).abs()).clamp(min=1e-6)


def plan_input(seen: Input, *, exponents: Sequence[float], limits: Sequence[float] = (), margin: float) -> InputPlan:
    """Return the scaling with the smallest predicted error.

    Args:
        seen: the input.
        exponents: candidates: each channel is divided by its reach, relative to the median, to this power.
        limits: further candidates; see `LIMITS`.
        margin: see `InputPlan`.
    """
    best: InputPlan | None = None
    sample = seen.sample
    low, high = seen.low - seen.shift, seen.high - seen.shift

    for scale in _candidates(seen.reach / seen.reach.median(), exponents, limits):
        grid = _grid(low, high, scale, margin)
        y = sample / scale
        scaled = seen.weight * scale[:, None]

        activation = text_errors((grid.rounded(y) - y) @ scaled, seen.importance, seen.tokens)
        weights = text_errors(y @ (_rounded_weight(scaled) - scaled), seen.importance, seen.tokens)

        error = objective(activation + WEIGHT_SHARE * weights)
        if best is None or error < best.error:
            best = InputPlan(seen.shift, scale, low, high, margin, error, activation.mean().item())

    assert best is not None  # noqa: S101 - there is at least one candidate
    return best


def _grid(low: Tensor, high: Tensor, scale: Tensor, margin: float, levels: int = LEVELS) -> Grid:
    bounds = torch.stack([low / scale, high / scale])
    return grid_between(bounds.min().item() * margin, bounds.max().item() * margin, levels)


def text_errors(errors: Tensor, importance: Importance, tokens: Tokens) -> Tensor:
    """Return the predicted 1 - cosine of each text, [texts], for output errors [n, N] of the sampled tokens.

    Every first token is in the sample. Other sampled tokens also stand for the unsampled tokens of their text, in
    proportion to importance.
    """
    each = 0.5 * (importance.sample * errors.square()).sum(-1)
    texts, count = tokens.text[tokens.sample], int(tokens.text.max()) + 1

    others = torch.where(tokens.first, 0.0, importance.token)
    drawn = others[tokens.sample]
    share = _per_text(others, tokens.text, count) / _per_text(drawn, texts, count).clamp(min=1e-30)

    factor = torch.where(tokens.first[tokens.sample], 1.0, share.clamp(max=MOST_FOR_ONE)[texts])
    return _per_text(each * factor, texts, count)


def _per_text(values: Tensor, texts: Tensor, count: int) -> Tensor:
    return torch.zeros(count).index_add_(0, texts, values)


def objective(errors: Tensor) -> float:
    """Return the average of mean and root mean square; the second makes bad texts count."""
    return 0.5 * (errors.mean() + errors.square().mean().sqrt()).item()


def _candidates(width: Tensor, exponents: Sequence[float], limits: Sequence[float]) -> Iterator[Tensor]:
    for exponent in exponents:
        yield width**exponent
    for limit in limits:
        yield (width / limit).clamp(min=1.0)


def _rounded_weight(weight: Tensor) -> Tensor:
    scale = weight.abs().amax(0).clamp(min=1e-12) / 127
    return torch.round(weight / scale) * scale

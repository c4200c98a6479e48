"""How the input of a linear layer is shifted and scaled before it is rounded, chosen by the embedding's error.

Channels of one tensor share 256 levels, so a few wide channels spoil the others. Dividing channel j by s_j and
multiplying row j of the weight by it changes nothing in floating point and evens the ranges (SmoothQuant, Xiao et al.
2023, without its weight term); subtracting the middle of each range z_j first makes them narrower (Outlier
Suppression+, Wei et al. 2023).

The predicted error of a text is 1/2 sum over its tokens and outputs of importance * (W e)^2, e the rounding error. It
agrees with the measured 1 - cosine within 10 to 25 %.
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
"""Other candidates: channels wider than so many medians are scaled down to that width, the rest left alone."""

MOST_FOR_ONE = 20.0
"""A sampled token stands for so many others of its text at most."""

WEIGHT_SHARE = 0.5
"""Share of the plain rounding error of weights that is left after the weights are rounded well (`rounding.py`)."""


@dataclass(frozen=True)
class InputPlan:
    """A linear layer is given (x - shift) / scale, on a grid.

    Attributes:
        shift, scale: [K] float32; a negative scale turns a channel around.
        low, high: range of x - shift over the texts and the texts for ranges, [K].
        margin: the grid is so much wider than the range seen, because texts to come reach further.
        error: predicted error of the embedding, mean and root mean square over the texts, averaged.
        activation_error: the part of it that comes from rounding the activations.
        levels: the greatest code of the grid.
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
    """What is known of a linear layer's input when its scaling is chosen.

    Attributes:
        x: on all tokens, [T, K].
        low, high: range of each channel over the texts and the texts for ranges, [K].
        shift: taken off first, [K].
        weight: [K, N], of all linear layers that read the input, side by side.
        importance: of their outputs.
        tokens: which tokens `x` holds.
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
        """Return how far each channel goes from the shift, [K]."""
        return torch.maximum((self.low - self.shift).abs(), (self.high - self.shift).abs()).clamp(min=1e-6)


def plan_input(seen: Input, *, exponents: Sequence[float], limits: Sequence[float] = (), margin: float) -> InputPlan:
    """Return the scaling of least predicted error.

    Args:
        seen: the input.
        exponents: candidates: channels are divided by their reach, over the median's, to these powers.
        limits: further candidates, see `LIMITS`.
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
    ends = torch.stack([low / scale, high / scale])
    return grid_between(ends.min().item() * margin, ends.max().item() * margin, levels)


def text_errors(errors: Tensor, importance: Importance, tokens: Tokens) -> Tensor:
    """Return the predicted 1 - cosine of each text [texts] for output errors [n, N] on the sampled tokens.

    Every first token is in the sample; the others stand for those of their text that are not, by importance.
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
    """Mean and root mean square, averaged: the second makes bad texts count."""
    return 0.5 * (errors.mean() + errors.square().mean().sqrt()).item()


def _candidates(width: Tensor, exponents: Sequence[float], limits: Sequence[float]) -> Iterator[Tensor]:
    for exponent in exponents:
        yield width**exponent
    for limit in limits:
        yield (width / limit).clamp(min=1.0)


def _rounded_weight(weight: Tensor) -> Tensor:
    scale = weight.abs().amax(0).clamp(min=1e-12) / 127
    return torch.round(weight / scale) * scale

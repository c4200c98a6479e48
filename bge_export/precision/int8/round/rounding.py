"""Rounds weights to 8 bits: GPTQ on calibration texts, one scale per output channel, under the saturation constraint.

GPTQ (Frantar et al. 2023) rounds a weight matrix one input channel after the other; the remaining channels absorb the
error as far as the inputs are correlated. The Hessian weights each token by its importance.

Two weights that would violate the saturation constraint (`saturation`) are both limited, each by half of the excess,
and the remaining channels absorb that error too; the scale of each output channel takes the constraint into account.
Both weights of a pair are therefore rounded in succession.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bge_export.calibration.hessian import DAMPING
from bge_export.encoder.encoder import Floats
from bge_export.saturation import PAIR_SUM

GREATEST = 127

FACTORS = (0.85, 0.92, 1.0, 1.1, 1.25)
"""Candidates for a channel's scale, as multiples of its largest weight / 127. Below 1, large weights are clipped; above
1, fewer pairs are limited."""

COARSE = (128 / 64,)
"""The only candidate for the high part of weights with a residual: no quantized value exceeds 64, so no pair is limited
and the residual holds nothing but a rounding error."""

BLOCK = 128


@dataclass(frozen=True)
class Rounded:
    """A rounded weight: weight = integers * scale.

    Attributes:
        integers: [K, N] int8.
        scale: [N] float32.
    """

    integers: NDArray[np.int8]
    scale: Floats

    @property
    def weight(self) -> Floats:
        """Return the dequantized weight, [K, N]."""
        return self.integers.astype(np.float32) * self.scale

    def times(self, factor: Floats) -> "Rounded":
        """Return the weight with its outputs multiplied by `factor` [N]."""
        return Rounded(self.integers, self.scale * factor)


def round_weight(weight: Tensor, gram: Tensor, factors: Sequence[float] = FACTORS, *, paired: bool = True) -> Rounded:
    """Return the weight rounded to integers.

    Args:
        weight: the weight, [K, N].
        gram: Hessian of its inputs, [K, K].
        factors: candidates for a channel's scale; see `FACTORS`.
        paired: whether the integers keep the saturation constraint; may be False only if the inputs' qmax is 127.
    """
    diagonal = gram.diagonal().clamp(min=0)
    scale = _channel_scales(weight, diagonal, factors, paired=paired)

    # The upper Cholesky factor of the inverse Hessian says how far each later row absorbs an error.
    damped = gram.double() + DAMPING * diagonal.mean().double().clamp(min=1e-12) * torch.eye(len(gram)).double()
    order = _pair_order(diagonal)
    ordered = damped[order][:, order]
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(ordered)), upper=True).float()

    integers = _propagate(weight[order].clone(), scale, inverse, order, paired=paired)
    return Rounded(integers.to(torch.int8).numpy(), scale.numpy())


def _propagate(weight: Tensor, scale: Tensor, inverse: Tensor, order: Tensor, *, paired: bool) -> Tensor:
    """Round row by row in `order`; return the integers in the original order, [K, N] float32."""
    rows = len(weight)
    integers = torch.zeros_like(weight)  # in the original order
    rows_in_order: list[int] = order.tolist()

    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        errors = torch.zeros(end - start, weight.shape[1])
        for row in range(start, end):
            original = rows_in_order[row]
            code = torch.round(weight[row] / scale).clamp(-GREATEST, GREATEST)

            # The first of a pair gives way by half of the excess, the second by the rest.
            if not paired:
                pass
            elif row % 2:
                code = limited(code, integers[original ^ 1])
            elif row + 1 < rows:
                code = code - code.sign() * (excess(code, torch.round(weight[row + 1] / scale)) / 2).floor()

            integers[original] = code
            error = (weight[row] - code * scale) / inverse[row, row]
            errors[row - start] = error
            weight[row + 1 : end].addr_(inverse[row, row + 1 : end], error, alpha=-1)

        weight[end:].addmm_(inverse[start:end, end:].T, errors, alpha=-1)

    return integers


def _pair_order(diagonal: Tensor) -> Tensor:
    """Return the rows pair by pair, by descending Hessian diagonal; a row without a partner comes last."""
    paired = len(diagonal) // 2 * 2
    pairs = torch.arange(paired).reshape(-1, 2)
    swapped = diagonal[pairs[:, 1]] > diagonal[pairs[:, 0]]
    pairs[swapped] = pairs[swapped].flip(1)

    order = torch.argsort(diagonal[pairs[:, 0]], descending=True, stable=True)
    return torch.cat([pairs[order].reshape(-1), torch.arange(paired, len(diagonal))])


def excess(codes: Tensor, others: Tensor) -> Tensor:
    """Return the excess of quantized values and their partners over the saturation constraint."""
    others = others.clamp(-GREATEST, GREATEST)
    return (codes.abs() + others.abs() - PAIR_SUM).clamp(min=0) * (codes * others > 0)


def limited(codes: Tensor, partner: Tensor) -> Tensor:
    """Return quantized values limited so that they keep the saturation constraint with their partners."""
    room = PAIR_SUM - partner.abs()
    upper = torch.where(partner > 0, room, GREATEST)
    lower = torch.where(partner < 0, -room, -GREATEST)
    return torch.minimum(torch.maximum(codes, lower), upper)


def _channel_scales(weight: Tensor, diagonal: Tensor, factors: Sequence[float], *, paired: bool) -> Tensor:
    """Return, for each output channel, the scale whose plain rounding has the smallest weighted error."""
    base = weight.abs().amax(0).clamp(min=1e-12) / GREATEST
    best, chosen = torch.full_like(base, torch.inf), base
    for factor in factors:
        scale = base * factor
        codes = torch.round(weight / scale).clamp(-GREATEST, GREATEST)
        codes = keep_pairs(codes) if paired else codes

        error = ((codes * scale - weight).square() * diagonal[:, None]).sum(0)
        chosen = torch.where(error < best, scale, chosen)
        best = torch.minimum(error, best)

    return chosen.float()


def keep_pairs(codes: Tensor) -> Tensor:
    """Return quantized values [K, N] in which both of each saturating pair are limited by half of the excess."""
    even = codes[: len(codes) // 2 * 2]
    first, second = even[0::2], even[1::2]
    over = excess(first, second)
    half = (over / 2).floor()

    fixed = codes.clone()
    fixed[0 : len(even) : 2] = first - first.sign() * half
    fixed[1 : len(even) : 2] = second - second.sign() * (over - half)
    return fixed

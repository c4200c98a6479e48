"""Quantizes weights to 4 bits in blocks with GPTQ: weights not yet rounded compensate each rounding error.

GPTQ (Frantar et al. 2022, https://arxiv.org/abs/2210.17323) with two choices: inputs with the largest second moments
are rounded first, while most other inputs can still compensate, and each block's scale is the candidate with the least
squared error, weighted by the moments. onnxruntime's GPTQ rounds in block order on a min-max grid, and runs the model
again for each product.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 15
"""qmax of 4 bits: quantized values are 0 to 15."""

SHRINKS = np.linspace(1.0, 0.6, 24)
"""Candidate fractions of a block's range: clipping the extremes makes the scale of all other values smaller."""

DAMPING = 0.01
"""Share of the mean second moment added to the diagonal, as in the paper, for directions that the texts lack."""

STRIDE = 128
"""Inputs rounded before their errors are propagated to all later inputs in one matrix product."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """A quantized weight [K, N]: (codes - zeros) * scales, in blocks of `size` along K.

    Attributes:
        codes: quantized values, [K, N] uint8, 0 to 15.
        scales: [K / size, N] float32.
        zeros: zero points, [K / size, N] uint8, 0 to 15.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8]

    @property
    def size(self) -> int:
        """Return the number of inputs that share a scale."""
        return len(self.codes) // len(self.scales)

    def values(self) -> NDArray[np.float32]:
        """Return the dequantized weight, [K, N] float32."""
        zeros = np.repeat(self.zeros.astype(np.float32), self.size, axis=0)
        weight: NDArray[np.float32] = (self.codes - zeros) * np.repeat(self.scales, self.size, axis=0)
        return weight


def round_weight(weight: NDArray[np.float32], moments: NDArray[np.float32], size: int) -> Blocks:
    """Quantize a weight to 4 bits so that its product with the inputs changes least.

    Args:
        weight: [K, N]; K is a multiple of `size`.
        moments: mean of x xᵀ over the inputs x, [K, K].
        size: number of inputs that share a scale.
    """
    given = weight.astype(np.float64)
    hessian = moments.astype(np.float64)

    mean = float(np.diag(hessian).mean()) or 1.0
    hessian[np.diag_indices_from(hessian)] += DAMPING * mean

    scales, zeros = _grid(given, np.diag(hessian), size)

    # Largest second moments first: each rounding error is compensated by the rows after it.
    order = np.argsort(-np.diag(hessian), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T

    codes = np.empty(weight.shape, np.uint8)
    codes[order] = _rounded(given[order], upper, scales[order // size], zeros[order // size])
    return Blocks(codes, scales.astype(np.float32), zeros.astype(np.uint8))


def _grid(weight: Floats, importance: Floats, size: int) -> tuple[Floats, Floats]:
    """Return scale and zero point of each block, [K / size, N] each, of least error among `SHRINKS`."""
    blocks = weight.reshape(-1, size, weight.shape[1])
    weights = importance.reshape(-1, size, 1)

    low, high = np.minimum(blocks.min(1), 0), np.maximum(blocks.max(1), 0)
    best, scales, zeros = np.full(low.shape, np.inf), np.ones_like(low), np.zeros_like(low)

    for shrink in SHRINKS:
        # Rounded to float32, as stored in the file.
        scale = np.where(high > low, (high - low) * shrink / LEVELS, 1).astype(np.float32).astype(np.float64)
        zero = np.clip(np.round(-low * shrink / scale), 0, LEVELS)

        codes = np.clip(np.round(blocks / scale[:, None]) + zero[:, None], 0, LEVELS)
        error = (weights * ((codes - zero[:, None]) * scale[:, None] - blocks) ** 2).sum(1)
        better = error < best
        best[better], scales[better], zeros[better] = error[better], scale[better], zero[better]

    return scales, zeros


def _rounded(weight: Floats, upper: Floats, scales: Floats, zeros: Floats) -> NDArray[np.uint8]:
    """Return the quantized values of a weight whose rows are in rounding order; `weight` is overwritten."""
    codes = np.empty(weight.shape, np.uint8)

    for start in range(0, len(weight), STRIDE):
        stop = min(start + STRIDE, len(weight))
        errors = np.empty((stop - start, weight.shape[1]))

        for row in range(start, stop):
            code = np.clip(np.round(weight[row] / scales[row]) + zeros[row], 0, LEVELS)
            error = (weight[row] - (code - zeros[row]) * scales[row]) / upper[row, row]
            weight[row + 1 : stop] -= np.outer(upper[row, row + 1 : stop], error)
            codes[row], errors[row - start] = code, error

        weight[stop:] -= upper[start:stop, stop:].T @ errors

    return codes

"""Keeps attention scores in the range of an exponential, so that attention needs no maximum and no separate mask.

    p_ij = w_j exp(s_ij) / sum_j w_j exp(s_ij),    w_j = exp(b_j), 0 for masked keys

A softmax first subtracts max_j s_ij, which costs two passes over all scores, and adds b_j, which costs a third. The
same p_ij results if q_i . m is subtracted, with one vector m per head, and that is a bias of the keys: q_i . (k_j - m).
The vector m is fitted by least squares to the peaks max_j s_ij of the calibration texts and of randomly drawn tokens,
which reach farther than any text. The peaks of most layers are then within 20 of 0, and float32 holds the exponentials
of -87 to 88. If peaks reach farther, scores are capped; if they reach too far for a cap, the maximum is subtracted.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bge_export.encoder.encoder import Floats

Bound = Literal["none", "cap", "maximum"]

REACH = 30.0
"""Largest absolute peak at which scores are exponentiated unchanged: a third of the range that float32 holds."""

CAP = 72.0
"""Upper limit of capped scores: its exponentials, summed over the longest text and times any value, are finite."""

CAPPED_REACH = 60.0
"""Largest absolute peak at which a cap is enough: it leaves room below the cap, and before a row underflows."""

RIDGE = 1.0
"""Added to the diagonal of the fit's Hessian, which is in the thousands, for channels that never move."""


@dataclass(frozen=True)
class PeakPlan:
    """How the scores of a layer are kept in range.

    Attributes:
        offset: subtracted from the keys, [H] float32.
        bound: additional measure that keeps the exponentials finite.
    """

    offset: Floats
    bound: Bound


def plan_peaks(query: Tensor, peaks: Tensor, constant: Tensor, *, by_key: bool) -> PeakPlan:
    """Return the plan of a layer.

    Args:
        query: queries on the scale of the scores, [T, H].
        peaks: largest score of each query, per head, [T, heads].
        constant: constant that the keys of the folded layer lack, [H].
        by_key: whether the bias of the scores depends on the key alone, as a mask does; it can then weight the values.
    """
    heads = peaks.shape[1]
    offsets, reach = [], 0.0
    for asked, peak in zip(query.reshape(len(query), heads, -1).unbind(1), peaks.unbind(1), strict=True):
        rows, farthest = asked.double(), peak.double()
        gram = rows.T @ rows + RIDGE * torch.eye(rows.shape[1], dtype=torch.float64)
        offsets.append(torch.linalg.solve(gram, rows.T @ farthest))
        reach = max(reach, float((farthest - rows @ offsets[-1]).abs().max()))

    bound: Bound = "maximum" if not by_key or reach > CAPPED_REACH else "cap" if reach > REACH else "none"
    return PeakPlan((torch.cat(offsets).float() - constant).numpy(), bound)

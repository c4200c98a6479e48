"""Scores within reach of an exponential, so that attention needs neither a maximum nor a mask of its own.

    p_ij = w_j exp(s_ij) / sum_j w_j exp(s_ij),    w_j = exp(b_j), 0 for what the mask hides

A softmax takes max_j s_ij off first, which costs two passes over all scores, and adds b_j, which costs a third. The
same p_ij comes out if q_i . m is taken off, with one vector m a head, and that is a bias of the keys: q_i . (k_j - m).
It is fitted by least squares to the peaks max_j s_ij of the calibration texts, and of drawn tokens, which reach farther
than any text's. That brings most layers' within 20 of 0, where float32 holds the exponentials of -87 to 88. Where they
reach farther, scores are kept below a cap, and where they reach too far for that the maximum is taken off.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bge_export.encoder.encoder import Floats

Bound = Literal["none", "cap", "maximum"]

REACH = 30.0
"""The farthest peak seen, either way, where scores are exponentiated as they are: a third of what float32 holds."""

CAP = 72.0
"""What scores are kept below: exponentials of it, summed over the longest text, times any value, are finite."""

CAPPED_REACH = 60.0
"""The farthest peak seen, either way, where a cap is enough: it leaves room below it, and before a row underflows."""

RIDGE = 1.0
"""Added to the Hessian of the fit, whose diagonal is in the thousands, for channels that never move."""


@dataclass(frozen=True)
class PeakPlan:
    """How the scores of a layer come within reach.

    Attributes:
        offset: taken off the keys, [H] float32.
        bound: what keeps the exponentials finite beside that.
    """

    offset: Floats
    bound: Bound


def plan_peaks(query: Tensor, peaks: Tensor, constant: Tensor, *, by_key: bool) -> PeakPlan:
    """Return the plan of a layer.

    Args:
        query: queries on the scale of the scores, [T, H].
        peaks: the greatest score of each, head by head, [T, heads].
        constant: what the keys of the folded layer lack, [H].
        by_key: whether what is added to scores depends on the key alone, as a mask does: it can then weight the values.
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

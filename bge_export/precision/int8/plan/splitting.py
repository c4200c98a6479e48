"""Splits outlier neurons into copies that each stay within the grid.

After GELU, a few neurons reach 15 to 27 on one or two tokens of a text, where the others stay below 3. On one grid with
the others, they would take most of its levels. Splitting a neuron u is exact for ReLU and nearly exact for GELU:

    g(u) = min(g(u), V) + sum_i min(g(u - t_i), V),   t_1 = V,   t_i+1 - t_i <= V

where min is the saturation of the grid and each term is a separate neuron: the same row of `up` with the bias lowered
by t_i, and the same row of `down`. Boundaries t_i are placed where calibration sees no values, because GELU differs
from ReLU (by at most 0.17) within about 2 of them. A segment shorter than V is stretched to V, to use more levels.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bge_export.calibration.observing import Importance
from bge_export.encoder.encoder import Floats, Layer, Linear
from bge_export.encoder.forward import as_tensor, gelu_gap
from bge_export.precision.int8.plan.grid import Grid, grid_between

GELU_LEAST = -0.17
MULTIPLE = 16
"""Inner widths are padded to a multiple of this, for the matrix kernels."""

WORTH = 2e-4
"""1 - cosine that a layer's inner width is worth: copies that make it 1 % wider must save 1 % of this."""

MOST_SHARE = 1 / 16
"""Maximum number of copies, as a share of the inner width; `MULTIPLE` copies are always allowed."""

TOP_MARGIN = 1.1
RANGES = 16
"""Number of ranges tried, from the full range down to `LEAST_RANGE`."""

STEPS = 24
"""Number of candidate boundaries per segment length."""

STEP = 0.125
GAP_REACH = 4.0
"""`STEP`: width of the bins that values are counted in. `GAP_REACH`: distance from 0 beyond which GELU equals ReLU to
1e-4."""

JITTER = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Calibration values are also counted at these offsets, because new values will differ."""

LEAST_RANGE = 3.0
"""Smallest range that is tried: below it, the gap of the copies would outweigh the levels gained."""


@dataclass(frozen=True)
class Copy:
    """An additional segment of a neuron: it starts at `start` and is stretched by `factor`."""

    neuron: int
    start: float
    factor: float


@dataclass(frozen=True)
class SplitPlan:
    """How the inner values of a feed-forward are fitted into a grid.

    Attributes:
        grid: grid of `down`'s input.
        copies: copies of the neurons that exceed the grid.
        activation_error: predicted error of the embedding from rounding and from the copies' boundaries.
    """

    grid: Grid
    copies: tuple[Copy, ...]
    activation_error: float


def plan_split(
    layer: Layer,
    inner: Tensor,
    high: Tensor,
    importance: Importance,
    *,
    worth: float = WORTH,
    margin: float = 1.0,
    texts: int,
) -> SplitPlan:
    """Return the range and the copies with the smallest sum of predicted error and cost of the copies.

    Args:
        layer: the layer.
        inner: values before the activation, [T, I].
        high: largest value of each neuron over all texts, [I].
        importance: importance of the outputs of `down`.
        worth: see `WORTH`.
        margin: factor by which the range of unsplit neurons exceeds the observed one.
        texts: number of texts that the tokens come from.
    """
    low = GELU_LEAST if layer.activation == "gelu" else 0.0
    weight = as_tensor(layer.down.weight)
    impact = (weight.square() * importance.output).sum(1)
    token = importance.token / importance.token.mean()
    top = high.amax().item() * margin

    best: SplitPlan | None = None
    least = np.inf
    width = len(high)
    costs: dict[int, Tensor] = {}
    for range_ in sorted({top, *np.geomspace(top, min(top, LEAST_RANGE), RANGES)}):
        grid = grid_between(low, range_)
        wide = (high * margin > grid.greatest).nonzero()[:, 0].tolist() if range_ < top else []
        counts = {neuron: _count(high[neuron].item() * TOP_MARGIN, grid.greatest) for neuron in wide}
        if sum(counts.values()) > max(width * MOST_SHARE, MULTIPLE):
            continue

        # Uniform rounding error over one step; each copy then adds the gap at its boundary.
        error = 0.5 * (impact.sum() * len(inner) * grid.scale**2 / 12).item() / texts
        copies: list[Copy] = []
        for neuron in wide:
            top_here = high[neuron].item() * TOP_MARGIN
            if neuron not in costs:
                costs[neuron] = _boundary_costs(inner[:, neuron], token, top_here)

            starts, gap = _boundaries(costs[neuron], top_here, grid.greatest, counts[neuron])
            error += 0.5 * impact[neuron].item() * gap / texts if layer.activation == "gelu" else 0.0

            ends = [*starts[1:], max(top_here, starts[-1] + grid.greatest / 4)]
            copies += [
                Copy(neuron, start, grid.greatest / min(end - start, grid.greatest))
                for start, end in zip(starts, ends, strict=True)
            ]

        total = error + worth * (_padding(width, len(copies)) + len(copies)) / width
        if total < least:
            best, least = SplitPlan(grid, tuple(copies), error), total

    assert best is not None  # noqa: S101 - the whole range needs no copies
    return best


def _padding(width: int, copies: int) -> int:
    """Return the number of zero neurons that pad an inner width after its copies; 0 without copies."""
    return -(width + copies) % MULTIPLE if copies else 0


def _count(top: float, range_: float) -> int:
    return max(1, int(np.ceil(top / range_ - 1e-9)) - 1)


def _boundary_costs(values: Tensor, token: Tensor, top: float) -> Tensor:
    """Return the weighted squared gap that a boundary at each multiple of `STEP` up to `top` costs on calibration.

    Values are counted in bins of that width, so that one convolution gives the cost of every boundary.
    """
    bins = round(top / STEP) + 1
    counts = torch.zeros(bins)
    for jitter in JITTER:
        bin_of = torch.round((values + jitter) / STEP).long()
        there = (values > 0) & (bin_of >= 0) & (bin_of < bins)
        counts.index_add_(0, bin_of[there], token[there] / len(JITTER))

    near = torch.arange(-round(GAP_REACH / STEP), round(GAP_REACH / STEP) + 1) * STEP
    return torch.nn.functional.conv1d(counts[None, None], gelu_gap(near).square()[None, None], padding="same")[0, 0]


def _boundaries(costs: Tensor, top: float, range_: float, count: int) -> tuple[list[float], float]:
    """Return `count` starts of segments, the first at `range_`, and the squared gap of the values near them.

    Dynamic programming over candidates `range_ / STEPS` apart; the last segment reaches `top`.
    """
    step = range_ / STEPS
    starts = [range_ + step * k for k in range(round((top - range_) / step) + 1)]
    cost = [costs[min(round(start / STEP), len(costs) - 1)].item() for start in starts]

    # Cheapest path to each candidate, with one more boundary in each round.
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (cost[0], (0,))}
    for _ in range(count - 1):
        after: dict[int, tuple[float, tuple[int, ...]]] = {}
        for index, (paid, path) in best.items():
            for following in range(index + 1, min(index + STEPS, len(starts) - 1) + 1):
                candidate = paid + cost[following]
                if following not in after or candidate < after[following][0]:
                    after[following] = (candidate, (*path, following))
        best = after

    finished = [value for index, value in best.items() if top - starts[index] <= range_ + step / 2]
    paid, path = min(finished or best.values(), key=lambda value: value[0])
    return [starts[index] for index in path], paid


def split(layer: Layer, plan: SplitPlan) -> Layer:
    """Return the layer with a plan's copies appended to its neurons, and its activation clipped to the grid.

    The inner width is padded to a multiple of `MULTIPLE` with neurons that are always 0.
    """
    up, down = layer.up, layer.down
    if not plan.copies:
        return replace(layer, clip=plan.grid.greatest)

    bias = np.zeros(up.weight.shape[1], np.float32) if up.bias is None else up.bias
    neurons = np.array([copy.neuron for copy in plan.copies])
    factors = np.array([copy.factor for copy in plan.copies], np.float32)
    starts = np.array([copy.start for copy in plan.copies], np.float32)

    empty = _padding(up.weight.shape[1], len(neurons))
    hidden = up.weight.shape[0]
    zeros = np.zeros((hidden, empty), np.float32)

    columns: Floats = np.concatenate([up.weight, up.weight[:, neurons] * factors, zeros], axis=1)
    biases = np.concatenate([bias, (bias[neurons] - starts) * factors, np.zeros(empty, np.float32)])
    rows = np.concatenate([down.weight, down.weight[neurons] / factors[:, None], zeros.T])

    return replace(layer, up=Linear(columns, biases), down=Linear(rows, down.bias), clip=plan.grid.greatest)

"""Lists the variants of an encoder from fast to accurate: adds residuals in the order of error saved per time.

The embedding is the state of one token. If that is the first token, errors of the other tokens in the last layers
hardly matter, so a residual for the first token's rows alone pays: B rows of B * S, which cost next to nothing.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

from bge_export.encoder.encoder import POINTS
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.round.variant import Point, Variant
from bge_export.precision.int8.write.arrange import Arrangement

SHARES = (0.0, 1 / 48, 1 / 24, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 5 / 12, 1 / 2, 7 / 12, 2 / 3, 5 / 6, 1.0)
"""One variant each: its share of all possible residuals, of inputs and of weights."""

FIRST_POINTS: Mapping[Arrangement, float] = {"sequence-major": 1 / 24, "batch-major": 0.0}
"""Share of the quantization points whose first token has a residual in every variant. Each costs ONNX Runtime 0.2 to
0.4 % of the time, and OpenVINO, which cannot add to some rows of a tensor in place, 0.8 %."""

FIRST_IMPORTANCE = 0.5
"""A point is one of them only if the first token has at least this share of the importance."""

FIRST_WEIGHTS = 0.015
"""Share of all weights that get a residual for the first token alone; they enlarge the file by as much."""


Part = Literal["input", "weights"]

PER_INPUT, PER_OUTPUT = 140, 40
"""Cost of a residual besides its multiplications, per channel of its input (clipping, rounding, difference) and of its
output (a sum), in multiplications of one core with AVX512-VNNI."""


def fastest_variant(builder: Builder, arrangement: Arrangement, *, cls_only: bool) -> Variant:
    """Return the fastest variant: no residuals, except for the first token where they pay most.

    If the last layer computes only the first token, a residual covers all of its rows and is almost free; residuals of
    earlier layers are then omitted.
    """
    plans = builder.plans
    weights = {point: math.prod(builder.shape_of(*point)) for point in _points(builder)}

    order = sorted(_points(builder), key=lambda point: -plans[point[0]].first_error(point[1]) / weights[point])
    order = [point for point in order if plans[point[0]].first[point[1]] >= FIRST_IMPORTANCE]
    first = order[: math.ceil(FIRST_POINTS[arrangement] * len(_points(builder)))]
    if cls_only:
        first = [point for point in first if point[0] == len(plans) - 1]

    def gain(point: Point) -> float:
        layer_index, name = point
        return builder.weight_error(layer_index, name, precise=False) * plans[layer_index].first[name] / weights[point]

    # Spend the budget of extra weights on the points that gain most per weight.
    left = FIRST_WEIGHTS * builder.weights
    finer = []
    for point in sorted(first, key=gain, reverse=True):
        if weights[point] <= left:
            finer.append(point)
            left -= weights[point]

    return Variant(first=frozenset(first), first_finer=frozenset(finer))


def frontier_length(builder: Builder) -> int:
    """Return the number of variants to try."""
    return len(_counts(builder))


def _counts(builder: Builder) -> list[int]:
    """Return the number of residuals of each variant."""
    return list(dict.fromkeys(round(share * 2 * len(_points(builder))) for share in SHARES))


def frontier(builder: Builder, arrangement: Arrangement, *, cls_only: bool) -> Iterator[Variant]:
    """Yield the variants of the frontier, the fastest first; data that only slower ones need is computed on demand."""
    fast = fastest_variant(builder, arrangement, cls_only=cls_only)
    yield fast

    steps = residuals(builder)
    for count in _counts(builder)[1:]:
        precise = frozenset(point for what, point in steps[:count] if what == "input")
        finer = frozenset(point for what, point in steps[:count] if what == "weights")
        yield Variant(precise, finer, first=fast.first - precise, first_finer=fast.first_finer - precise)


def cost(builder: Builder, variant: Variant) -> float:
    """Return the cost of a variant, in multiplications of one core, without attention and normalisations."""
    total = 0.0
    for point in _points(builder):
        inputs, outputs = builder.shape_of(*point)
        product = inputs * outputs

        total += product
        if point in variant.precise:
            total += product + PER_OUTPUT * outputs + PER_INPUT * inputs
        if point in variant.finer:
            total += product + PER_OUTPUT * outputs

    return total


def predicted_error(builder: Builder, variant: Variant) -> float:
    """Return the predicted 1 - cosine of a variant, mean over the calibration texts."""
    total = 0.0
    for point in _points(builder):
        layer_index, name = point
        precise = point in variant.precise

        if not precise:
            total += builder.plans[layer_index].activation_error(name)
        if point not in variant.finer:
            total += builder.weight_error(layer_index, name, precise=precise)

    return total


def residuals(builder: Builder) -> list[tuple[Part, Point]]:
    """Return all residuals, by descending predicted error saved per time.

    The residual of an input saves the input's rounding error and, since the saturation constraint no longer binds the
    weights, part of theirs. The residual of weights saves the rest of theirs, and needs an input with a residual.
    """
    gains: dict[tuple[Part, Point], float] = {}
    for point in _points(builder):
        layer_index, name = point
        left = builder.weight_error(layer_index, name, precise=True)
        spared = (
            builder.plans[layer_index].activation_error(name)
            + builder.weight_error(layer_index, name, precise=False)
            - left
        )

        inputs, outputs = builder.shape_of(layer_index, name)
        cost = inputs * outputs + PER_OUTPUT * outputs
        gains["input", point] = spared / (cost + PER_INPUT * inputs)

        # Weights never come before their input. A wide input spoils the gain: the product of both residuals is omitted.
        gain = left - builder.left_out_error(layer_index, name)
        if gain > 0:
            gains["weights", point] = min(gain / cost, gains["input", point])

    return sorted(gains, key=lambda step: (-gains[step], step[0] == "weights"))


def _points(builder: Builder) -> list[Point]:
    return [(layer_index, name) for layer_index in range(len(builder.plans)) for name in POINTS]

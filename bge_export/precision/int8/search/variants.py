"""The forms of one encoder from fast to exact: one second part after the other, where it pays most for its time.

The embedding is the state of one token. Where it is the first, errors of the other tokens in the last layers hardly
matter, so that the first token's rows alone are worth a second part: B rows of B * S, which cost next to nothing.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

from bge_export.encoder.encoder import SITES
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.round.variant import Form, Place
from bge_export.precision.int8.write.arrange import Arrangement

SHARES = (0.0, 1 / 48, 1 / 24, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 5 / 12, 1 / 2, 7 / 12, 2 / 3, 5 / 6, 1.0)
"""One form each: the share of all second parts, of inputs and of weights, that it has."""

FIRST_SITES: Mapping[Arrangement, float] = {"sequence-major": 1 / 24, "batch-major": 0.0}
"""Share of the sites whose first token is rounded in two parts in every form. Each costs ONNX Runtime 0.2 to 0.4 % of
the time, and OpenVINO, which cannot add to some rows of a tensor in place, 0.8 %."""

FIRST_IMPORTANCE = 0.5
"""A site is one of them only where the first token has this share of the importance."""

FIRST_WEIGHTS = 0.015
"""Share of all weights that get a second part for the first token alone; they make the file larger by as much."""


Part = Literal["input", "weights"]

PER_INPUT, PER_OUTPUT = 140, 40
"""What a second part costs beside its multiplications, for each channel of its input (bounds, rounding, what was
missed) and of its output (a sum), in multiplications of one core with AVX512-VNNI."""


def fast_form(builder: Builder, arrangement: Arrangement, *, cls_only: bool) -> Form:
    """Return the fastest form: all sites in one part, but for the first token where that pays most.

    Where the last layer computes nothing but the first token, a second part is of all its rows, and almost free; those
    of layers before it are left out then.
    """
    plans = builder.plans
    weights = {where: math.prod(builder.shape_of(*where)) for where in _places(builder)}
    order = sorted(_places(builder), key=lambda where: -plans[where[0]].first_error(where[1]) / weights[where])
    order = [where for where in order if plans[where[0]].first[where[1]] >= FIRST_IMPORTANCE]
    first = order[: math.ceil(FIRST_SITES[arrangement] * len(_places(builder)))]
    if cls_only:
        first = [where for where in first if where[0] == len(plans) - 1]

    def gain(where: Place) -> float:
        place, site = where
        return builder.weight_error(place, site, precise=False) * plans[place].first[site] / weights[where]

    left = FIRST_WEIGHTS * builder.weights
    finer = []
    for where in sorted(first, key=gain, reverse=True):
        if weights[where] <= left:
            finer.append(where)
            left -= weights[where]
    return Form(first=frozenset(first), first_finer=frozenset(finer))


def most_forms(builder: Builder) -> int:
    """Return how many forms there are to try."""
    return len(_counts(builder))


def _counts(builder: Builder) -> list[int]:
    """Return how many second parts each form has."""
    return list(dict.fromkeys(round(share * 2 * len(_places(builder))) for share in SHARES))


def forms(builder: Builder, arrangement: Arrangement, *, cls_only: bool) -> Iterator[Form]:
    """Yield the forms of the frontier, the fastest first; what only slower ones need is computed for them alone."""
    fast = fast_form(builder, arrangement, cls_only=cls_only)
    yield fast

    steps = second_parts(builder)
    for count in _counts(builder)[1:]:
        precise = frozenset(where for what, where in steps[:count] if what == "input")
        finer = frozenset(where for what, where in steps[:count] if what == "weights")
        yield Form(precise, finer, first=fast.first - precise, first_finer=fast.first_finer - precise)


def cost(builder: Builder, form: Form) -> float:
    """Return what a form costs, in multiplications of one core; attention and normalisations are left out."""
    total = 0.0
    for where in _places(builder):
        inputs, outputs = builder.shape_of(*where)
        product = inputs * outputs
        total += product
        if where in form.precise:
            total += product + PER_OUTPUT * outputs + PER_INPUT * inputs
        if where in form.finer:
            total += product + PER_OUTPUT * outputs
    return total


def predicted_error(builder: Builder, form: Form) -> float:
    """Return the predicted 1 - cosine of a form, mean over the calibration texts."""
    total = 0.0
    for where in _places(builder):
        place, site = where
        precise = where in form.precise
        if not precise:
            total += builder.plans[place].activation_error(site)
        if where not in form.finer:
            total += builder.weight_error(place, site, precise=precise)
    return total


def second_parts(builder: Builder) -> list[tuple[Part, Place]]:
    """Return all second parts, the one first that is predicted to spare most error for its time.

    A second part of an input spares the rounding error of the first, and, since the pair rule no longer binds the
    weights, part of theirs. A second part of weights spares the rest of it, and needs an input in two parts.
    """
    gains: dict[tuple[Part, Place], float] = {}
    for where in _places(builder):
        place, site = where
        left = builder.weight_error(place, site, precise=True)
        spared = builder.plans[place].activation_error(site) + builder.weight_error(place, site, precise=False) - left
        inputs, outputs = builder.shape_of(place, site)
        cost = inputs * outputs + PER_OUTPUT * outputs
        gains["input", where] = spared / (cost + PER_INPUT * inputs)
        # Never before its input. The product of both second parts is left out, so that a wide input spoils the gain.
        gain = left - builder.left_out_error(place, site)
        if gain > 0:
            gains["weights", where] = min(gain / cost, gains["input", where])
    return sorted(gains, key=lambda step: (-gains[step], step[0] == "weights"))


def _places(builder: Builder) -> list[Place]:
    return [(place, site) for place in range(len(builder.plans)) for site in SITES]

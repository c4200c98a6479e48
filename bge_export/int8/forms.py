"""The forms of one encoder from fast to exact, each site where two parts pay most.

The embedding is the state of one token. Where it is the first, errors of the other tokens in the last layers hardly
matter, so that the first token's rows alone are worth a second part: B rows of B * S, which cost next to nothing.
"""

from collections.abc import Iterator

from bge_export.int8.build import Builder, Form, Place
from bge_export.int8.encoder import SITES

SHARES = (0.0, 1 / 24, 1 / 12, 1 / 6, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Shares of the sites that are rounded in two parts, one form after the other; then the same shares of the weights."""

FIRST_SITES = 0.04
"""Share of the sites whose first token is rounded in two parts in every form. Each costs 0.2 to 0.4 % of the time."""

FIRST_IMPORTANCE = 0.5
"""A site is one of them only where the first token has this share of the importance."""

FIRST_WEIGHTS = 0.015
"""Share of all weights that get a second part for the first token alone; they make the file larger by as much."""


def fast_form(builder: Builder) -> Form:
    """Return the fastest form: all sites in one part, but for the first token where that pays most."""
    plans = builder.plans
    order = sorted(
        _places(builder), key=lambda where: -plans[where[0]].first_error(where[1]) / builder.weights_of(*where)
    )
    order = [where for where in order if plans[where[0]].first[where[1]] >= FIRST_IMPORTANCE]
    first = order[: max(1, round(FIRST_SITES * len(_places(builder))))]
    errors = {where: builder.weight_error(*where, precise=False) for where in first}
    left = FIRST_WEIGHTS * builder.weights
    finer = []
    for where in sorted(
        first, key=lambda where: -errors[where][0] * plans[where[0]].first[where[1]] / errors[where][1]
    ):
        if errors[where][1] <= left:
            finer.append(where)
            left -= errors[where][1]
    return Form(first=frozenset(first), first_finer=frozenset(finer))


def most_forms(builder: Builder) -> int:
    """Return how many forms there are to try."""
    return 2 * len(_counts(builder)) - 1


def _counts(builder: Builder) -> list[int]:
    return list(dict.fromkeys(round(share * len(_places(builder))) for share in SHARES))


def forms(builder: Builder) -> Iterator[Form]:
    """Yield the forms of the frontier, the fastest first."""
    fast = fast_form(builder)
    order = activation_order(builder)
    counts = _counts(builder)
    for count in counts:
        precise = frozenset(order[:count])
        yield Form(precise, first=fast.first - precise, first_finer=fast.first_finer - precise)
    weights = weight_order(builder)
    for count in counts[1:]:
        yield Form(frozenset(order), frozenset(weights[:count]))


def activation_order(builder: Builder) -> list[Place]:
    """Return all sites, the one whose rounded input costs most first."""
    return sorted(_places(builder), key=lambda where: -builder.plans[where[0]].activation_error(where[1]))


def weight_order(builder: Builder) -> list[Place]:
    """Return all sites, the one whose rounded weights cost most for each of their parameters first.

    Inputs are in two parts, as they are where weights become the limit.
    """
    costs: dict[Place, float] = {}
    for where in _places(builder):
        error, count = builder.weight_error(*where, precise=True)
        costs[where] = error / count
    return sorted(costs, key=lambda where: -costs[where])


def _places(builder: Builder) -> list[Place]:
    return [(place, site) for place in range(len(builder.plans)) for site in SITES]

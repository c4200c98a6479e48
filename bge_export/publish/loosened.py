"""Compares the limits that a statement names with those of a verifier: a looser one is named."""

from collections.abc import Iterator, Mapping
from typing import Any


def loosened(stated: object, own: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each limit of a statement that is missing, or looser than the verifier's.

    Args:
        stated: the limits of the statement (`statement.limits_of`), as they were read.
        own: those of the verifier, for the same report.
    """
    lanes = stated.get("lanes") if isinstance(stated, Mapping) else None
    if not isinstance(lanes, Mapping):
        yield "it names no limits"
        return

    for lane, limits in own["lanes"].items():
        given = lanes.get(lane)
        if not isinstance(given, Mapping):
            yield f"it names no limits of {lane}"
            continue

        yield from (f"{lane}: {reason}" for reason in _looser(_complete(given), _complete(limits)))


def _complete(limits: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return limits with those that apply where a table leaves one out (`Limits`)."""
    if "min_cosine" not in limits:
        return {"max_broken_pairs": 0, **limits}

    raw = limits.get("max_raw_norm_error", limits.get("max_norm_error"))
    return {
        "max_broken_pairs": 0,
        "min_stress_cosine": limits["min_cosine"],
        "max_raw_norm_error": raw,
        "max_raw_stress_norm_error": raw,
        **limits,
    }


def _looser(given: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    """Yield each limit of one lane that was looser than the verifier's own, or is not stated."""
    for name, limit in own.items():
        stated = given.get(name)

        if isinstance(limit, list):
            more = sorted(set(stated or ()) - set(limit))
            if more:
                yield f"{name} accepts {', '.join(map(str, more))}"
        elif stated is None:
            if name != "max_norm_shift":  # without it the limit of all norms is that of checkpoints that normalise
                yield f"{name} is missing, yours is {limit:g}"
        elif not isinstance(stated, int | float) or isinstance(stated, bool):
            yield f"{name} is not a number"
        elif stated < limit if name.startswith("min_") else stated > limit:
            yield f"{name} is {stated:g}, yours is {limit:g}"

"""Limits under which targets that are refused for their rounding would pass: for who accepts that knowingly."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from bge_export.parity.limits import Limits
from bge_export.parity.policy import DIFFERENCES, ThresholdPolicy
from bge_export.parity.report import Lane, ParityReport
from bge_export.parity.verdict import Failure, Verdict

STEPS = 10_000
"""Limits are rounded down to four digits."""


def rounding_alone(verdict: Verdict) -> tuple[str, ...]:
    """Return the targets that nothing but their rounding refuses."""
    reasons: dict[str, list[Failure]] = defaultdict(list)
    for failure in verdict.failures:
        reasons[failure.target].append(failure)
    return tuple(target for target, own in reasons.items() if target and all(one.may_be_rounding for one in own))


def accepting(policy: ThresholdPolicy, report: ParityReport, targets: Iterable[str]) -> ThresholdPolicy:
    """Return the limits, those of some targets lowered to what was measured of them."""
    tables = dict(policy.tables)
    for target in targets:
        lanes = [lane for lane in report.lanes if lane.target == target and lane.measured]
        names = [name for name in tables if name.partition("@")[0] == target]
        tables |= {name: _lowered(tables[name], lanes) for name in names}
    return ThresholdPolicy(policy.require, tables, policy.token_differences)


def _lowered(limits: Limits, lanes: Iterable[Lane]) -> Limits:
    smallest: Mapping[str, float] = {
        kind: min(
            (row.cosine or 0.0 for lane in lanes for row in lane.rows if not limits.by_kind or row.kind == kind),
            default=1.0,
        )
        for kind in ("everyday", "stress")
    }
    least = {"min_cosine": min(limits.min_cosine, _floor(smallest["everyday"]))}
    if limits.min_stress_cosine is not None:
        stress = min(limits.min_stress_cosine, _floor(smallest["stress"]))
        least["min_stress_cosine"] = min(stress, least["min_cosine"])
    return limits.model_copy(update=least)


def _floor(value: float) -> float:
    return max(math.floor(value * STEPS), 1) / STEPS


def as_toml(policy: ThresholdPolicy, heading: str) -> str:
    """Return limits as the text of a file that `ThresholdPolicy.read` reads; `heading` is its first comment."""
    lines = [f"# {heading}", f"require = {json.dumps([str(one) for one in policy.require])}"]
    for name, limits in policy.tables.items():
        fields = limits.model_dump(exclude_none=True).items()
        lines += ["", f"[{json.dumps(name)}]", *(f"{field} = {value!r}" for field, value in fields)]

    lines += ["", f"[{DIFFERENCES}]"]
    for pattern, kinds in policy.token_differences.items():
        lines.append(f"{json.dumps(pattern)} = {json.dumps(sorted(kinds))}")
    return "\n".join(lines) + "\n"

"""Propose limits under which targets refused only for rounding would pass, for users who accept that loss knowingly."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from bge_export.parity.figures import escaped
from bge_export.parity.gate.limits import HEAD_LIMITS, Limits
from bge_export.parity.gate.policy import DIFFERENCES, SCORES, ThresholdPolicy
from bge_export.parity.gate.rows import judge_row, relative_difference
from bge_export.parity.gate.sweep import state_failures
from bge_export.parity.gate.verdict import Failure, Verdict
from bge_export.parity.report import Lane, ParityReport, RowParity
from bge_export.texts.corpus import Kind

DIGITS = Decimal("0.0001")
"""Step of proposed limits, which are rounded to four digits so that the measured value passes."""

LEAST_OFFERED: Mapping[str, float] = {"everyday": 0.9, "stress": 0.8}
"""Smallest cosines that are proposed as limits. Below them, other texts of a corpus are often as near."""

LEAST_STATES = 0.3
"""Smallest cosine of a token's state that is proposed: random ids are harder than any text."""


def rounding_alone(verdict: Verdict) -> tuple[str, ...]:
    """Return the targets that are refused only for rounding, if limits that accept it may be proposed.

    The result is empty if the report as a whole is refused too: no limit of a target would let it pass.
    """
    reasons: dict[str, list[Failure]] = defaultdict(list)
    for failure in verdict.failures:
        reasons[failure.target].append(failure)

    if "" in reasons:
        return ()
    return tuple(target for target, own in reasons.items() if all(map(_may_be_offered, own)))


def _may_be_offered(failure: Failure) -> bool:
    """Return whether a limit that lets this failure pass is valid in a limits file and reasonable to accept."""
    if not failure.may_be_rounding or failure.figure is None or not math.isfinite(failure.figure):
        return False

    if failure.rule == "token-states":
        return failure.figure >= LEAST_STATES
    if failure.rule == "cosine":
        return failure.figure >= LEAST_OFFERED[failure.kind or "everyday"]
    return failure.rule == "max-abs" and _ceiling(failure.figure) < 1


def accepting(policy: ThresholdPolicy, report: ParityReport, targets: Iterable[str]) -> ThresholdPolicy:
    """Return the policy with the limits of some targets relaxed to the measured values.

    The limits of a target change only if all of its lanes then pass.
    """
    tables = dict(policy.tables)

    for target in targets:
        lanes = [lane for lane in report.lanes if lane.target == target and lane.measured]
        by_table: dict[str, list[Lane]] = defaultdict(list)
        for lane in lanes:
            by_table[policy.table_of(lane.target, lane.runtime, lane.device)].append(lane)

        lowered = {name: _lowered(tables[name], own) for name, own in by_table.items() if name in tables}
        pairs = [(lane, lowered.get(name)) for name, own in by_table.items() for lane in own]
        if all(_passes(lane, limits) for lane, limits in pairs):
            tables |= lowered

    return replace(policy, tables=tables, digest=None)


def _passes(lane: Lane, limits: Limits | None) -> bool:
    if limits is None or any(bad for row in lane.rows for bad in judge_row(row, lane, limits)):
        return False

    parts = () if lane.sweep is None else lane.sweep.parts
    return not any(bad for part in parts for bad in state_failures(lane, limits, part))


def _lowered(limits: Limits, lanes: Iterable[Lane]) -> Limits:
    """Return limits that the rows of some lanes meet, none below `LEAST_OFFERED`."""
    rows = [row for lane in lanes for row in lane.rows]
    stress = [row for row in rows if limits.by_kind and row.kind == "stress"]
    everyday = [row for row in rows if not limits.by_kind or row.kind == "everyday"]

    least: dict[str, float] = {"min_cosine": _smallest(everyday, limits.min_cosine, "everyday")}
    if limits.min_stress_cosine is not None:
        least["min_stress_cosine"] = min(_smallest(stress, limits.min_stress_cosine, "stress"), least["min_cosine"])

    parts = [part for lane in lanes if lane.sweep is not None for part in lane.sweep.parts]
    for name in ("token_cosine", "sequence_cosine"):
        limit: float = getattr(limits, f"min_{name}")
        found = [
            _floor(x) for x in (getattr(part, name) for part in parts) if x is not None and LEAST_STATES <= x < limit
        ]
        least[f"min_{name}"] = min([limit, *found])

    known = [value for value in map(relative_difference, rows) if value is not None and math.isfinite(value)]
    if limits.max_abs is not None and known and (widest := _ceiling(max(known))) < 1:
        least["max_abs"] = max(limits.max_abs, widest)

    return limits.model_copy(update=least)


def _smallest(rows: Iterable[RowParity], limit: float, kind: Kind) -> float:
    """Return the limit, lowered to the smallest cosine of the rows that may be proposed, rounded down."""
    cosines = (row.cosine for row in rows)
    lower = [_floor(x) for x in cosines if x is not None and LEAST_OFFERED[kind] <= x < limit]
    return min([limit, *lower])


def _floor(value: float) -> float:
    """Return a measured value rounded down in decimal digits, so that a value of four digits does not change."""
    return float(Decimal(repr(value)).quantize(DIGITS, ROUND_FLOOR))


def _ceiling(value: float) -> float:
    return float(Decimal(repr(value)).quantize(DIGITS, ROUND_CEILING))


def as_toml(policy: ThresholdPolicy, heading: str) -> str:
    """Return a policy as the text of a limits file for `ThresholdPolicy.read`; `heading` becomes its first comment."""
    require = ", ".join(_string(str(one)) for one in policy.require)
    lines = [f"# {escaped(heading)}", f"require = [{require}]"]

    tables = [
        *policy.tables.items(),
        *((f"{SCORES}.{name}", limits) for name, limits in policy.scores.items()),
        *((f"{kind}.{name}", limits) for kind, own in policy.heads.items() for name, limits in own.items()),
    ]
    for name, limits in tables:
        fields = limits.model_dump(exclude_none=True).items()
        lines += ["", f"[{_table(name)}]", *(f"{field} = {value!r}" for field, value in fields)]

    lines += ["", f"[{DIFFERENCES}]"]
    for pattern, kinds in policy.token_differences.items():
        lines.append(f"{_string(pattern)} = [{', '.join(map(_string, sorted(kinds)))}]")
    return "\n".join(lines) + "\n"


def _table(name: str) -> str:
    """Return the name of a table in TOML; those of other heads are tables of one table."""
    prefix, dot, rest = name.partition(".")
    return f"{prefix}.{_string(rest)}" if dot and prefix in (SCORES, *HEAD_LIMITS) else _string(name)


def _string(text: str) -> str:
    """Return a TOML string: JSON syntax without ASCII escapes, which would split characters beyond 16 bits in two."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")

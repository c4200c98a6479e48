"""Similarities of a report, everyday and stress texts apart."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kinds import KINDS
from records import LaneFigures

from bge_export.parity.report import Lane, ParityReport, RowParity
from bge_export.texts.corpus import Kind


def lane_figures(report: ParityReport, target: str, kinds: Mapping[str, Kind]) -> list[LaneFigures]:
    """Return the figures of each lane that measured a target."""
    return [_figures(lane, kinds) for lane in report.lanes if lane.target == target and lane.measured]


def reasons(failures: Iterable[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> dict[str, int]:
    """Return how many times each rule refused; a rule about one text is named with the text's kind.

    Args:
        failures: the failures of a verdict, as `bge-export --json` prints them.
        kinds: id of each text -> its kind.
    """
    named = (f"{bad['rule']}/{kinds[bad['row']]}" if bad["row"] in kinds else bad["rule"] for bad in failures)
    return dict(sorted(Counter(named).items()))


def _figures(lane: Lane, kinds: Mapping[str, Kind]) -> LaneFigures:
    fields: dict[str, Any] = {}
    for kind in KINDS:
        rows = [row for row in lane.rows if kinds[row.id] == kind]
        worst = min(rows, key=_cosine)
        cosines = [row.cosine for row in rows]

        fields[f"{kind}_min"] = worst.cosine
        fields[f"{kind}_mean"] = _mean(cosines)
        fields[f"{kind}_worst"] = worst.id

    differences = [row.max_abs for row in lane.rows if row.max_abs is not None]
    whole = len(differences) == len(lane.rows)
    return LaneFigures(lane=lane.name, max_abs=max(differences) if whole else None, **fields)


def _cosine(row: RowParity) -> float:
    """Return a row's cosine; one that is undefined is worse than any."""
    return -2.0 if row.cosine is None else row.cosine


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None

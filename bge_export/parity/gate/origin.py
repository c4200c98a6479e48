"""Refusals about where the reference vectors come from: a file of vectors may be anybody's."""

from collections.abc import Iterator

from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import ParityReport, ReferenceKind


def reference_failures(report: ParityReport, kind: ReferenceKind | None) -> Iterator[Failure]:
    """Yield a refusal if lanes were measured against another kind of reference than the one required, if any."""
    others = {name for name, run in report.runs.items() if kind is not None and run.reference.kind != kind}
    lanes = [lane.name for lane in report.lanes if lane.run in others and lane.measured]

    if others:
        where = f", as in {lanes[0]}" if lanes else ""
        got = f"{len(lanes)} lanes were measured against vectors from another reference than a {kind}{where}"
        yield failure("other-reference", got, f"a {kind} as the reference of every lane")

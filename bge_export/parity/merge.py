"""Merge parity reports of several machines into one, so that the gate judges them together. Nothing is judged here.

The reports must agree on the checkpoint, the spec, the texts, the targets and the bytes of every artifact.
The machines may differ, and so may the last bits of the reference vectors if each machine ran the checkpoint itself.
The merged report keeps both in one run record per report, and every lane names its run. A lane measured on two machines
therefore stays two lanes, and each is judged separately: neither the worse nor the better one can hide the other.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from bge_export.errors import ReportError
from bge_export.parity.figures import escaped
from bge_export.parity.report import CheckpointRecord, Lane, ParityReport, TextsRecord

_FIELDS = {
    "checkpoint.digest": "Measure exports of one checkpoint, against that checkpoint, on every machine.",
    "texts.digest": "Measure the same texts (--texts) on every machine.",
    "texts.count": "Measure the same texts (--texts) on every machine.",
    "reference.texts_digest": "Measure against vectors of the same texts on every machine.",
    "targets": "Carry the whole folder to every machine: what one of them cannot run, its report says.",
}
_ITSELF = "checkpoint-"
"""Prefix of targets that are not files of the folder: the checkpoint in torch, which only some machines can run."""

_SPEC = "Export again with one version of bge-export and the same --pooling, and carry that folder to every machine."
_BYTES = "Export once, carry that folder to every machine, and measure again."


def merge(reports: Sequence[ParityReport], names: Sequence[str]) -> ParityReport:
    """Join reports of the same artifacts and texts into one sealed report.

    The result does not depend on the order of the reports, nor on whether some of them are already merged. A report
    given twice counts once. A lane that was unavailable on one machine, and not requested there, is dropped if another
    machine measured the same lane.

    Args:
        reports: one or more reports.
        names: the file name of each report, for error messages.

    Raises:
        ReportError: `reports` is empty, a report was edited, or they differ in checkpoint, texts or artifacts.
    """
    if not reports:
        raise ReportError("No report to merge. Give the parity.json of each machine.")

    for report, name in zip(reports, names, strict=True):
        _refuse_edited(report, name)
    _refuse_different(reports, names)
    _refuse_other_bytes(reports, names)

    return reports[0] if len({report.digest for report in reports}) == 1 else _joined(reports)


def of_lanes(report: ParityReport, lanes: Sequence[Lane], targets: Sequence[str]) -> ParityReport:
    """Return a report on some lanes alone, with the runs that measured them."""
    used = {lane.run for lane in lanes}
    runs = {name: run for name, run in report.runs.items() if name in used}
    left = {"lanes": tuple(lanes), "runs": runs, "requested": (), "targets": tuple(targets)}
    return report.model_copy(update=left).sealed()


def each_run_once(report: ParityReport) -> ParityReport:
    """Return a merged report in which runs of one machine that say the same are one, named by their content.

    For the folder that one process extends step by step: the report is then the same in whatever parts it was
    measured. Reports of several machines keep a run for each report, however alike the machines are.
    """
    names = {name: hashlib.sha256(run.model_dump_json().encode()).hexdigest() for name, run in report.runs.items()}
    lanes = sorted((lane.model_copy(update={"run": names[lane.run]}) for lane in report.lanes), key=_lane_order)
    runs = {names[name]: run for name, run in report.runs.items()}
    return report.model_copy(update={"lanes": tuple(lanes), "runs": dict(sorted(runs.items()))}).sealed()


def _refuse_edited(report: ParityReport, name: str) -> None:
    """Raise ReportError if a report's digest does not match its facts."""
    said, found = report.digest[:12], report.computed_digest[:12]
    if report.digest != report.computed_digest:
        raise ReportError(
            f"{escaped(name)}: its digest is {said!r}, that of its facts {found!r}: it was edited. "
            "Measure again there with: bge-export parity FOLDER --reference MODEL"
        )


def _refuse_different(reports: Sequence[ParityReport], names: Sequence[str]) -> None:
    """Raise ReportError if a field that must be equal in all reports differs from the first report."""
    first = dict(_facts(reports[0]))
    for report, name in zip(reports[1:], names[1:], strict=True):
        for field, value in _facts(report):
            if value != first[field]:
                _refuse(field, (names[0], first[field]), (name, value), _FIELDS.get(field, _SPEC))


def _facts(report: ParityReport) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each field that must be equal in all reports."""
    yield "checkpoint.digest", report.checkpoint.digest
    for field, value in report.spec.inputs:
        yield f"spec.inputs.{field}", repr(value)
    for kind, head in report.spec.heads:
        yield f"spec.heads.{kind}", "absent" if head is None else "present"
        if head is not None:
            yield from ((f"spec.heads.{kind}.{field}", repr(value)) for field, value in head)

    yield "texts.digest", report.texts.digest
    yield "texts.count", str(report.texts.count)

    yield "reference.texts_digest", ", ".join(sorted({run.reference.texts_digest for run in report.runs.values()}))
    yield "targets", ", ".join(target for target in sorted(report.targets) if not target.startswith(_ITSELF))


def _refuse_other_bytes(reports: Sequence[ParityReport], names: Sequence[str]) -> None:
    """Raise ReportError if two reports measured different bytes under the same target and file name."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}

    for report, name in zip(reports, names, strict=True):
        for lane in report.lanes:
            there, digest = seen.setdefault((lane.target, lane.model), (name, lane.artifact_digest))
            if digest != lane.artifact_digest:
                field = f"artifact_digest of {lane.target} {lane.model}"
                _refuse(field, (there, digest), (name, lane.artifact_digest), _BYTES)


def _refuse(field: str, one: tuple[str, str], other: tuple[str, str], advice: str) -> None:
    raise ReportError(
        escaped(f"{one[0]} and {other[0]} cannot be merged: {field} is {one[1]} in {one[0]}, {other[1]} in {other[0]}.")
        + f" {advice}"
    )


def _joined(reports: Sequence[ParityReport]) -> ParityReport:
    """Return the union. Every field is chosen by value, never by position, so the reports may come in any order."""
    lanes: list[Lane] = []
    for report in reports:
        named = (lane.model_copy(update={"run": lane.run or report.digest}) for lane in report.lanes)
        lanes += [lane for lane in named if lane not in lanes]

    return ParityReport(
        schema=reports[0].schema_,
        checkpoint=min((report.checkpoint for report in reports), key=_checkpoint_order),
        spec=reports[0].spec,
        texts=TextsRecord(
            name=min(report.texts.name for report in reports),
            digest=reports[0].texts.digest,
            count=reports[0].texts.count,
        ),
        runs={name or report.digest: run for report in reports for name, run in report.runs.items()},
        requested=tuple(sorted({lane for report in reports for lane in report.requested})),
        targets=tuple(sorted({target for report in reports for target in report.targets})),
        lanes=tuple(sorted(_filled(lanes), key=_lane_order)),
        digest="",
    ).sealed()


def _filled(lanes: Sequence[Lane]) -> Iterable[Lane]:
    """Yield the lanes, except unrequested ones that were unavailable on one machine but measured on another."""
    measured = {_identity(lane) for lane in lanes if lane.measured}

    for lane in lanes:
        only_absent = lane.unavailable is not None and lane.failed is None and not lane.facts_of_texts
        if lane.requested or not only_absent or _identity(lane) not in measured:
            yield lane


def _identity(lane: Lane) -> tuple[str, ...]:
    return lane.target, lane.model, lane.output, lane.runtime, lane.device


def _lane_order(lane: Lane) -> tuple[str | int, ...]:
    """Return the sort key of a lane. Lanes that are equal in every other part are ordered by their facts."""
    return *_identity(lane), lane.threads, lane.run, lane.model_dump_json()


def _checkpoint_order(checkpoint: CheckpointRecord) -> tuple[bool, str, str]:
    """Return the sort key of a record of the same checkpoint: a Hub revision comes before a local folder."""
    return checkpoint.revision is None, checkpoint.revision or "", checkpoint.source

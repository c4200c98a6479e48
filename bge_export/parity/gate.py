"""Every "no" of the report as a whole and of its lanes; `gate_rows` has those of a single text. It says nothing else.

Nothing is averaged: each row is judged by itself. Nothing passes by being absent: no texts, no lanes, no rows, no
limits, no runtime, no number. All rules run, so that one refusal does not hide another.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from bge_export.contracts import Artifact
from bge_export.corpus import Corpus
from bge_export.parity.figures import excerpt
from bge_export.parity.gate_rows import judge_client, judge_row
from bge_export.parity.policy import Limits, Requirement, ThresholdPolicy
from bge_export.parity.report import Lane, ParityReport, SpecRecord
from bge_export.parity.verdict import Failure, Verdict, failure

CHECKPOINT = "checkpoint-"
"""Targets that are the checkpoint itself, run in torch on another device: no folder holds them."""

__all__ = ["Failure", "Verdict", "judge"]


def judge(
    report: ParityReport,
    policy: ThresholdPolicy,
    corpus: Corpus,
    *,
    require: Sequence[str] = (),
    artifacts: Sequence[Artifact] | None = None,
) -> Verdict:
    """Judge a report.

    Args:
        report: the facts.
        policy: the limits.
        corpus: the texts that the report must be about.
        require: further `runtime:device` or `target@runtime:device` that must have been measured.
        artifacts: the folder at hand, its digests taken from the bytes; the report must be about all of it.

    Raises:
        PolicyError: an entry of `require` is none.
    """
    required = [*policy.require, *map(Requirement.parse, require)]
    found = [
        *_report_failures(report, corpus),
        *_lane_set_failures(report),
        *(bad for target in report.targets for bad in _unmeasured(report, target)),
        *(bad for one in required for bad in _requirement_failures(report, one)),
        *(bad for name in report.requested for bad in _request_failures(report, name)),
        *(bad for lane in report.lanes for bad in _lane_failures(lane, report, policy, corpus)),
        *(_folder_failures(report, artifacts) if artifacts is not None else ()),
    ]
    return Verdict(tuple(dict.fromkeys(found)))


def _report_failures(report: ParityReport, corpus: Corpus) -> Iterator[Failure]:
    """Yield what refuses the report before any lane is looked at."""
    if report.digest != report.computed_digest:
        yield failure("edited-report", f"its digest is {report.digest[:12]!r}", f"{report.computed_digest[:12]!r}")
    if not corpus.texts or report.texts.count == 0:
        yield failure("no-texts", f"{report.texts.count} texts measured, {len(corpus.texts)} given", "at least one")
    references = dict.fromkeys(("reference", run.reference.texts_digest) for run in report.runs.values())
    for what, digest in (("texts", report.texts.digest), *references):
        if digest != corpus.digest:
            got = f"its {what} are of {report.texts.name} {digest[:12]}"
            yield failure("other-texts", got, f"{corpus.name} {corpus.digest[:12]}")
    if report.texts.count != len(corpus.texts):
        yield failure("other-texts", f"{report.texts.count} texts", f"{len(corpus.texts)} of {corpus.name}")


def _lane_set_failures(report: ParityReport) -> Iterator[Failure]:
    """Yield lanes that are missing altogether, named twice, or of a target the folder does not have."""
    if not report.lanes or not report.targets:
        yield failure("no-lanes", f"{len(report.lanes)} lanes, {len(report.targets)} targets", "at least one")
    keys = Counter((x.run, x.target, x.model, x.output, x.runtime, x.device, x.threads) for x in report.lanes)
    for key, count in keys.items():
        if count > 1:
            yield failure("inconsistent", f"the lane {' '.join(map(str, key)).strip()} appears {count} times", "once")
    for lane in report.lanes:
        if lane.run not in report.runs:
            yield failure("inconsistent", f"no record of the run {lane.run!r}", "one for every lane", lane=lane.name)
        if lane.target not in report.targets:
            needed = f"one of {', '.join(report.targets)}"
            yield failure("inconsistent", "a target that the folder does not have", needed, lane=lane.name)


def _unmeasured(report: ParityReport, target: str) -> Iterator[Failure]:
    """Yield the refusal of a target of the folder that no lane measured."""
    lanes = [lane for lane in report.lanes if lane.target == target]
    if not any(lane.measured for lane in lanes):
        yield failure("not-measured", f"{target} was measured nowhere{_reason(lanes)}", "at least one lane with rows")


def _reason(lanes: Sequence[Lane]) -> str:
    """Return why lanes have no rows, as far as the report knows."""
    reasons = [reason for lane in lanes for reason in (lane.unavailable, lane.failed) if reason is not None]
    return f" ({reasons[0]})" if reasons else ""


def _requirement_failures(report: ParityReport, required: Requirement) -> Iterator[Failure]:
    """Yield each target that was not measured where it is required.

    Without a target, a requirement holds for every target of the formats that the runtime was seen to read, so that
    one good precision does not stand in for another.
    """
    lanes = [lane for lane in report.lanes if lane.runtime == required.runtime]
    formats = {lane.target.partition("-")[0] for lane in lanes}
    targets = [required.target] if required.target else [t for t in report.targets if t.partition("-")[0] in formats]
    if not targets:
        yield failure("required-missing", f"nothing was measured in {required.runtime}", str(required))
    for target in targets:
        there = [lane for lane in lanes if lane.target == target and lane.device == required.device]
        if not any(lane.measured for lane in there):
            yield failure("required-missing", f"{target} was not measured there{_reason(there)}", str(required))


def _request_failures(report: ParityReport, name: str) -> Iterator[Failure]:
    """Yield the refusal of a place that the user asked for and where nothing ran: no artifact has a format for it.

    One that could not run there has lanes, and each of those is refused by itself.
    """
    if not any(f"{lane.runtime}:{lane.device}" == name and lane.requested for lane in report.lanes):
        yield failure("required-missing", f"nothing was measured at {name}", f"{name}: it was asked for")


def _lane_failures(lane: Lane, report: ParityReport, policy: ThresholdPolicy, corpus: Corpus) -> Iterator[Failure]:
    """Yield what refuses one lane, its rows included."""
    if lane.target.startswith(CHECKPOINT) and lane.artifact_digest != report.checkpoint.digest:
        got = f"another checkpoint, {lane.artifact_digest[:12]}"
        yield failure("other-bytes", got, report.checkpoint.digest[:12], lane=lane.name)
    if lane.spec != report.spec:
        yield failure("inconsistent", "the artifact promises another embedding", "the checkpoint's", lane=lane.name)
    if lane.failed is not None:
        yield failure("crashed", lane.failed, "embeddings", lane=lane.name)
    if lane.unavailable is not None and lane.requested:
        yield failure("unavailable", lane.unavailable, "a measurement: it was asked for", lane=lane.name)
    silent = lane.unavailable is not None or lane.failed is not None
    if silent == bool(lane.rows):
        got = "rows of a lane that could not run" if silent else "no rows, and no reason why"
        yield failure("inconsistent", got, "rows, or the reason why there are none", lane=lane.name)
    if not lane.rows:
        return
    if report.texts.digest == corpus.digest:
        yield from _row_set_failures(lane, corpus)
    limits = policy.limits_for(lane.target, lane.runtime, lane.device)
    if limits is None:
        yield failure("unknown-target", f"no limits for {lane.target}", f'a table ["{lane.target}"]', lane=lane.name)
        return
    refused = [bad for row in lane.rows for bad in judge_row(row, lane, limits)]
    yield from refused
    yield from _client_failures(lane, policy, limits, corpus)
    pooling = report.spec.pooling
    if any(bad.rule == "cosine" for bad in refused) and lane.pooling_seen not in (None, pooling):
        yield failure("wrong-pooling", f"the vectors agree with {lane.pooling_seen} pooling", pooling, lane=lane.name)


def _client_failures(lane: Lane, policy: ThresholdPolicy, limits: Limits, corpus: Corpus) -> Iterator[Failure]:
    """Yield what refuses a client's own way with the texts, and that it was not looked at where the policy names it."""
    accepted = policy.accepted_differences(lane.runtime, lane.device)
    texts = {text.id: text.text for text in corpus.texts}
    for row in lane.rows:
        if row.client is not None:
            yield from judge_client(row, row.client, texts.get(row.id, ""), lane, limits, accepted or frozenset())
        elif accepted is not None:
            got = "nothing of the client's own tokenizer"
            yield failure("client-missing", got, "what it makes of the text", lane=lane.name, row=row.id, text=row.text)


def _row_set_failures(lane: Lane, corpus: Corpus) -> Iterator[Failure]:
    """Yield each text without its one row, each row without its text, and rows in another order."""
    seen = Counter(row.id for row in lane.rows)
    texts = {text.id: text.text for text in corpus.texts}
    for name, text in texts.items():
        if seen[name] == 0:
            yield failure("missing-row", "no row", "one row a text", lane=lane.name, row=name, text=excerpt(text))
    for row in lane.rows:
        about = {"lane": lane.name, "row": row.id, "text": row.text}
        if row.id not in texts:
            yield failure("extra-row", "a row of no text that was given", "one row a text", **about)
        elif row.text != excerpt(texts[row.id]):
            yield failure("other-texts", "a row with another text", excerpt(texts[row.id]), **about)
        if seen[row.id] > 1:
            yield failure("duplicate-row", f"{seen[row.id]} rows of one text", "one row a text", **about)
    if set(seen) == set(texts) and list(seen) != list(texts):
        yield failure("row-order", "rows in another order than the texts", "the order of the texts", lane=lane.name)


def _folder_failures(report: ParityReport, artifacts: Sequence[Artifact]) -> Iterator[Failure]:
    """Yield what keeps the report from being about the folder at hand, and about all of it."""
    present = {(str(artifact.target), artifact.model): artifact for artifact in artifacts}
    if not artifacts:
        yield failure("not-measured", "the folder holds no artifacts", "at least one")
    for lane in report.lanes:
        if lane.target.startswith(CHECKPOINT):
            continue
        artifact = present.get((lane.target, lane.model))
        if artifact is None:
            yield failure("other-bytes", f"{lane.model} is not in the folder", "a lane of the folder", lane=lane.name)
        elif artifact.digest != lane.artifact_digest:
            got = f"{lane.model} was measured as {lane.artifact_digest[:12]}"
            yield failure("other-bytes", got, artifact.digest[:12], lane=lane.name)
    measured = {(lane.target, lane.model, lane.output) for lane in report.lanes if lane.measured}
    for artifact in artifacts:
        if SpecRecord.of(artifact.spec) != report.spec:
            yield failure("inconsistent", f"{artifact.model} promises another embedding", "the checkpoint's")
        for output in artifact.outputs or ("any output",):
            if (str(artifact.target), artifact.model, output) not in measured:
                yield failure("not-measured", f"{artifact.model} {output} was measured nowhere", "a lane with rows")

"""Every "no" about the folder at hand: the report must be about all of it, about its bytes and its checkpoint."""

from collections.abc import Iterator, Sequence

from bge_export.contracts import Artifact
from bge_export.parity.gate.lanes import proves
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import ParityReport, SpecRecord

CHECKPOINT = "checkpoint-"
"""Targets that are the checkpoint itself, run in torch on another device: no folder holds them."""


def folder_failures(report: ParityReport, artifacts: Sequence[Artifact], checkpoint: str | None) -> Iterator[Failure]:
    """Yield what keeps the report from being about the folder at hand, and about all of it."""
    if not artifacts:
        yield failure("not-measured", "the folder holds no artifacts", "at least one")
    if checkpoint is not None and checkpoint != report.checkpoint.digest:
        got = f"the reference is another checkpoint, {report.checkpoint.source} {report.checkpoint.digest[:12]}"
        yield failure("other-bytes", got, f"{checkpoint[:12]}, which the folder was made of")
    yield from _lane_failures(report, artifacts)
    measured = {(lane.target, lane.model, lane.output) for lane in report.lanes if proves(lane)}
    for artifact in artifacts:
        if SpecRecord.of(artifact.spec) != report.spec:
            yield failure("inconsistent", f"{artifact.model} promises another embedding", "the checkpoint's")
        for output in artifact.outputs or ("any output",):
            if (str(artifact.target), artifact.model, output) not in measured:
                yield failure("not-measured", f"{artifact.model} {output} was measured nowhere", "a lane with rows")


def _lane_failures(report: ParityReport, artifacts: Sequence[Artifact]) -> Iterator[Failure]:
    """Yield each lane of a file that the folder does not have, or has with other bytes."""
    present = {(str(artifact.target), artifact.model): artifact for artifact in artifacts}
    for lane in report.lanes:
        if lane.target.startswith(CHECKPOINT):
            continue
        artifact = present.get((lane.target, lane.model))
        if artifact is None:
            yield failure("other-bytes", f"{lane.model} is not in the folder", "a lane of the folder", lane=lane.name)
        elif artifact.digest != lane.artifact_digest:
            got = f"{lane.model} was measured as {lane.artifact_digest[:12]}"
            yield failure("other-bytes", got, artifact.digest[:12], lane=lane.name)

"""Refusals about the folder on disk: the report must cover all its artifacts, with the same bytes and checkpoint.

What the model files hold is read from them again (`contents`), so only a folder can be refused for it: a report that is
judged by itself says nothing of its files but their digests.
"""

from collections.abc import Iterable, Iterator, Sequence

from bge_export.contracts import Artifact
from bge_export.files.spec import SpecRecord
from bge_export.parity.gate.contents import content_failures
from bge_export.parity.gate.lanes import CHECKPOINT, proves
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import ParityReport


def folder_failures(
    report: ParityReport, artifacts: Sequence[Artifact], checkpoint_digest: str | None
) -> Iterator[Failure]:
    """Yield a failure for each mismatch between the report and the folder, and for each artifact not measured."""
    if not artifacts:
        yield failure("not-measured", "the folder holds no artifacts", "at least one")
    if checkpoint_digest is not None and checkpoint_digest != report.checkpoint.digest:
        got = f"the reference is another checkpoint, {report.checkpoint.source} {report.checkpoint.digest[:12]}"
        yield failure("other-bytes", got, f"{checkpoint_digest[:12]}, which the folder was made of")

    yield from _lane_failures(report, artifacts)

    for artifact in artifacts:
        yield from content_failures(artifact)

    measured = {(lane.target, lane.model, lane.output) for lane in report.lanes if proves(lane)}
    for artifact in artifacts:
        if SpecRecord.of(artifact.spec) != report.spec:
            yield failure("inconsistent", f"{artifact.model} promises another embedding", "the checkpoint's")

        # An artifact whose file declares no output is refused as well.
        for output in artifact.outputs or ("any output",):
            if (str(artifact.target), artifact.model, output) not in measured:
                yield failure("not-measured", f"{artifact.model} {output} was measured nowhere", "a lane with rows")


def other_source_failures(report: ParityReport, source: str, revision: str | None) -> Iterator[Failure]:
    """Yield the refusal of a folder that names another checkpoint than a report on one of the Hub.

    Args:
        report: the report.
        source: the checkpoint's id in the manifest.
        revision: its revision there.
    """
    known = report.checkpoint
    if known.revision is not None and (known.source, known.revision) != (source, revision):
        got = f"the manifest names {source} at {revision or 'no revision'}"
        yield failure("inconsistent", got, f"{known.source} at {known.revision}, as in the report")


def other_file_failures(names: Iterable[str], source: str) -> Iterator[Failure]:
    """Yield the refusal of each small file or weight file that is not the checkpoint's (`bundle.origin`)."""
    for name in names:
        got = f"{name} is not the file that an export of {source} writes"
        yield failure("other-settings", got, "the checkpoint's own settings, tokenizer and weights, byte for byte")


def _lane_failures(report: ParityReport, artifacts: Sequence[Artifact]) -> Iterator[Failure]:
    """Yield a failure for each lane whose file is missing from the folder or has different bytes there."""
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

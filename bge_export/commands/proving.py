"""Proves a staged export: measures and judges it, and separates the proven targets from the refused ones."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.bundle.integrity import REPORT
from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import read_bundle, write_manifest
from bge_export.commands.attempts import Made
from bge_export.commands.extension import Kept
from bge_export.commands.measuring import default_devices, measure_folder
from bge_export.contracts import Artifact, Checkpoint
from bge_export.parity.gate.judge import Verdict, judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.parity.merge import each_run_once, merge, of_lanes
from bge_export.parity.report import Lane, ParityReport, write_report
from bge_export.texts.corpus import Corpus, builtin_corpus
from bge_export.texts.golden import GOLDEN


@dataclass(frozen=True)
class StagedExport:
    """A folder that an export writes, with everything needed to prove it.

    Attributes:
        root: the staged folder.
        checkpoint: the checkpoint that it is exported from.
        kept: content that it keeps from an earlier export.
        weights: the files of the checkpoint's own weights in it.
        devices: runtimes and devices in which its models are measured besides their formats' own runtimes.
        policy: the limits.
        order: the order of targets in the manifest; those that are not in it come first, as they were made.
    """

    root: Path
    checkpoint: Checkpoint
    kept: Kept
    weights: Sequence[str]
    devices: Sequence[RuntimeDevice]
    policy: ThresholdPolicy
    order: Sequence[str] = ()

    def record(self, made: Sequence[Made], *, checked: bool) -> Sequence[Artifact]:
        """Write the manifest of the folder; return its artifacts."""
        place = {target: number for number, target in enumerate(self.order)}
        models = [*self.kept.models, *(one.record for one in made)]
        models.sort(key=lambda model: place.get(model.target, -1))
        write_manifest(self.root, self.checkpoint, models, checked=checked, weights=self.weights)
        return read_bundle(self.root)[1]

    def judged(self, report: ParityReport, artifacts: Sequence[Artifact]) -> Verdict:
        """Judge a report on some of the folder's artifacts: it must be about the package's own texts."""
        corpus = builtin_corpus(pairs=self.checkpoint.spec.is_reranker)
        return judge(report, self.policy, corpus, artifacts=artifacts, checkpoint_digest=self.checkpoint.digest)


@dataclass(frozen=True)
class Measured:
    """Measurements of a staged folder and their verdict.

    Attributes:
        artifacts: all artifacts of the folder.
        own: the report on the lanes that this export measured.
        report: `own`, joined with the earlier export's lanes for the kept artifacts.
        verdict: the verdict on `report`.
    """

    artifacts: Sequence[Artifact]
    own: ParityReport
    report: ParityReport
    verdict: Verdict


def prove(
    staged: StagedExport,
    artifacts: Sequence[Artifact],
    measurement: Measurement,
    before: Measured | None = None,
) -> Measured:
    """Measure the artifacts of a staged folder that are not measured yet, join the known lanes, and judge the result.

    Args:
        staged: the folder.
        artifacts: all artifacts of the folder.
        measurement: the texts, and the checkpoint's vectors of them.
        before: this export's measurements before it replaced a model; lanes of unchanged files are taken from it.
    """
    digests = {(str(item.target), item.model): item.digest for item in artifacts}
    done = () if before is None else before.own.lanes
    unchanged = [lane for lane in done if digests.get((lane.target, lane.model)) == lane.artifact_digest]
    earlier = staged.kept.lanes(artifacts, measurement.corpus, staged.checkpoint)

    known = {(lane.target, lane.model) for lane in unchanged}
    new = [item for item in artifacts if (str(item.target), item.model) not in known and not _is_proven(item, earlier)]

    devices = [*default_devices(new, all_devices=False), *staged.devices]
    fresh = measure_folder(measurement, staged.root, new, devices)
    targets = tuple(sorted({str(item.target) for item in artifacts}))
    own = fresh.model_copy(update={"lanes": (*unchanged, *fresh.lanes), "targets": targets}).sealed()

    report = with_earlier(own, staged.kept.report, earlier)
    return Measured(artifacts, own, report, staged.judged(report, artifacts))


def proven_before(staged: StagedExport, artifacts: Sequence[Artifact], corpus: Corpus) -> Measured | None:
    """Return what the earlier report says of a folder that holds nothing new; None if it does not cover all of it."""
    earlier = staged.kept.lanes(artifacts, corpus, staged.checkpoint)
    if staged.kept.report is None or not artifacts or not all(_is_proven(item, earlier) for item in artifacts):
        return None

    report = of_lanes(staged.kept.report, earlier, tuple(sorted({str(item.target) for item in artifacts})))
    return Measured(artifacts, report, report, staged.judged(report, artifacts))


def with_earlier(own: ParityReport, before: ParityReport | None, earlier: Sequence[Lane]) -> ParityReport:
    """Join a report with the lanes of an earlier one that are still valid; a lane measured again replaces its own.

    Args:
        own: the new report, on all targets of the folder.
        before: the earlier report.
        earlier: its valid lanes.
    """
    again = {(lane.target, lane.model, lane.runtime, lane.device) for lane in own.lanes}
    earlier = [x for x in earlier if (x.target, x.model, x.runtime, x.device) not in again]
    if before is None or not earlier:
        return own
    return each_run_once(merge([of_lanes(before, earlier, own.targets), own], ["the earlier report", "the new"]))


def _is_proven(artifact: Artifact, earlier: Sequence[Lane]) -> bool:
    """Return whether earlier lanes cover every output in the CPU runtimes of its format.

    One lane is not enough: other lanes may be missing, as after `parity --runtime`, or have looser limits.
    """
    measured = {(lane.target, lane.model, lane.output, lane.runtime, lane.device) for lane in earlier}
    return all(
        (str(artifact.target), artifact.model, output, one.runtime.name, one.device) in measured
        for one in default_devices([artifact], all_devices=False)
        for output in artifact.outputs
    )


def proven_alone(staged: StagedExport, measured: Measured, made: Sequence[Made]) -> Measured | None:
    """Return the folder without its refused targets, if the rest passes and includes a new target.

    Each new target is judged together with the kept targets only, because not every refusal names its target. Return
    None if the folder itself is refused (tokens of another checkpoint, for example), if a kept target is refused, or if
    a refused target was to replace a proven one: then the folder stays unchanged.
    """
    new = {one.record.target for one in made}

    def judged_without(targets: set[str]) -> Measured:
        """Return the folder's measurements and verdict without some targets."""
        stay = [item for item in measured.artifacts if str(item.target) not in targets]
        report = _without(measured.report, targets)
        return replace(measured, artifacts=stay, report=report, verdict=staged.judged(report, stay))

    refused = {target for target in new if not judged_without(new - {target}).verdict.passed}
    if refused == new or refused & staged.kept.replaced:
        return None

    proven = judged_without(refused)
    return proven if proven.verdict.passed else None


def move_refused(
    staged: StagedExport, folder: Path, measured: Measured, proven: Measured, made: Sequence[Made]
) -> None:
    """Move the refused models of a staged folder into a separate, empty folder, and write its layout and report.

    Args:
        staged: the folder; the caller must write its manifest again afterwards.
        folder: the empty folder.
        measured: the measurements of all models.
        proven: the measurements of the models that stay.
        made: all models that this export wrote.
    """
    stay = {str(item.target) for item in proven.artifacts}
    refused = [one for one in made if one.record.target not in stay]

    for name in [name for one in refused for name in one.record.files]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (staged.root / name).rename(folder / name)

    write_layout(staged.checkpoint, folder)
    if staged.checkpoint.spec.only_dense:
        shutil.copyfile(staged.root / GOLDEN, folder / GOLDEN)
    write_manifest(folder, staged.checkpoint, [one.record for one in refused], checked=True, weights=())
    write_report(_without(measured.report, stay), folder / REPORT)


def _without(report: ParityReport, targets: set[str]) -> ParityReport:
    """Return the report without some targets."""
    lanes = tuple(lane for lane in report.lanes if lane.target not in targets)
    left = tuple(target for target in report.targets if target not in targets)
    return report.model_copy(update={"lanes": lanes, "targets": left}).sealed()

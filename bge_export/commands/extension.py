"""Extends a bundle with a format or precision: which models, weights and measurements an export keeps from before.

The whole folder is staged again. Kept models are copied, so that a refused folder shares no file with the folder it
failed to replace. Measurements are kept if the bytes that decide the embeddings are unchanged.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bge_export.bundle.foreign import own_files
from bge_export.bundle.integrity import MANIFEST, REPORT, refuse_strangers
from bge_export.bundle.manifest import Model, read_bundle
from bge_export.bundle.origin import weight_names
from bge_export.contracts import Artifact, Checkpoint
from bge_export.errors import ArtifactError, OutputError, ReportError
from bge_export.files.digest import file_sha256
from bge_export.files.spec import SpecRecord
from bge_export.parity.merge import each_run_once, merge, of_lanes
from bge_export.parity.report import Lane, ParityReport, read_report
from bge_export.texts.corpus import Corpus
from bge_export.texts.golden import GOLDEN


@dataclass(frozen=True)
class Kept:
    """Content of an earlier export that the new one keeps.

    Attributes:
        root: the folder of the earlier export.
        models, weights: the models and weight files to keep.
        report: the report on the earlier folder.
        replaced: targets of the earlier folder that are exported again.
        elsewhere: target -> the folder that its model is copied from, for models that another process exported.
    """

    root: Path
    models: tuple[Model, ...] = ()
    weights: tuple[str, ...] = ()
    report: ParityReport | None = None
    replaced: frozenset[str] = frozenset()
    elsewhere: Mapping[str, Path] = field(default_factory=dict)

    def only(self, targets: Collection[str], *, weights: bool) -> "Kept":
        """Return the same without models of other targets, and without weights unless they stay."""
        models = tuple(model for model in self.models if model.target in targets)
        return replace(self, models=models, weights=self.weights if weights else ())

    def joined(self, folder: Path, checkpoint: Checkpoint) -> "Kept":
        """Return the same with the models and measurements of another folder, which replace those of its targets.

        Raises:
            OutputError: the folder is of another checkpoint, or damaged.
        """
        other = kept_from(folder, checkpoint, (), overwrite=False)
        targets = {model.target for model in other.models}
        models = (*(model for model in self.models if model.target not in targets), *other.models)

        return replace(
            self,
            models=models,
            report=_joined_reports(self.report, other.report, sorted(model.target for model in models)),
            replaced=self.replaced | (targets & {model.target for model in self.models}),
            elsewhere={**self.elsewhere, **dict.fromkeys(targets, folder)},
        )

    def carry_models(self, staging: Path, checkpoint: Checkpoint) -> None:
        """Copy the kept models into the new folder, and kept weights from the checkpoint, not the old folder."""
        models = {name: self.elsewhere.get(model.target, self.root) for model in self.models for name in model.files}
        for name, root in (models | dict.fromkeys(self.weights, checkpoint.root)).items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, path)

    def lanes(self, artifacts: Sequence[Artifact], corpus: Corpus, checkpoint: Checkpoint) -> tuple[Lane, ...]:
        """Return the earlier measurements that are still valid for these artifacts and texts.

        Lanes that could not be measured, and whether a user requested a lane, concern only the earlier run: they prove
        nothing about the artifact, and must not refuse the folder whenever it is extended. Lanes that were measured
        against vectors from a file are left out too: nobody knows whose vectors these were.
        """
        report = self.report
        if report is None or report.digest != report.computed_digest:
            return ()
        if (report.checkpoint.digest, report.texts.digest) != (checkpoint.digest, corpus.digest):
            return ()

        # Measurements of an earlier version know no golden texts, and the gate compares them with what a run saw.
        golden = {file_sha256(item.root / GOLDEN) for item in artifacts if (item.root / GOLDEN).is_file()}
        runs = {
            name
            for name, run in report.runs.items()
            if run.reference.kind == "checkpoint" and golden <= {run.files.get(GOLDEN)}
        }

        digests = {(str(item.target), item.model): item.digest for item in artifacts}
        return tuple(
            lane.model_copy(update={"requested": False})
            for lane in report.lanes
            if lane.measured
            and lane.run in runs
            and digests.get((lane.target, lane.model)) == lane.artifact_digest
            and _kinds_hold(lane, corpus)
        )


def kept_from(out: Path, checkpoint: Checkpoint, targets: Sequence[str], *, overwrite: bool) -> Kept:
    """Return the content of the folder at `out` to keep when `targets` are exported into it.

    Raises:
        OutputError: the folder already has one of the targets or comes from another checkpoint, and `overwrite` is
            False; or it holds a file of the user's for which the gate would refuse the new folder.
    """
    if not (out / MANIFEST).is_file():
        return Kept(out)

    _refuse_strangers(out)
    try:
        manifest, _ = read_bundle(out)
    except ArtifactError as error:
        if overwrite:
            return Kept(out)
        raise OutputError(f"{error} Replace all that bge-export wrote there with --overwrite.") from error

    same = manifest.source.digest == checkpoint.digest and manifest.spec == SpecRecord.of(checkpoint.spec)
    present = sorted({model.target for model in manifest.models} & set(targets))
    if not overwrite and (present or not same):
        has = f"has {present[0]} already" if same else f"was made of another checkpoint ({manifest.source.id})"
        raise OutputError(f"{out} {has}. Replace it with --overwrite, or choose another folder with --output.")

    if not same:
        return Kept(out)
    models = tuple(model for model in manifest.models if model.target not in targets)
    weights = tuple(name for name in weight_names(checkpoint) if name in manifest.weights)
    return Kept(out, models, weights, _report(out / REPORT), frozenset(present))


def _refuse_strangers(out: Path) -> None:
    """Raise OutputError for a file that would stay in the new folder, and for which the gate would refuse it."""
    try:
        refuse_strangers(out, own_files(out))
    except ArtifactError as error:
        raise OutputError(f"{error} Or choose another folder with --output.") from error


def _kinds_hold(lane: Lane, corpus: Corpus) -> bool:
    """Return whether a lane's texts are still of the kinds that it was measured with: no digest of texts holds them.

    An everyday text with a language may be of either kind: the tokenizer decides, and the lane's digest holds that.
    """
    kinds = {text.id: text.kind for text in corpus.texts if not text.language or text.kind == "stress"}
    return all(kinds.get(row.id, row.kind) == row.kind for row in lane.rows)


def _joined_reports(
    one: ParityReport | None, other: ParityReport | None, targets: Sequence[str]
) -> ParityReport | None:
    """Return both reports as one on these targets; the lanes of the other replace those of its targets."""
    if one is None or other is None:
        return one or other

    again = {lane.target for lane in other.lanes}
    kept = of_lanes(one, [lane for lane in one.lanes if lane.target not in again], targets)
    new = of_lanes(other, other.lanes, targets)
    return each_run_once(merge([kept, new], ["the report of the folder", "that of the part"])) if kept.lanes else new


def _report(path: Path) -> ParityReport | None:
    try:
        return read_report(path)
    except ReportError:
        return None

"""Adding a format or a precision to a folder that holds others of the same checkpoint.

The folder is made again beside its place: models that stay are copied, so that a refused folder shares no file with the
one that it did not replace, and keeps its measurements where the bytes that decide its embeddings are still the same.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.integrity import MANIFEST, REPORT
from bge_export.bundle.manifest import Model, Spec, read_bundle
from bge_export.contracts import Artifact, Checkpoint
from bge_export.errors import ArtifactError, OutputError, ReportError
from bge_export.parity.report import Lane, ParityReport, read_report
from bge_export.texts.corpus import Corpus


@dataclass(frozen=True)
class Kept:
    """What an earlier export left that the new one keeps.

    Attributes:
        root: the folder.
        models, weights: what is kept.
        report: on the folder as it was.
        replaced: targets that it has and that are exported anew.
    """

    root: Path
    models: tuple[Model, ...] = ()
    weights: tuple[str, ...] = ()
    report: ParityReport | None = None
    replaced: frozenset[str] = frozenset()

    def carry_models(self, staging: Path) -> None:
        """Copy the kept models, and the checkpoint's weights, into the new folder."""
        for name in (*self.weights, *(name for model in self.models for name in model.files)):
            place = staging / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / name, place)

    def lanes(self, artifacts: Iterable[Artifact], corpus: Corpus, checkpoint: Checkpoint) -> tuple[Lane, ...]:
        """Return the earlier measurements that still speak of the artifacts at hand and of these texts.

        What could not be measured, and that somebody once asked for it, concerned that run: it proves nothing of the
        artifact, and must not refuse the folder whenever it is extended.
        """
        report = self.report
        if report is None or report.digest != report.computed_digest:
            return ()
        if (report.checkpoint.digest, report.texts.digest) != (checkpoint.digest, corpus.digest):
            return ()
        digests = {(str(item.target), item.model): item.digest for item in artifacts}
        return tuple(
            lane.model_copy(update={"requested": False})
            for lane in report.lanes
            if lane.measured
            and digests.get((lane.target, lane.model)) == lane.artifact_digest
            and _kinds_hold(lane, corpus)
        )


def kept_from(out: Path, checkpoint: Checkpoint, targets: Sequence[str], *, overwrite: bool) -> Kept:
    """Return what stays of the folder at `out` when `targets` are exported into it.

    Raises:
        OutputError: the folder has one of the targets already, or is of another checkpoint, and may not be overwritten.
    """
    if not (out / MANIFEST).is_file():
        return Kept(out)
    try:
        manifest, _ = read_bundle(out)
    except ArtifactError as error:
        if overwrite:
            return Kept(out)
        raise OutputError(f"{error} Replace all that bge-export wrote there with --overwrite.") from error
    same = manifest.source.digest == checkpoint.digest and manifest.spec == Spec.of(checkpoint.spec)
    present = sorted({model.target for model in manifest.models} & set(targets))
    if not overwrite and (present or not same):
        has = f"has {present[0]} already" if same else f"was made of another checkpoint ({manifest.source.id})"
        raise OutputError(f"{out} {has}. Replace it with --overwrite, or choose another folder with --output.")
    if not same:
        return Kept(out)
    models = tuple(model for model in manifest.models if model.target not in targets)
    return Kept(out, models, tuple(manifest.weights), _report(out / REPORT), frozenset(present))


def _kinds_hold(lane: Lane, corpus: Corpus) -> bool:
    """Return whether a lane's texts are still of the kinds that it was measured with: no digest of texts holds them.

    An everyday text with a language may be of either kind: the tokenizer decides, and the lane's digest holds that.
    """
    kinds = {text.id: text.kind for text in corpus.texts if not text.language or text.kind == "stress"}
    return all(kinds.get(row.id, row.kind) == row.kind for row in lane.rows)


def _report(path: Path) -> ParityReport | None:
    try:
        return read_report(path)
    except ReportError:
        return None

"""Adding a format or a precision to a folder that holds others of the same checkpoint.

The folder is made again beside its place: what stays is linked, not copied, and keeps its measurements where the bytes
that decide its embeddings are still the same.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.contracts import Artifact, Checkpoint
from bge_export.corpus import Corpus
from bge_export.errors import ArtifactError, OutputError, ReportError
from bge_export.manifest import MANIFEST, REPORT, Model, Spec, files_below, read_bundle
from bge_export.parity.report import Lane, ParityReport, read_report


@dataclass(frozen=True)
class Kept:
    """What an earlier export left that the new one keeps."""

    root: Path
    models: tuple[Model, ...] = ()
    weights: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    report: ParityReport | None = None

    def carry_models(self, staging: Path) -> None:
        """Put the kept models into the new folder."""
        self._carry(staging, (*self.weights, *(name for model in self.models for name in model.files)))

    def carry_extras(self, staging: Path) -> None:
        """Put what others added to the folder (a README, say) into the new one; the manifest does not list it."""
        self._carry(staging, self.extras)

    def _carry(self, staging: Path, names: Iterable[str]) -> None:
        for name in names:
            place = staging / name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.root / name, place)
            except OSError:  # a file system without links
                shutil.copyfile(self.root / name, place)

    def lanes(self, artifacts: Iterable[Artifact], corpus: Corpus, checkpoint: Checkpoint) -> tuple[Lane, ...]:
        """Return the earlier measurements that still speak of the artifacts at hand and of these texts."""
        report = self.report
        if report is None or report.digest != report.computed_digest:
            return ()
        if (report.checkpoint.digest, report.texts.digest) != (checkpoint.digest, corpus.digest):
            return ()
        digests = {(str(item.target), item.model): item.digest for item in artifacts}
        return tuple(lane for lane in report.lanes if digests.get((lane.target, lane.model)) == lane.artifact_digest)


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
        raise OutputError(f"{error} Replace the whole folder with --overwrite.") from error
    same = manifest.source.digest == checkpoint.digest and manifest.spec == Spec.of(checkpoint.spec)
    present = sorted({model.target for model in manifest.models} & set(targets))
    if not overwrite and (present or not same):
        has = f"has {present[0]} already" if same else f"was made of another checkpoint ({manifest.source.id})"
        raise OutputError(f"{out} {has}. Replace it with --overwrite, or choose another folder with --output.")
    if not same:
        return Kept(out)
    models = tuple(model for model in manifest.models if model.target not in targets)
    extras = tuple(name for name in files_below(out) if name not in manifest.files)
    return Kept(out, models, tuple(manifest.weights), extras, _report(out / REPORT))


def _report(path: Path) -> ParityReport | None:
    try:
        return read_report(path)
    except ReportError:
        return None

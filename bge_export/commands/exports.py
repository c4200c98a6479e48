"""The export commands: a folder that appears only proven."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bge_export.bundle_files import REPORT
from bge_export.checkpoint import open_checkpoint
from bge_export.commands.made import Made, make, make_finer, only_too_coarse
from bge_export.commands.steps import Proof, default_places, measure_places, read_policy, run_oracle
from bge_export.commands.turns import in_turn
from bge_export.contracts import Artifact, Checkpoint, Exporter, Pooling, Track, untracked
from bge_export.corpus import builtin_corpus
from bge_export.errors import UsageError
from bge_export.extension import Kept, kept_from
from bge_export.layout import write_layout
from bge_export.manifest import read_bundle, write_manifest
from bge_export.output import publish, refused_place, staged
from bge_export.parity.compare import Place
from bge_export.parity.gate import Verdict, judge
from bge_export.parity.merge import merge
from bge_export.parity.policy import ThresholdPolicy
from bge_export.parity.report import Lane, ParityReport, write_report
from bge_export.torch_devices import limit_threads
from bge_export.vectors import ReferenceVectors

DEFAULT_MODEL = "BAAI/bge-small-en"


@dataclass(frozen=True)
class Exported:
    """Where an export was left, and its proof; None where the check was left out."""

    place: Path
    proof: Proof | None


class Addition(Protocol):
    """What a kind of folder has besides models and layout."""

    def places(self) -> Sequence[Place]:
        """Return where its models are measured besides their formats' own runtimes."""

    def write_weights(self, checkpoint: Checkpoint, root: Path) -> Sequence[str]:
        """Put the checkpoint's own weights into the folder, if they belong there; return all that are there."""

    def write_card(
        self, checkpoint: Checkpoint, root: Path, artifacts: Sequence[Artifact], report: ParityReport | None
    ) -> None:
        """Write what people read of a folder that passed; the report is None where nothing was measured."""


@in_turn
def export_model(
    exporter: Exporter,
    model: str = DEFAULT_MODEL,
    out: Path | None = None,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    precisions: Sequence[str] = ("fp32",),
    along: Sequence[str] = (),
    addition: Addition | None = None,
    overwrite: bool = False,
    check: bool = True,
    thresholds: Path | None = None,
    threads: int = 1,
    track: Track = untracked,
) -> Exported:
    """Export a checkpoint and prove what was written; nothing stands at `out` unless it is proven.

    A model that is refused for its rounding alone is made again in the next, more exact form, where its exporter has
    one; the manifest says so.

    Args:
        exporter: a format with its options, such as `find_exporter("onnx")`.
        model: a Hub id or a local folder.
        out: the folder to write; by default the model's own name, here. One that bge-export wrote from the same
            checkpoint is extended.
        revision: the Hub revision.
        pooling: the pooling, for a checkpoint that declares none.
        precisions: which of the exporter's precisions to write.
        along: which of them to write too, unless the folder at `out` holds them already.
        addition: what the folder has besides models and layout.
        overwrite: whether what bge-export wrote there before may be replaced: the same targets, or the whole folder
            where it was made of another checkpoint.
        check: whether parity and gate follow. Without, the manifest says that they were left out.
        thresholds: a file of limits in place of the package's own.
        threads: threads for the export, the oracle and the runtimes.
        track: shows progress.

    Raises:
        UsageError: checkpoint, options or output folder cannot be used.
        MeasurementError: the Hub, the exporter or a runtime failed.
    """
    if unknown := [precision for precision in (*along, *precisions) if precision not in exporter.precisions]:
        raise UsageError(f"{exporter.format} has no precision {unknown[0]!r}: {', '.join(exporter.precisions)}")
    policy = read_policy(thresholds)
    checkpoint = open_checkpoint(model, revision=revision, pooling=pooling)
    out = Path(os.path.normpath(out or checkpoint.source.rpartition("/")[2]))
    targets = [f"{exporter.format}-{precision}" for precision in precisions]
    with staged(out, source=checkpoint.root) as staging:
        kept = kept_from(out, checkpoint, targets, overwrite=overwrite)
        held = {*targets, *(model.target for model in kept.models)}
        precisions = [*(extra for extra in along if f"{exporter.format}-{extra}" not in held), *precisions]
        kept.carry_models(staging)
        write_layout(checkpoint, staging)
        limit_threads(threads)
        made = make(exporter, checkpoint, staging, precisions, track)
        weights = addition.write_weights(checkpoint, staging) if addition else kept.weights
        artifacts = _record(staging, checkpoint, kept, made, weights, checked=check)
        if not check:
            if addition:
                addition.write_card(checkpoint, staging, artifacts, None)
            publish(staging, out)
            return Exported(out, None)
        places = addition.places() if addition else ()
        reference = run_oracle(checkpoint, builtin_corpus(), threads, track)
        report, verdict = _prove_export(staging, artifacts, places, reference, checkpoint, kept, policy, threads, track)
        while coarse := only_too_coarse(made, verdict):
            made = make_finer(made, coarse, track)
            artifacts = _record(staging, checkpoint, kept, made, weights, checked=check)
            report, verdict = _prove_export(
                staging, artifacts, places, reference, checkpoint, kept, policy, threads, track
            )
        write_report(report, staging / REPORT)
        if addition and verdict.passed:
            addition.write_card(checkpoint, staging, artifacts, report)
        place = out if verdict.passed else refused_place(out)
        publish(staging, place)
        return Exported(place, Proof(report, verdict, place / REPORT))


def _record(
    staging: Path, checkpoint: Checkpoint, kept: Kept, made: Sequence[Made], weights: Sequence[str], *, checked: bool
) -> Sequence[Artifact]:
    """Write the manifest of a staged folder and return its artifacts."""
    models = [*kept.models, *(one.record for one in made)]
    write_manifest(staging, checkpoint, models, checked=checked, weights=weights)
    return read_bundle(staging)[1]


def _prove_export(
    staging: Path, artifacts: Sequence[Artifact], places: Sequence[Place], reference: ReferenceVectors,
    checkpoint: Checkpoint, kept: Kept, policy: ThresholdPolicy, threads: int, track: Track,
) -> tuple[ParityReport, Verdict]:  # fmt: skip
    """Measure what is new in a staged folder, add what is known of the rest, and judge the whole."""
    corpus = builtin_corpus()
    earlier = kept.lanes(artifacts, corpus, checkpoint)
    new = [item for item in artifacts if not _is_proven(item, earlier)]
    own = default_places(new, all_devices=False)
    report = measure_places(staging, new, [*own, *places], corpus, reference, threads, track)
    again = {(lane.target, lane.model, lane.runtime, lane.device) for lane in report.lanes}
    earlier = tuple(x for x in earlier if (x.target, x.model, x.runtime, x.device) not in again)
    if kept.report is not None and earlier:
        targets = {"targets": tuple(sorted({str(item.target) for item in artifacts}))}
        known_report = kept.report.model_copy(update={"lanes": earlier, "requested": (), **targets}).sealed()
        report = merge([known_report, report.model_copy(update=targets).sealed()], ["the earlier report", "the new"])
    return report, judge(report, policy, corpus, artifacts=artifacts, checkpoint=checkpoint.digest)


def _is_proven(artifact: Artifact, earlier: Sequence[Lane]) -> bool:
    """Return whether earlier lanes measured every output wherever an export measures it.

    One lane is not enough: the others may have been left out, as `parity --runtime` does, or be looser ones.
    """
    measured = {(lane.target, lane.model, lane.output, lane.runtime, lane.device) for lane in earlier}
    return all(
        (str(artifact.target), artifact.model, output, place.runtime.name, place.device) in measured
        for place in default_places([artifact], all_devices=False)
        for output in artifact.outputs
    )

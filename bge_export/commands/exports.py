"""The export commands: a folder that appears only with what is proven."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bge_export.bundle.integrity import LIMITS, REPORT
from bge_export.bundle.layout import write_layout
from bge_export.bundle.staging import publish, refused_place, refused_staging, staged
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.checkpoint.torch_devices import limit_threads
from bge_export.commands.attempts import Made, make, make_finer, only_too_coarse
from bge_export.commands.extension import kept_from
from bge_export.commands.measuring import Proof, read_policy, run_oracle
from bge_export.commands.proving import Measured, StagedExport, move_refused, prove, proven_alone
from bge_export.commands.turns import in_turn
from bge_export.contracts import Artifact, Checkpoint, Exporter, Pooling, Track, untracked
from bge_export.errors import UsageError
from bge_export.parity.gate.acceptance import accepting, as_toml, rounding_alone
from bge_export.parity.measure.compare import Place
from bge_export.parity.report import ParityReport, write_report
from bge_export.texts.corpus import Corpus, builtin_corpus

DEFAULT_MODEL = "BAAI/bge-small-en"


@dataclass(frozen=True)
class Exported:
    """Where an export was left.

    Attributes:
        place: the folder of what is proven; of what is refused where nothing is.
        proof: the report on all targets and the verdict; None where the check was left out.
        refused: the folder of refused targets; None where there are none.
        accepting: a file of limits, in that folder, under which targets pass that nothing but their rounding refuses;
            None where there are none.
    """

    place: Path
    proof: Proof | None
    refused: Path | None = None
    accepting: Path | None = None


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

    A model that is refused for its rounding alone is made again in its most exact variant, where its exporter has one;
    the manifest says so. Refused targets are left in `OUT.refused` and take no proven one with them.

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
        places = addition.places() if addition else ()
        export = StagedExport(staging, checkpoint, kept, weights, places, policy)
        artifacts = export.record(made, checked=check)
        if not check:
            if addition:
                addition.write_card(checkpoint, staging, artifacts, None)
            publish(staging, out)
            return Exported(out, None)

        corpus = builtin_corpus()
        reference = run_oracle(checkpoint, corpus, threads, track)
        measured = prove(export, artifacts, corpus, reference, threads, track)
        while coarse := only_too_coarse(made, measured.verdict):
            made = make_finer(made, coarse, track)
            artifacts = export.record(made, checked=check)
            measured = prove(export, artifacts, corpus, reference, threads, track, measured)
        return _published(export, out, made, measured, corpus, addition)


def _published(
    export: StagedExport,
    out: Path,
    made: Sequence[Made],
    measured: Measured,
    corpus: Corpus,
    addition: Addition | None,
) -> Exported:
    """Publish what is proven as `out`, and what is refused beside it as `OUT.refused`."""
    proven = measured if measured.verdict.passed else proven_alone(export, measured, made, corpus)
    if proven is None:
        write_report(measured.report, export.root / REPORT)
        limits = _write_accepting(export, measured, export.root)
        place = refused_place(out)
        publish(export.root, place)
        proof = Proof(measured.report, measured.verdict, place / REPORT)
        return Exported(place, proof, place, place / limits if limits else None)

    aside, refused, limits = None, None, None
    if proven is not measured:
        aside, refused = refused_staging(out), refused_place(out)
        move_refused(export, aside, measured, proven, made)
        limits = _write_accepting(export, measured, aside)
        stay = {str(item.target) for item in proven.artifacts}
        export.record([one for one in made if one.record.target in stay], checked=True)

    write_report(proven.report, export.root / REPORT)
    if addition:
        addition.write_card(export.checkpoint, export.root, proven.artifacts, proven.report)
    publish(export.root, out)
    if aside is not None and refused is not None:
        publish(aside, refused)
    proof = Proof(measured.report, measured.verdict, out / REPORT)
    return Exported(out, proof, refused, refused / limits if refused and limits else None)


def _write_accepting(export: StagedExport, measured: Measured, folder: Path) -> str | None:
    """Write limits under which refused targets would pass, if rounding alone refuses some; return the file's name."""
    targets = rounding_alone(measured.verdict)
    if not targets:
        return None
    loosened = accepting(export.policy, measured.report, targets)
    heading = f"The limits that were given, lowered for {', '.join(targets)} to what was measured of them."
    (folder / LIMITS).write_text(as_toml(loosened, heading), "utf-8")
    return LIMITS

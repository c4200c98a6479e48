"""The export command: writes a bundle, proves its parity, and publishes only the targets that pass the gate."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bge_export.bundle.integrity import LIMITS, REPORT
from bge_export.bundle.layout import write_layout
from bge_export.bundle.staging import publish, refused_folder, refused_staging, staged
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.checkpoint.torch_devices import limit_threads
from bge_export.commands.attempts import Made, made_again, make
from bge_export.commands.extension import kept_from
from bge_export.commands.measuring import Proof, read_policy, run_oracle
from bge_export.commands.proving import Measured, StagedExport, move_refused, prove, proven_alone
from bge_export.commands.turns import in_turn
from bge_export.contracts import Artifact, Checkpoint, Exporter, Pooling
from bge_export.errors import UsageError
from bge_export.parity.gate.acceptance import accepting, as_toml, rounding_alone
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport, write_report
from bge_export.texts.corpus import Corpus, builtin_corpus

DEFAULT_MODEL = "BAAI/bge-small-en"


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        folder: the folder of proven targets, or of refused targets if none is proven.
        proof: the report on all targets and the verdict; None if the check was left out.
        refused: the folder of refused targets; None if there are none.
        accepting: a file of limits in that folder, under which targets pass that were refused only for their rounding;
            None if there are no such targets.
    """

    folder: Path
    proof: Proof | None
    refused: Path | None = None
    accepting: Path | None = None


class Addition(Protocol):
    """Additional content of one kind of folder, besides models and layout."""

    def devices(self) -> Sequence[RuntimeDevice]:
        """Return the devices on which the models are measured in addition to their formats' own runtimes."""

    def write_weights(self, checkpoint: Checkpoint, root: Path) -> Sequence[str]:
        """Copy the checkpoint's weights into the folder, if they belong there; return the names of all weight files."""

    def write_card(
        self, checkpoint: Checkpoint, root: Path, artifacts: Sequence[Artifact], report: ParityReport | None
    ) -> None:
        """Write the card of a folder that passed; the report is None if nothing was measured."""


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
) -> Exported:
    """Export a checkpoint and prove the result; only proven targets are published at `out`.

    A model that is refused only for its rounding is exported again in its next more accurate variant, if the exporter
    has one; the manifest records it. Refused targets are left in `OUT.refused`; proven targets are published anyway.

    Args:
        exporter: a format with its options, such as `find_exporter("onnx")`.
        model: a Hub id or a local folder.
        out: the folder to write; by default the model's name, in the current folder. A folder that bge-export wrote
            from the same checkpoint is extended.
        revision: the Hub revision.
        pooling: the pooling, if the checkpoint declares none.
        precisions: the exporter's precisions to write.
        along: precisions to write too, unless the folder at `out` already holds them.
        addition: additional content besides models and layout.
        overwrite: whether earlier output of bge-export may be replaced: the same targets, or the whole folder if it was
            made from another checkpoint.
        check: whether parity and gate follow. If False, the manifest records that they were left out.
        thresholds: a file of limits to use instead of the package's own.
        threads: threads for the export, the oracle and the runtimes.

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

        made = make(exporter, checkpoint, staging, precisions)
        weights = addition.write_weights(checkpoint, staging) if addition else kept.weights
        devices = addition.devices() if addition else ()
        export = StagedExport(staging, checkpoint, kept, weights, devices, policy)
        artifacts = export.record(made, checked=check)

        if not check:
            if addition:
                addition.write_card(checkpoint, staging, artifacts, None)
            publish(staging, out)
            return Exported(out, None)

        corpus = builtin_corpus()
        measurement = Measurement(corpus, run_oracle(checkpoint, corpus, threads), threads)
        measured = prove(export, artifacts, measurement)

        # A model may have several attempts: each pass replaces one model and measures it again.
        while (again := made_again(made, measured.verdict)) is not None:
            made = again
            artifacts = export.record(made, checked=check)
            measured = prove(export, artifacts, measurement, measured)

        return _published(export, out, made, measured, corpus, addition)


def _published(
    export: StagedExport,
    out: Path,
    made: Sequence[Made],
    measured: Measured,
    corpus: Corpus,
    addition: Addition | None,
) -> Exported:
    """Publish the proven targets as `out`, and the refused targets beside it as `OUT.refused`."""
    proven = measured if measured.verdict.passed else proven_alone(export, measured, made, corpus)

    if proven is None:
        write_report(measured.report, export.root / REPORT)
        limits = _write_accepting(export, measured, export.root)
        refused = refused_folder(out)
        publish(export.root, refused)
        proof = Proof(measured.report, measured.verdict, refused / REPORT)
        return Exported(refused, proof, refused, refused / limits if limits else None)

    aside, limits = None, None
    if proven is not measured:
        aside = refused_staging(out)
        move_refused(export, aside, measured, proven, made)
        limits = _write_accepting(export, measured, aside)

        # The proven folder loses these models, so its manifest is written again.
        stay = {str(item.target) for item in proven.artifacts}
        export.record([one for one in made if one.record.target in stay], checked=True)

    write_report(proven.report, export.root / REPORT)
    if addition:
        addition.write_card(export.checkpoint, export.root, proven.artifacts, proven.report)
    publish(export.root, out)
    proof = Proof(measured.report, measured.verdict, out / REPORT)
    if aside is None:
        return Exported(out, proof)

    refused = refused_folder(out)
    publish(aside, refused)
    return Exported(out, proof, refused, refused / limits if limits else None)


def _write_accepting(export: StagedExport, measured: Measured, folder: Path) -> str | None:
    """Write the limits under which targets refused only for rounding would pass; return the file name, None if none."""
    targets = rounding_alone(measured.verdict)
    if not targets:
        return None

    loosened = accepting(export.policy, measured.report, targets)
    heading = f"The limits that were given, lowered for {', '.join(targets)} to what was measured of them."
    (folder / LIMITS).write_text(as_toml(loosened, heading), "utf-8")
    return LIMITS

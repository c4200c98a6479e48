"""Judges a report again from its facts, and joins the reports of several machines."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bge_export.bundle.integrity import CARD, MANIFEST, REPORT, refuse_unknown_output
from bge_export.bundle.manifest import Manifest, read_bundle, read_manifest
from bge_export.bundle.origin import other_files
from bge_export.commands.measuring import (
    Proof,
    read_policy,
    read_texts,
    reference_files,
    refuse_unknown_runtimes,
)
from bge_export.errors import BgeExportError, UsageError
from bge_export.files.single import refuse_path
from bge_export.parity.gate.folder import other_file_failures, other_source_failures
from bge_export.parity.gate.judge import Failure, Verdict, judge
from bge_export.parity.gate.origin import reference_failures
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.merge import merge
from bge_export.parity.report import OWN_REPORT, ParityReport, ReferenceKind, read_report, write_report
from bge_export.parity.show.frontier import read_frontiers
from bge_export.publish.figures import other_figures
from bge_export.texts.corpus import Corpus


def judge_report(
    report_path: Path,
    *,
    texts: Path | None = None,
    column: str | None = None,
    require: Sequence[str] = (),
    require_reference: ReferenceKind | None = None,
    thresholds: Path | None = None,
    bundle: Path | None = None,
    reference: str | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
) -> Proof:
    """Judge a report from its recorded facts, on any machine.

    Args:
        report_path: a `parity.json`.
        texts: the file of texts that the report must be about, if not the package's own.
        column: the column of a `.tsv` or `.csv` file that holds them.
        require: `runtime:device` or `target@runtime:device` that must be measured, else the gate refuses.
        require_reference: the kind of reference that every lane must have been measured against, else the gate refuses.
        thresholds: a file of limits to use instead of the package's own.
        bundle: the bundle that the report must be about, byte for byte; by default the report's folder, if it is one.
        reference: the checkpoint (Hub id or folder), or a `.npz` file that `write_reference` wrote; the bundle's small
            files and weights are compared with it. A checkpoint is run on the golden texts alone, no artifact is.
        revision: the reference's Hub revision.
        allow_pickle: whether its weights may be read from pickles, by a process of their own.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: report or folder cannot be read.
    """
    refuse_unknown_runtimes(require)
    report = read_report(report_path)

    if bundle is None and (report_path.parent / MANIFEST).is_file():
        bundle = report_path.parent

    policy, corpus = read_policy(thresholds), read_texts(texts, column, pairs=report.spec.is_reranker)
    if bundle is None:
        if reference is not None:
            raise UsageError(
                f"{report_path} lies in no folder that bge-export wrote, so --reference has nothing to compare. "
                "Name the folder with --bundle."
            )
        verdict = judge(report, policy, corpus, require=require).joined(reference_failures(report, require_reference))
        return Proof(report, verdict, report_path)

    verdict = _judge_with_folder(report, policy, corpus, require, bundle)
    if reference is not None:
        verdict = verdict.joined(_other_files(bundle, reference, revision, allow_pickle=allow_pickle))
    verdict = verdict.joined(reference_failures(report, require_reference))

    manifest = read_manifest(bundle)
    notes = (
        *_source_notes(manifest, report),
        *(_card_notes(bundle, manifest, report) if report_path.parent == bundle else ()),
    )
    return Proof(report, verdict, report_path, read_frontiers(manifest), notes=notes)


def folder_verdict(folder: Path) -> str:
    """Return in one line the gate's verdict on a folder's report, with the package's own limits and texts."""
    path = folder / REPORT
    if not path.is_file():
        return "none: the folder holds no report"

    try:
        proof = judge_report(path)
    except BgeExportError as error:
        return f"none: {error}"

    found = proof.verdict
    if found.passed and "file" in proof.report.references:
        return "passed, against vectors from a file"
    if found.passed:
        return "passed"
    return f"REFUSED for {len(found.failures)} reason{'s' * (len(found.failures) != 1)}; see: bge-export gate {path}"


def _judge_with_folder(
    report: ParityReport, policy: ThresholdPolicy, corpus: Corpus, require: Sequence[str], folder: Path
) -> Verdict:
    """Return the verdict on a report and on the folder that it is about.

    Weights belong to no artifact, so the report's own digests of them are compared with the folder, too.
    """
    manifest, artifacts = read_bundle(folder)
    verdict = judge(
        report, policy, corpus, require=require, artifacts=artifacts, checkpoint_digest=manifest.source.digest
    )

    names = dict.fromkeys(name for run in report.runs.values() for name in other_files(manifest, run.files))
    verdict = verdict.joined(other_file_failures(names, report.checkpoint.source))
    return verdict.joined(other_source_failures(report, manifest.source.id, manifest.source.revision))


def _other_files(folder: Path, reference: str, revision: str | None, *, allow_pickle: bool) -> Iterator[Failure]:
    """Yield the refusals of small files and weights in a folder that are not those of the reference."""
    manifest = read_manifest(folder)
    names = other_files(manifest, reference_files(folder, reference, revision, allow_pickle=allow_pickle))
    yield from other_file_failures(names, manifest.source.id)


def _source_notes(manifest: Manifest, report: ParityReport) -> tuple[str, ...]:
    """Return a sentence if nothing but the manifest says of which revision on the Hub the checkpoint is."""
    source = manifest.source
    if source.revision is None or report.checkpoint.revision is not None:
        return ()
    return (
        f"It was measured against the local checkpoint {report.checkpoint.source}, {source.digest[:12]}: that this is "
        f"{source.id} at {source.revision[:12]} is the manifest's word alone.",
    )


def _card_notes(folder: Path, manifest: Manifest, report: ParityReport) -> tuple[str, ...]:
    """Return a sentence if the folder's card has other figures than its report; a user reads the card first."""
    names = other_figures(folder, (model.files[0] for model in manifest.models), report)
    if not names:
        return ()
    return (
        f"{folder / CARD} has other figures of {', '.join(names)} than the report: write it again with "
        "bge-export transformersjs --overwrite.",
    )


def merge_reports(
    paths: Sequence[Path],
    out: Path,
    *,
    texts: Path | None = None,
    column: str | None = None,
    require: Sequence[str] = (),
    require_reference: ReferenceKind | None = None,
    thresholds: Path | None = None,
) -> Proof:
    """Join the reports of several machines into one file and judge the result.

    A report inside a bundle must be about that bundle, as in `judge_report`.

    Args:
        paths: two reports or more.
        out: the file to write: a new file or an existing report.
        texts: the file of texts that the reports must be about, if not the package's own.
        column: the column of a `.tsv` or `.csv` file that holds them.
        require: `runtime:device` or `target@runtime:device` that must be measured, else the gate refuses.
        require_reference: the kind of reference that every lane must have been measured against, else the gate refuses.
        thresholds: a file of limits to use instead of the package's own.

    Raises:
        UsageError: an argument cannot be used.
        ReportError: a report cannot be read, was edited, or does not match the others.
        ArtifactError: a report's folder differs from its manifest.
    """
    refuse_path(out, "report", OWN_REPORT)
    refuse_unknown_output(out)
    if out.exists() and any(path.exists() and out.samefile(path) for path in paths):
        raise UsageError(f"{out} is one of the reports to merge, and would be lost. Name another file with --output.")

    refuse_unknown_runtimes(require)
    policy = read_policy(thresholds)

    report = merge([read_report(path) for path in paths], [str(path) for path in paths])
    corpus = read_texts(texts, column, pairs=report.spec.is_reranker)

    folders = dict.fromkeys(path.parent for path in paths if (path.parent / MANIFEST).is_file())
    verdicts = [
        judge(report, policy, corpus, require=require),
        *(_judge_with_folder(report, policy, corpus, require, folder) for folder in folders),
    ]

    write_report(report, out)
    failures = dict.fromkeys(bad for one in verdicts for bad in one.failures)
    verdict = Verdict(tuple(failures)).joined(reference_failures(report, require_reference))

    # The folders hold the same artifacts, byte for byte, but their manifests may record different searches.
    known = {one.target: one for folder in folders for one in read_frontiers(read_manifest(folder))}
    return Proof(report, verdict, out, tuple(known.values()))

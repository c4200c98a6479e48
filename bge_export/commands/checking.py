"""Measures the parity of a folder with its checkpoint, and judges what was measured."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bge_export.bundle.integrity import MANIFEST, REPORT, refuse_unknown_output
from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.opening import as_artifacts
from bge_export.commands.browsers import Browsers, with_browsers
from bge_export.commands.measuring import (
    Proof,
    default_devices,
    measure_folder,
    named_device,
    open_reference,
    read_policy,
    read_texts,
    reference_vectors,
    refuse_unknown_runtimes,
)
from bge_export.commands.turns import in_turn
from bge_export.contracts import Artifact, Checkpoint
from bge_export.errors import UsageError
from bge_export.files.single import refuse_path
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.origin import reference_failures
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.parity.report import OWN_REPORT, ReferenceKind, write_report
from bge_export.parity.show.frontier import read_frontiers


@in_turn
def check_parity(
    folder: Path,
    reference: str,
    *,
    revision: str | None = None,
    texts: Path | None = None,
    column: str | None = None,
    lanes: Sequence[str] = (),
    require: Sequence[str] = (),
    require_reference: ReferenceKind | None = None,
    thresholds: Path | None = None,
    report_path: Path | None = None,
    browsers: Browsers | None = None,
    allow_pickle: bool = False,
    threads: int = 1,
) -> Proof:
    """Measure every artifact of a folder against the reference and judge it.

    Args:
        folder: a folder that bge-export wrote.
        reference: a checkpoint (Hub id or folder), or a `.npz` file that `write_reference` wrote.
        revision: the reference's Hub revision.
        texts: a file of texts to use instead of the package's own.
        column: the column of a `.tsv` or `.csv` file that holds them.
        lanes: `runtime:device`, each of which must run; by default all that this machine can run, and the report says
            why the others cannot.
        require: further `runtime:device` or `target@runtime:device` that must be measured, else the gate refuses.
        require_reference: the kind of reference that every lane must have been measured against, else the gate refuses.
        thresholds: a file of limits to use instead of the package's own.
        report_path: the path of the report: a new file or an existing report. By default `parity.json` in the folder,
            which a report without any measurement does not replace. Required with `texts`.
        allow_pickle: whether the checkpoint's weights may be read from pickles, by a process of their own.
        browsers: settings for serving a page; each browser that opens it is measured too, and `lanes` has no default.
        threads: threads for the oracle and the runtimes.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: something could not be measured.
    """
    proof = report_path or folder / REPORT
    _refuse_report_path(report_path, proof, texts)
    refuse_unknown_runtimes(require)

    policy = read_policy(thresholds)
    manifest, artifacts = read_bundle(folder)
    corpus = read_texts(texts, column, pairs=manifest.spec.is_reranker)
    frontiers = read_frontiers(manifest)
    if browsers is not None and manifest.spec.is_reranker:
        raise UsageError(
            f"{folder} holds a reranker: browsers are given single texts, so rerankers are not measured there yet. "
            "Leave out the browsers."
        )

    devices = _devices(lanes, artifacts, browsers)
    opened = partial(open_reference, reference, revision, manifest, allow_pickle=allow_pickle)
    vectors = reference_vectors(reference, opened, manifest, corpus, threads)
    eager = _eager(reference, opened, devices)

    measure = partial(measure_folder, Measurement(corpus, vectors, threads), folder)
    report = measure((*artifacts, *eager), devices)
    if browsers is not None:
        report = with_browsers(report, artifacts, browsers, measure)

    verdict = judge(
        report, policy, corpus, require=require, artifacts=artifacts, checkpoint_digest=manifest.source.digest
    )
    verdict = verdict.joined(reference_failures(report, require_reference))
    written = report_path is not None or any(lane.measured for lane in report.lanes) or not proof.exists()
    if written:
        write_report(report, proof)

    return Proof(report, verdict, proof, frontiers, written)


def _is_proof(path: Path) -> bool:
    """Return whether a path is that of the report which lies in a folder of bge-export."""
    return path.name == REPORT and (path.parent / MANIFEST).is_file()


def _refuse_report_path(report_path: Path | None, proof: Path, texts: Path | None) -> None:
    """Raise UsageError if the report that will be written as `proof` would replace what must stay."""
    if texts is not None and (report_path is None or _is_proof(proof)):
        raise UsageError(
            f"{proof} is the proof on the package's own texts; a report on {texts.name} would replace it. "
            f"Say where to write this one: --report {texts.stem}.json"
        )

    if report_path is not None:
        refuse_path(report_path, "report", OWN_REPORT)
        refuse_unknown_output(report_path)


def _devices(lanes: Sequence[str], artifacts: Sequence[Artifact], browsers: Browsers | None) -> list[RuntimeDevice]:
    """Return the runtimes and devices that were named; without names all, unless browsers are measured instead."""
    if lanes or browsers is not None:
        return [named_device(lane) for lane in lanes]
    return default_devices(artifacts, all_devices=True)


def _eager(reference: str, opened: Callable[[], Checkpoint], devices: Sequence[RuntimeDevice]) -> tuple[Artifact, ...]:
    """Return the checkpoint itself as artifacts, for torch on other devices and in other precisions, if one is asked.

    Raises:
        UsageError: the reference is vectors, which torch cannot run.
    """
    if not any("checkpoint" in one.runtime.formats for one in devices):
        return ()

    if reference.endswith(".npz"):
        raise UsageError("--runtime torch runs the checkpoint itself. Give it as --reference, not its vectors.")

    return as_artifacts(opened())

"""Measuring and judging: parity, its reference vectors, the gate alone, and reports of several machines."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bge_export.checkpoint import as_artifacts, open_checkpoint
from bge_export.commands.browsers import Browsers, with_browsers
from bge_export.commands.steps import (
    Proof,
    Track,
    default_places,
    measure_places,
    read_policy,
    read_texts,
    reference_vectors,
    run_oracle,
    untracked,
)
from bge_export.contracts import Artifact, Pooling
from bge_export.errors import UsageError
from bge_export.manifest import MANIFEST, REPORT, read_bundle
from bge_export.parity.compare import Place
from bge_export.parity.gate import judge
from bge_export.parity.merge import merge
from bge_export.parity.report import read_report, write_report
from bge_export.runtimes import find_runtime
from bge_export.vectors import ReferenceVectors


def check_parity(
    folder: Path,
    reference: str,
    *,
    revision: str | None = None,
    texts: Path | None = None,
    column: str | None = None,
    lanes: Sequence[str] = (),
    require: Sequence[str] = (),
    thresholds: Path | None = None,
    report_path: Path | None = None,
    browsers: Browsers | None = None,
    threads: int = 1,
    track: Track = untracked,
) -> Proof:
    """Measure every artifact of a folder against the reference and judge it.

    Args:
        folder: a folder that bge-export wrote.
        reference: a checkpoint (Hub id or folder), or a `.npz` file that `write_reference` wrote.
        revision: the reference's Hub revision.
        texts: a file of texts in place of the package's own.
        column: the column of a `.tsv` file that holds them.
        lanes: `runtime:device`, each of which must run; by default all that this machine can run, and of the rest the
            report says why not.
        require: further `runtime:device` or `target@runtime:device` without which the verdict is no.
        thresholds: a file of limits in place of the package's own.
        report_path: where to write the report; by default `parity.json` in the folder.
        browsers: whom to serve a page to, each of which is measured too; `lanes` then has no default.
        threads: threads for the oracle and the runtimes.
        track: shows progress.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: something could not be measured.
    """
    policy = read_policy(thresholds)
    corpus = read_texts(texts, column)
    _, artifacts = read_bundle(folder)
    places = [_place(lane) for lane in lanes]
    if not places and browsers is None:
        places = default_places(artifacts, all_devices=True)
    vectors = reference_vectors(reference, revision, corpus, threads, track)
    eager = _eager(reference, revision) if any("checkpoint" in place.runtime.formats for place in places) else ()
    measure = partial(measure_places, corpus=corpus, reference=vectors, threads=threads, track=track)
    report = measure((*artifacts, *eager), places)
    if browsers is not None:
        report = with_browsers(report, artifacts, browsers, measure)
    verdict = judge(report, policy, corpus, require=require, artifacts=artifacts)
    place = report_path or folder / REPORT
    write_report(report, place)
    return Proof(report, verdict, place)


def write_reference(
    model: str,
    out: Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    texts: Path | None = None,
    column: str | None = None,
    threads: int = 1,
    track: Track = untracked,
) -> ReferenceVectors:
    """Write the oracle's vectors to a `.npz` file, which stands in for the checkpoint on other machines.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: the Hub failed or torch is missing.
    """
    if out.suffix != ".npz":
        raise UsageError(f"{out}: reference vectors are written as .npz. Name the file with that suffix.")
    corpus = read_texts(texts, column)
    vectors = run_oracle(open_checkpoint(model, revision=revision, pooling=pooling), corpus, threads, track)
    vectors.write(out)
    return vectors


def judge_report(
    report_path: Path,
    *,
    texts: Path | None = None,
    column: str | None = None,
    require: Sequence[str] = (),
    thresholds: Path | None = None,
    bundle: Path | None = None,
) -> Proof:
    """Judge a report from its facts alone, on any machine.

    Args:
        report_path: a `parity.json`.
        texts: the file of texts it must be about, if not the package's own.
        column: the column of a `.tsv` file that holds them.
        require: `runtime:device` or `target@runtime:device` without which the verdict is no.
        thresholds: a file of limits in place of the package's own.
        bundle: the folder whose bytes it must be about; by default the one the report lies in, if it is one.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: report or folder cannot be read.
    """
    report = read_report(report_path)
    if bundle is None and (report_path.parent / MANIFEST).is_file():
        bundle = report_path.parent
    artifacts = None if bundle is None else read_bundle(bundle)[1]
    verdict = judge(report, read_policy(thresholds), read_texts(texts, column), require=require, artifacts=artifacts)
    return Proof(report, verdict, report_path)


def merge_reports(
    paths: Sequence[Path],
    out: Path,
    *,
    texts: Path | None = None,
    column: str | None = None,
    require: Sequence[str] = (),
    thresholds: Path | None = None,
) -> Proof:
    """Join the reports of several machines into one file and judge the whole.

    Args:
        paths: two reports or more.
        out: the file to write.
        texts: the file of texts they must be about, if not the package's own.
        column: the column of a `.tsv` file that holds them.
        require: `runtime:device` or `target@runtime:device` without which the verdict is no.
        thresholds: a file of limits in place of the package's own.

    Raises:
        UsageError: an argument cannot be used.
        ReportError: a report cannot be read, was edited, or is about something else than the others.
    """
    report = merge([read_report(path) for path in paths], [str(path) for path in paths])
    write_report(report, out)
    return Proof(report, judge(report, read_policy(thresholds), read_texts(texts, column), require=require), out)


def _place(name: str) -> Place:
    runtime, colon, device = name.partition(":")
    if not colon or not device:
        raise UsageError(f"{name!r} is no lane. Write it as runtime:device, for example onnxruntime:cpu")
    return Place(find_runtime(runtime), device, requested=True)


def _eager(reference: str, revision: str | None) -> tuple[Artifact, ...]:
    """Return the checkpoint as artifacts of its own, for torch on other devices and in other precisions."""
    if reference.endswith(".npz"):
        raise UsageError("--runtime torch runs the checkpoint itself. Give it as --reference, not its vectors.")
    return as_artifacts(open_checkpoint(reference, revision=revision))

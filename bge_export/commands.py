"""What each command of the command line does, as a Python function: stages composed, nothing printed.

export_model     checkpoint -> layout + models + manifest, staged -> parity -> gate -> OUT, or OUT.refused
check_parity     folder x reference x texts x lanes -> report -> verdict
write_reference  checkpoint x texts -> vectors
judge_report     report -> verdict
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bge_export.bisect import Drift, artifact_at, find_drift
from bge_export.checkpoint import as_artifacts, open_checkpoint
from bge_export.contracts import Artifact, Checkpoint, ExportedModel, Exporter, Pooling
from bge_export.corpus import Corpus, builtin_corpus, load_corpus
from bge_export.errors import MeasurementError, UsageError
from bge_export.evaluate import PairScore, read_pairs, score_pairs
from bge_export.extension import Kept, kept_from
from bge_export.fixtures import fixtures_folder
from bge_export.layout import write_layout
from bge_export.manifest import MANIFEST, REPORT, Model, read_bundle, write_manifest
from bge_export.output import publish, refused_place, staged
from bge_export.parity.compare import Place, compare, measurement_steps
from bge_export.parity.gate import Verdict, judge
from bge_export.parity.merge import merge
from bge_export.parity.policy import ThresholdPolicy
from bge_export.parity.report import ParityReport, read_report, write_report
from bge_export.reference import embed_texts
from bge_export.runtimes import find_runtime, runtime_names
from bge_export.vectors import ReferenceVectors

DEFAULT_MODEL = "BAAI/bge-small-en"

OWN_RUNTIMES = ("onnxruntime", "openvino", "torchscript")
"""What an export is proven in, where it is installed: `parity` measures the rest."""

Track = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a stage of known length: `with track("embedding", 120) as advance: advance(1)`."""


@contextmanager
def untracked(_name: str, _total: int) -> Any:  # noqa: ANN401 - a generator behind the decorator
    """Show no progress."""
    yield lambda _count: None


@dataclass(frozen=True)
class Proof:
    """A report, the verdict on it, and the folder or file it was written to."""

    report: ParityReport
    verdict: Verdict
    place: Path


@dataclass(frozen=True)
class Exported:
    """Where an export was left, and its proof; None where the check was left out."""

    place: Path
    proof: Proof | None


def export_model(
    exporter: Exporter,
    model: str = DEFAULT_MODEL,
    out: Path | None = None,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    precisions: Sequence[str] = ("fp32",),
    overwrite: bool = False,
    check: bool = True,
    thresholds: Path | None = None,
    threads: int = 1,
    track: Track = untracked,
) -> Exported:
    """Export a checkpoint and prove what was written; nothing stands at `out` unless it is proven.

    Args:
        exporter: a format with its options, such as `find_exporter("onnx")`.
        model: a Hub id or a local folder.
        out: the folder to write; by default the model's own name, here. One that bge-export wrote from the same
            checkpoint is extended.
        revision: the Hub revision.
        pooling: the pooling, for a checkpoint that declares none.
        precisions: which of the exporter's precisions to write.
        overwrite: whether what bge-export wrote there before may be replaced: the same targets, or the whole folder
            where it was made of another checkpoint.
        check: whether parity and gate follow. Without, the manifest says that they were left out.
        thresholds: a file of limits in place of the package's own.
        threads: threads for the oracle and the runtimes.
        track: shows progress.

    Raises:
        UsageError: checkpoint, options or output folder cannot be used.
        MeasurementError: the Hub, the exporter or a runtime failed.
    """
    if unknown := [precision for precision in precisions if precision not in exporter.precisions]:
        raise UsageError(f"{exporter.format} has no precision {unknown[0]!r}: {', '.join(exporter.precisions)}")
    policy = read_policy(thresholds)
    checkpoint = open_checkpoint(model, revision=revision, pooling=pooling)
    out = out or Path(checkpoint.source.rpartition("/")[2])
    targets = [f"{exporter.format}-{precision}" for precision in precisions]
    kept = kept_from(out, checkpoint, targets, overwrite=overwrite)
    with staged(out, source=checkpoint.root) as staging:
        with track(f"exporting {checkpoint.source}", 1) as advance:
            kept.carry_models(staging)
            write_layout(checkpoint, staging)
            records = _records(exporter, exporter.export(checkpoint, staging, precisions))
            write_manifest(staging, checkpoint, [*kept.models, *records], checked=check)
            kept.carry_extras(staging)
            advance(1)
        if not check:
            publish(staging, out)
            return Exported(out, None)
        report, verdict = _prove_export(staging, checkpoint, kept, policy, threads, track)
        write_report(report, staging / REPORT)
        place = out if verdict.passed else refused_place(out)
        publish(staging, place)
        return Exported(place, Proof(report, verdict, place / REPORT))


def _prove_export(
    staging: Path, checkpoint: Checkpoint, kept: Kept, policy: ThresholdPolicy, threads: int, track: Track
) -> tuple[ParityReport, Verdict]:
    """Measure what is new in a staged folder, add what is known of the rest, and judge the whole."""
    corpus = builtin_corpus()
    _, artifacts = read_bundle(staging)
    earlier = kept.lanes(artifacts, corpus, checkpoint)
    known = {(lane.target, lane.model) for lane in earlier}
    new = [item for item in artifacts if (str(item.target), item.model) not in known]
    reference = _oracle(checkpoint, corpus, threads, track)
    report = _measure(new, default_places(new, all_devices=False), corpus, reference, threads, track)
    if kept.report is not None and earlier:
        targets = {"targets": tuple(sorted({str(item.target) for item in artifacts}))}
        known_report = kept.report.model_copy(update={"lanes": earlier, "requested": (), **targets}).sealed()
        report = merge([known_report, report.model_copy(update=targets).sealed()], ["the earlier report", "the new"])
    return report, judge(report, policy, corpus, artifacts=artifacts)


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
        threads: threads for the oracle and the runtimes.
        track: shows progress.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: something could not be measured.
    """
    policy = read_policy(thresholds)
    corpus = read_texts(texts, column)
    _, artifacts = read_bundle(folder)
    places = [_place(lane) for lane in lanes] or default_places(artifacts, all_devices=True)
    vectors = _reference_vectors(reference, revision, corpus, threads, track)
    eager = _eager(reference, revision) if any("checkpoint" in place.runtime.formats for place in places) else ()
    report = _measure((*artifacts, *eager), places, corpus, vectors, threads, track)
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
    vectors = _oracle(open_checkpoint(model, revision=revision, pooling=pooling), corpus, threads, track)
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


def bisect_artifact(
    path: Path,
    reference: str,
    text: str,
    *,
    revision: str | None = None,
    limit: float | None = None,
    thresholds: Path | None = None,
) -> Drift:
    """Compare an artifact with its checkpoint layer by layer, on one text.

    Args:
        path: the artifact's model file.
        reference: the checkpoint, a Hub id or a folder.
        text: the text on which the artifact drifts.
        revision: the checkpoint's Hub revision.
        limit: the smallest cosine of a token's state; by default the target's `min_cosine`.
        thresholds: a file of limits in place of the package's own.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: the artifact's insides cannot be read.
    """
    artifact = artifact_at(path)
    if limit is None:
        limits = read_policy(thresholds).limits_for(str(artifact.target), "", "")
        if limits is None:
            raise UsageError(f"There are no limits for {artifact.target}. Give one with --limit.")
        limit = limits.min_cosine
    return find_drift(artifact, open_checkpoint(reference, revision=revision), text, limit)


def evaluate_pairs(
    folder: Path,
    pairs: Path,
    *,
    runtime: str = "onnxruntime",
    device: str = "cpu",
    threads: int = 1,
    track: Track = untracked,
) -> list[PairScore]:
    """Score every artifact of a folder that `runtime` reads on a file of scored sentence pairs.

    Raises:
        UsageError: an argument cannot be used, or the runtime reads none of the artifacts.
        MeasurementError: an artifact could not be run.
    """
    reader = find_runtime(runtime)
    task = read_pairs(pairs)
    artifacts = [item for item in read_bundle(folder)[1] if item.target.format in reader.formats]
    if not artifacts:
        raise UsageError(f"{folder} holds nothing that {runtime} reads ({', '.join(sorted(reader.formats))}).")
    with track(f"scoring on {task.name}", 2 * len(task.scores) * len(artifacts)) as advance:
        return [
            score for artifact in artifacts for score in score_pairs(artifact, reader, device, threads, task, advance)
        ]


def read_policy(path: Path | None) -> ThresholdPolicy:
    """Read a file of limits, the package's own by default."""
    return ThresholdPolicy.read(path or fixtures_folder() / "thresholds.toml")


def read_texts(path: Path | None, column: str | None) -> Corpus:
    """Read a file of texts, the package's own by default."""
    return builtin_corpus() if path is None else load_corpus(path, column)


def default_places(artifacts: Sequence[Artifact], *, all_devices: bool) -> list[Place]:
    """Return where artifacts are measured when nobody says where: all that this machine has.

    Args:
        artifacts: what is to be measured; runtimes that read none of it are left out.
        all_devices: whether devices that cannot be used are named too, so that the report says why not, and devices
            other than the processor are used. Without, each format's own runtime on the processor: what an export
            proves before it publishes.
    """
    formats = {artifact.target.format for artifact in artifacts}
    runtimes = [runtime for runtime in map(find_runtime, runtime_names()) if runtime.formats & formats]
    if not all_devices:
        runtimes = [runtime for runtime in runtimes if runtime.name in OWN_RUNTIMES]
    return [
        Place(runtime, device, requested=False)
        for runtime in runtimes
        for device, unavailable in runtime.devices().items()
        if all_devices or (unavailable is None and device == "cpu")
    ]


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


def _oracle(checkpoint: Checkpoint, corpus: Corpus, threads: int, track: Track) -> ReferenceVectors:
    with track(f"reference: {checkpoint.source}", len(corpus.texts)) as advance:
        return embed_texts(checkpoint, corpus, threads=threads, advance=advance)


def _reference_vectors(
    reference: str, revision: str | None, corpus: Corpus, threads: int, track: Track
) -> ReferenceVectors:
    if not reference.endswith(".npz"):
        return _oracle(open_checkpoint(reference, revision=revision), corpus, threads, track)
    vectors = ReferenceVectors.read(Path(reference))
    if vectors.texts_digest != corpus.digest:
        raise MeasurementError(
            f"{reference} holds vectors of other texts than {corpus.name}. "
            "Write it again with the same --texts, or give the texts it was written for."
        )
    return vectors


def _measure(
    artifacts: Sequence[Artifact],
    places: Sequence[Place],
    corpus: Corpus,
    reference: ReferenceVectors,
    threads: int,
    track: Track,
) -> ParityReport:
    pairs = sum(item.target.format in place.runtime.formats for item in artifacts for place in places)
    with track("measuring", measurement_steps(corpus) * pairs) as advance:
        return compare(artifacts, places, corpus, reference, threads=threads, advance=advance)


def _records(exporter: Exporter, written: Sequence[ExportedModel]) -> list[Model]:
    """Return the manifest's records of what an exporter wrote."""
    tools = {name: version(name) for name in sorted(("bge-export", *exporter.tools))}
    return [
        Model(
            target=f"{exporter.format}-{model.precision}", files=list(model.files), inputs=list(model.inputs),
            outputs=list(model.outputs), tools=tools, options=dict(exporter.options),
        )
        for model in written
    ]  # fmt: skip

"""Steps that several commands share: reading limits and texts, choosing lanes, running the oracle, and measuring."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.bundle.manifest import Manifest, read_manifest, refuse_other_bytes
from bge_export.bundle.origin import files_of, held_files, other_files
from bge_export.checkpoint.opening import open_wanted
from bge_export.checkpoint.spec import Wanted
from bge_export.contracts import Artifact, Checkpoint
from bge_export.errors import MeasurementError, UsageError
from bge_export.files.digest import file_sha256
from bge_export.formats import find_format
from bge_export.memory import release
from bge_export.oracle.answers import answer_texts
from bge_export.oracle.auto_tokens import other_token_ids
from bge_export.oracle.eager import embed_texts
from bge_export.oracle.golden import golden_of
from bge_export.oracle.score import score_pairs
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.judge import Verdict
from bge_export.parity.gate.lanes import CHECKPOINT
from bge_export.parity.gate.policy import Requirement, ThresholdPolicy
from bge_export.parity.measure.files import known_files
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.parity.show.frontier import Frontier
from bge_export.progress import stage
from bge_export.progress.timings import timed
from bge_export.runtimes import find_runtime, runtime_names
from bge_export.texts.corpus import Corpus, builtin_corpus, load_corpus
from bge_export.texts.fixtures import fixtures_folder

ASKED_FOR = frozenset({"transformersjs"})
"""Runtimes that are measured only if `--runtime` names them: each of the eighteen combinations of version and host
takes a minute or more."""


Oracle = Callable[[Checkpoint, Corpus, int], ReferenceVectors]
"""Returns the vectors that a checkpoint itself gives for texts, with a number of threads."""


@dataclass(frozen=True)
class Proof:
    """A report and the verdict on it.

    Attributes:
        report, verdict: the report and its verdict.
        path: where the report is, or will be.
        frontiers: the int8 searches that the manifests of its folders record.
        written: whether the report was written; a report without any measurement does not replace another one.
        notes: what the user should know besides the verdict, one sentence each.
    """

    report: ParityReport
    verdict: Verdict
    path: Path
    frontiers: tuple[Frontier, ...] = ()
    written: bool = True
    notes: tuple[str, ...] = ()


def read_policy(path: Path | None) -> ThresholdPolicy:
    """Read a file of limits, the package's own by default."""
    if path is None:
        return ThresholdPolicy.read(fixtures_folder() / "thresholds.toml")
    return replace(ThresholdPolicy.read(path), digest=file_sha256(path))


def read_texts(path: Path | None, column: str | None, *, pairs: bool = False) -> Corpus:
    """Read a file of texts, or of pairs for a reranker; the package's own by default."""
    return builtin_corpus(pairs=pairs) if path is None else load_corpus(path, column, pairs=pairs)


def named_device(name: str) -> RuntimeDevice:
    """Return the runtime and device that a user named, such as `onnxruntime:cpu`.

    Raises:
        UsageError: the name is not `runtime:device`, or the runtime is unknown.
    """
    runtime, colon, device = name.partition(":")
    if not colon or not device:
        raise UsageError(f"{name!r} is not a lane. Write it as runtime:device, for example onnxruntime:cpu")
    return RuntimeDevice(find_runtime(runtime), device, requested=True)


def refuse_unknown_runtimes(require: Sequence[str]) -> None:
    """Reject `--require` entries that name an unknown runtime: a misspelt name would look like a missing measurement.

    Raises:
        UsageError: a runtime is unknown, or an entry is not a valid requirement.
    """
    for text in require:
        if (name := Requirement.parse(text).runtime) not in runtime_names():
            raise UsageError(f"{text!r}: there is no {name!r} among the runtimes: {', '.join(runtime_names())}")


def default_devices(artifacts: Sequence[Artifact], *, all_devices: bool) -> list[RuntimeDevice]:
    """Return the runtimes and devices in which artifacts are measured by default.

    Args:
        artifacts: the artifacts to measure; runtimes that read none of them are left out.
        all_devices: True for all devices of all runtimes, including unusable ones, so that the report says why they are
            unusable. False for each format's own runtime on the CPU, which prove an export.
    """
    written = {artifact.target.format for artifact in artifacts}
    names = [name for name in runtime_names() if name not in ASKED_FOR]
    runtimes = [runtime for runtime in map(find_runtime, names) if runtime.formats & written]

    if not all_devices:
        own = {name for format_name in written for name in find_format(format_name).runtimes}
        runtimes = [runtime for runtime in runtimes if runtime.name in own]

    return [
        RuntimeDevice(runtime, device, requested=False)
        for runtime in runtimes
        for device, unavailable in runtime.devices().items()
        if all_devices or (unavailable is None and device == "cpu")
    ]


def run_oracle(checkpoint: Checkpoint, corpus: Corpus, threads: int, *, every_id: bool = True) -> ReferenceVectors:
    """Return the vectors or scores that the checkpoint itself gives, and the files that its folders hold."""
    oracle = _oracle_of(checkpoint)
    vectors = oracle(checkpoint, corpus, threads=threads, every_id=every_id)
    return replace(vectors, files=files_of(checkpoint))


def _oracle_of(checkpoint: Checkpoint) -> Callable[..., ReferenceVectors]:
    """Return the oracle of a checkpoint's heads."""
    if checkpoint.spec.is_reranker:
        return score_pairs
    return embed_texts if checkpoint.spec.only_dense else answer_texts


def reference_vectors(
    reference: str, opened: Callable[[], Checkpoint], manifest: Manifest, corpus: Corpus, threads: int
) -> ReferenceVectors:
    """Return the vectors of the checkpoint that a folder was exported from, or those of a `.npz` file.

    Args:
        reference: the checkpoint, or the file.
        opened: opens the checkpoint (`open_reference`).
        manifest: the folder's manifest.
        corpus: the texts.
        threads: threads of the oracle.

    Raises:
        UsageError: the reference is not the folder's checkpoint, or cannot be used.
        MeasurementError: the file holds vectors of other texts.
    """
    if not reference.endswith(".npz"):
        checkpoint = opened()
        return run_oracle(checkpoint, corpus, threads)

    vectors = ReferenceVectors.read(Path(reference))
    _refuse_other_checkpoint(reference, vectors.checkpoint_digest, manifest)
    if vectors.texts_digest != corpus.digest:
        raise MeasurementError(
            f"{reference} holds vectors of other texts than {corpus.name}. "
            "Write it again with the same --texts, or give the texts it was written for."
        )
    return vectors


def reference_files(
    folder: Path, reference: str, revision: str | None, *, allow_pickle: bool = False
) -> Mapping[str, str]:
    """Return name -> sha256 of the files that a folder must hold; a checkpoint is run on the golden texts alone.

    Raises:
        UsageError: the reference is not the folder's checkpoint, or cannot be used.
        MeasurementError: the Hub failed, or the file cannot be read.
    """
    manifest = read_manifest(folder)
    if not reference.endswith(".npz"):
        checkpoint = open_reference(reference, revision, manifest, allow_pickle=allow_pickle)
        return held_files(folder, files_of(checkpoint), golden_of(checkpoint))

    vectors = ReferenceVectors.read(Path(reference))
    _refuse_other_checkpoint(reference, vectors.checkpoint_digest, manifest)
    return held_files(folder, vectors.files, vectors.golden)


def open_reference(
    reference: str, revision: str | None, manifest: Manifest, *, allow_pickle: bool = False
) -> Checkpoint:
    """Return the checkpoint that a folder was exported from; what it does not declare is as when it was exported.

    Raises:
        UsageError: the reference is not the folder's checkpoint, or cannot be used.
        MeasurementError: the Hub failed.
    """
    source, spec = manifest.source, manifest.spec
    given = spec.inputs.prompts.get("query", "") if source.prompts_from == "given" else None

    wanted = Wanted(
        default_pooling=spec.dense.pooling if spec.only_dense else None,
        query_prefix=given,
        known_as=source.id,
        dim=spec.dense.dim if spec.only_dense else None,
        embedding=spec.only_dense,
        allow_pickle=allow_pickle,
    )
    checkpoint = open_wanted(reference, revision, wanted)
    _refuse_other_checkpoint(reference, checkpoint.digest, manifest)
    _refuse_other_origin(reference, checkpoint, manifest)
    return checkpoint


def _refuse_other_origin(reference: str, checkpoint: Checkpoint, manifest: Manifest) -> None:
    """Raise UsageError if a manifest names other pickles, or another adapter, than those of its checkpoint."""
    source = manifest.source
    for what, stated, own in (
        ("pickles", ", ".join(sorted(source.pickles)), ", ".join(sorted(checkpoint.pickles))),
        ("adapter", source.adapter, checkpoint.adapter),
    ):
        if (stated or "") != (own or ""):
            raise UsageError(
                f"The folder's bge_export.json names as {what} of {source.id}: {stated or 'none'}, and "
                f"{reference} has: {own or 'none'}. Give the checkpoint that was exported, or export again."
            )


def _refuse_other_checkpoint(reference: str, digest: str, manifest: Manifest) -> None:
    """Raise UsageError before measuring: if the texts cannot distinguish two checkpoints, the wrong one would pass."""
    source = manifest.source
    if digest != source.digest:
        raise UsageError(
            f"{reference} is the checkpoint {digest[:12]}; the folder was made of {source.id} {source.digest[:12]}. "
            "Give the checkpoint that was exported (--reference, and --revision for a Hub id), or export again."
        )


def _verify(artifact: Artifact) -> None:
    """Raise ArtifactError if an artifact's files changed; a checkpoint in torch is no file of the folder."""
    if not str(artifact.target).startswith(CHECKPOINT):
        refuse_other_bytes(artifact)


def measure_folder(
    measurement: Measurement, folder: Path, artifacts: Sequence[Artifact], devices: Sequence[RuntimeDevice]
) -> ParityReport:
    """Measure artifacts of `folder` on every device that reads them, and its weights and tokenizer."""
    release()  # memory of earlier stages, so that it does not add to the peak

    reference = measurement.reference
    with timed("comparing small files and tokens"):
        others = other_token_ids(folder, measurement.corpus, reference.token_ids)
        held = held_files(folder, reference.files, reference.golden)
        measurement = replace(measurement, reference=replace(reference, files=held))
        files = other_files(read_manifest(folder), held)

    with timed("reading weights and token tables"):
        facts = known_files(artifacts, measurement.reference.sweep)

    pairs = sum(device.reads(item) for item in artifacts for device in devices)
    unswept = sum(item.digest not in measurement.swept for item in artifacts)

    with stage("measuring", measurement.steps * pairs + measurement.row_steps * unswept):
        return replace(measurement, verify=_verify).report(
            artifacts,
            devices,
            other_token_ids=others,
            other_files=files,
            facts=facts,
        )

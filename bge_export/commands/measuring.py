"""What several commands share: progress, inputs, the oracle, and measuring."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.manifest import Manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.contracts import Artifact, Checkpoint, Track
from bge_export.errors import MeasurementError, UsageError
from bge_export.memory import release
from bge_export.oracle.auto_tokens import other_token_ids
from bge_export.oracle.eager import embed_texts
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.judge import Verdict
from bge_export.parity.gate.policy import Requirement, ThresholdPolicy
from bge_export.parity.measure.compare import Place, compare, measurement_steps
from bge_export.parity.report import ParityReport
from bge_export.parity.show.frontier import Frontier
from bge_export.runtimes import find_runtime, runtime_names
from bge_export.saturation import known_facts
from bge_export.texts.corpus import Corpus, builtin_corpus, load_corpus
from bge_export.texts.fixtures import fixtures_folder

OWN_RUNTIMES = ("onnxruntime", "openvino", "torchscript")
"""What an export is proven in, where it is installed: `parity` measures the rest."""

ASKED_FOR = frozenset({"transformersjs"})
"""What is measured only where `--runtime` names it: each version in each place takes a minute or more, and there are
eighteen of them."""


@dataclass(frozen=True)
class Proof:
    """A report and the verdict on it.

    Attributes:
        report, verdict: both.
        place: the file that the report was written to.
        frontiers: the searches that its folders record.
        written: whether it was; a report without any measurement replaces no other.
    """

    report: ParityReport
    verdict: Verdict
    place: Path
    frontiers: tuple[Frontier, ...] = ()
    written: bool = True


def read_policy(path: Path | None) -> ThresholdPolicy:
    """Read a file of limits, the package's own by default."""
    return ThresholdPolicy.read(path or fixtures_folder() / "thresholds.toml")


def read_texts(path: Path | None, column: str | None) -> Corpus:
    """Read a file of texts, the package's own by default."""
    return builtin_corpus() if path is None else load_corpus(path, column)


def named_place(name: str) -> Place:
    """Return the place that a user named, such as `onnxruntime:cpu`.

    Raises:
        UsageError: it is no runtime and device, or there is no such runtime.
    """
    runtime, colon, device = name.partition(":")
    if not colon or not device:
        raise UsageError(f"{name!r} is no lane. Write it as runtime:device, for example onnxruntime:cpu")
    return Place(find_runtime(runtime), device, requested=True)


def refuse_unknown_runtimes(require: Sequence[str]) -> None:
    """Refuse requirements of runtimes that there are not: a misspelt one would read as one that was not measured.

    Raises:
        UsageError: there is no such runtime, or an entry is no requirement.
    """
    for text in require:
        if (name := Requirement.parse(text).runtime) not in runtime_names():
            raise UsageError(f"{text!r}: there is no {name!r} among the runtimes: {', '.join(runtime_names())}")


def default_places(artifacts: Sequence[Artifact], *, all_devices: bool) -> list[Place]:
    """Return where artifacts are measured when nobody says where: all that this machine has.

    Args:
        artifacts: what is to be measured; runtimes that read none of it are left out.
        all_devices: whether devices that cannot be used are named too, so that the report says why not, and devices
            other than the processor are used. Without, each format's own runtime on the processor: what an export
            proves before it publishes.
    """
    formats = {artifact.target.format for artifact in artifacts}
    names = [name for name in runtime_names() if name not in ASKED_FOR]
    runtimes = [runtime for runtime in map(find_runtime, names) if runtime.formats & formats]
    if not all_devices:
        runtimes = [runtime for runtime in runtimes if runtime.name in OWN_RUNTIMES]
    return [
        Place(runtime, device, requested=False)
        for runtime in runtimes
        for device, unavailable in runtime.devices().items()
        if all_devices or (unavailable is None and device == "cpu")
    ]


def run_oracle(checkpoint: Checkpoint, corpus: Corpus, threads: int, track: Track) -> ReferenceVectors:
    """Run the checkpoint itself over the texts."""
    with track(f"reference: {checkpoint.source}", len(corpus.texts)) as advance:
        return embed_texts(checkpoint, corpus, threads=threads, advance=advance)


def reference_vectors(
    reference: str, revision: str | None, manifest: Manifest, corpus: Corpus, threads: int, track: Track
) -> ReferenceVectors:
    """Return the vectors of the checkpoint that a folder was made of, or those of a `.npz` file.

    Raises:
        UsageError: the reference is another checkpoint than the folder's, or cannot be used.
        MeasurementError: the file is of other texts.
    """
    if not reference.endswith(".npz"):
        checkpoint = open_reference(reference, revision, manifest)
        return run_oracle(checkpoint, corpus, threads, track)
    vectors = ReferenceVectors.read(Path(reference))
    _refuse_other_checkpoint(reference, vectors.checkpoint_digest, manifest)
    if vectors.texts_digest != corpus.digest:
        raise MeasurementError(
            f"{reference} holds vectors of other texts than {corpus.name}. "
            "Write it again with the same --texts, or give the texts it was written for."
        )
    return vectors


def open_reference(reference: str, revision: str | None, manifest: Manifest) -> Checkpoint:
    """Return the checkpoint that a folder was made of, with the folder's pooling where it declares none.

    Raises:
        UsageError: it is another checkpoint, or cannot be used.
        MeasurementError: the Hub failed.
    """
    checkpoint = open_checkpoint(reference, revision=revision, default_pooling=manifest.spec.pooling)
    _refuse_other_checkpoint(reference, checkpoint.digest, manifest)
    return checkpoint


def _refuse_other_checkpoint(reference: str, digest: str, manifest: Manifest) -> None:
    """Raise UsageError before anything is measured: texts that do not tell two checkpoints apart would pass."""
    source = manifest.source
    if digest != source.digest:
        raise UsageError(
            f"{reference} is the checkpoint {digest[:12]}; the folder was made of {source.id} {source.digest[:12]}. "
            "Give the checkpoint that was exported (--reference, and --revision for a Hub id), or export again."
        )


def measure_places(
    folder: Path,
    artifacts: Sequence[Artifact],
    places: Sequence[Place],
    corpus: Corpus,
    reference: ReferenceVectors,
    threads: int,
    track: Track,
) -> ParityReport:
    """Measure every artifact of `folder` at every place, the weights and the tokenizer; return the facts."""
    release()
    others = other_token_ids(folder, corpus, reference.token_ids)
    pairs = sum(place.reads(item) for item in artifacts for place in places)
    with track("measuring", measurement_steps(corpus) * pairs) as advance:
        return compare(
            artifacts, places, corpus, reference, threads=threads, other_token_ids=others,
            pairs=known_facts(artifacts), advance=advance,
        )  # fmt: skip

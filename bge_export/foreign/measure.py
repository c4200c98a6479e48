"""Measures a file that others wrote against a checkpoint: finds its reading, embeds every text, and judges the rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.contracts import Runtime
from bge_export.foreign.beside import Beside, look_beside
from bge_export.foreign.files import ForeignFile
from bge_export.foreign.reading import ReadAs, Reading, find_reading
from bge_export.heads.dense import dense_head
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import Failure, Verdict, failure
from bge_export.parity.measure.files import known_files
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.progress import stage
from bge_export.texts.corpus import Corpus
from bge_export.texts.tokens import TextTokenizer

BY_BATCH = ("int8-dynamic", "uint8")
"""Precisions whose ranges are taken over a batch."""


@dataclass(frozen=True)
class ForeignProof:
    """What was found of one file.

    Attributes:
        file: the file.
        reading: how its vectors are read.
        beside: what its folder says of it.
        report: the rows of each runtime.
        verdict: whether they keep the limits of the file's precision.
        uncovered: what the sweep of token ids left out, one phrase each.
    """

    file: ForeignFile
    reading: Reading
    beside: Beside
    report: ParityReport
    verdict: Verdict
    uncovered: tuple[str, ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return what no measurement tells of the file, one phrase each."""
        by_batch = self.file.artifact.target.precision in BY_BATCH
        return (
            "how and of which checkpoint it was made: no manifest says so, its vectors alone do",
            *self.beside.notes,
            "every runtime and device that is not in the table",
            *self.uncovered,
            *(["which texts share a batch with a text: its vector depends on them"] if by_batch else []),
        )


@dataclass(frozen=True)
class Unmeasured:
    """A file of a folder that could not be measured, by its name there, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Against:
    """What files are measured against.

    Attributes:
        reference: the checkpoint's vectors.
        corpus: the texts.
        tokenizer: the checkpoint's own.
        policy: the limits.
        threads: threads of the runtimes.
    """

    reference: ReferenceVectors
    corpus: Corpus
    tokenizer: TextTokenizer
    policy: ThresholdPolicy
    threads: int


def measure_foreign(file: ForeignFile, devices: Sequence[tuple[Runtime, str]], against: Against) -> ForeignProof:
    """Measure one file; the first runtime that opens it finds the reading.

    Args:
        file: the file.
        devices: runtimes that read its format, each with a device.
        against: the checkpoint's vectors, texts and limits.

    Raises:
        MeasurementError: no runtime opens it, or none of its outputs can be a vector of the checkpoint.
    """
    corpus, reference = against.corpus, against.reference
    runtime, device = devices[0]
    session = runtime.open(file.artifact, device, against.threads)
    try:
        reading = find_reading(file, session, against.tokenizer, corpus, reference)
    finally:
        session.close()

    measured = replace(file.artifact, outputs=(reading.as_output(dense_head(reference.spec).pooling),))
    lanes = [RuntimeDevice(ReadAs(one, file, reading), name, requested=True) for one, name in devices]
    measurement = Measurement(corpus, reference, against.threads, load_tokenizer=lambda _folder, _: against.tokenizer)

    with stage(f"measuring {file.name}", measurement.steps * len(lanes) + measurement.row_steps):
        report = measurement.report([measured], lanes, facts=known_files([measured], reference.sweep))

    beside = look_beside(file.path, corpus, reference)
    judged = judge(report, against.policy, corpus).failures

    # What nobody looked at is said: only of a folder of ours it is a reason, since an export can do better.
    uncovered = tuple(f"{bad.got}; {bad.needed} would be needed" for bad in judged if bad.rule == "coverage")
    verdict = Verdict(tuple(bad for bad in judged if bad.rule != "coverage"))
    verdict = verdict.joined(_found_failures(file.path, reading, beside, reference))
    return ForeignProof(file, reading, beside, report, verdict, uncovered)


def _found_failures(path: Path, reading: Reading, beside: Beside, reference: ReferenceVectors) -> Iterator[Failure]:
    """Yield the refusals that no row shows, because the rows were read as they come nearest."""
    head = dense_head(reference.spec)
    if reading.pooling not in (None, head.pooling):
        got = f"its states agree best with {reading.pooling} pooling"
        yield failure("wrong-pooling", got, f"{head.pooling}, which {reference.source} declares")
    if reading.unit and not head.normalize:
        yield failure("norm", "the graph divides its vectors by their norm", "vectors as the checkpoint gives them")

    for name in beside.other_tokens or ():
        got = f"the tokenizer.json beside {path.name} makes other token ids of it"
        yield failure("token-ids", got, "the checkpoint's own", row=name)

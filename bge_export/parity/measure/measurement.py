"""Measures every artifact, in every runtime and on every device, against one reference directly: drift cannot add up.

An artifact that crashes its runtime is a fact (`failed`), and so is a missing device (`unavailable`): the gate judges
both. Only a runtime that violates the runtime contract ends the measurement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from bge_export.capabilities import SelectiveRuntime
from bge_export.contracts import Artifact, Runtime, TokenBatch
from bge_export.errors import DeviceUnavailable, MissingLibrary, ReportError, RuntimeContractError
from bge_export.files.spec import SpecRecord
from bge_export.heads.dense import dense_head
from bge_export.memory import release
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.measure.batches import plan_batches
from bge_export.parity.measure.embedding import Checked, Embeddings, NativeResult, embed_texts, steps
from bge_export.parity.measure.environment import describe_environment
from bge_export.parity.measure.metrics import seen_pooling
from bge_export.parity.measure.rows import row_facts
from bge_export.parity.measure.scoring import Scores, score_batches, score_rows
from bge_export.parity.measure.sweep import run_sweep, sweep_steps
from bge_export.parity.measure.token_answers import Answers, answer_batches, sparse_rows, vectors_rows
from bge_export.parity.report import (
    SCHEMA,
    CheckpointRecord,
    Lane,
    PairsRecord,
    ParityReport,
    ReferenceRecord,
    RunRecord,
    SweepRecord,
    TableRecord,
    TextsRecord,
)
from bge_export.progress.timings import timed
from bge_export.sweep.packing import text_key
from bge_export.texts.corpus import Corpus
from bge_export.texts.languages import kinds_for
from bge_export.texts.tokens import TextTokenizer, rows_of


class Tokenizer(Protocol):
    """The interface of `tokens.TextTokenizer`."""

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text, unpadded."""

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[int, ...]]:
        """Return the ids of each pair, unpadded."""

    def pad(self, rows: Sequence[Sequence[int]], length: int | None = None) -> TokenBatch:
        """Return [B, S] arrays, padded to the longest row or beyond it to `length`."""

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Return the share of unknown tokens among all tokens of the texts, from 0 to 1."""


LoadTokenizer = Callable[[Path, int], Tokenizer]


@dataclass(frozen=True)
class FileFacts:
    """What was read from the file of one artifact, without running it as a whole; None for what was not looked at.

    Attributes:
        pairs: counts of saturating pairs in its int8 weights.
        operators: the kinds of its operators.
        table: its token table, held to the checkpoint's.
    """

    pairs: PairsRecord | None = None
    operators: tuple[str, ...] | None = None
    table: TableRecord | None = None


@dataclass(frozen=True)
class RuntimeDevice:
    """A runtime and one of its devices, to measure on; `requested` if the user named it."""

    runtime: Runtime
    device: str
    requested: bool

    def reads(self, artifact: Artifact) -> bool:
        """Return whether the runtime can load the artifact on the device."""
        if artifact.target.format not in self.runtime.formats:
            return False

        return not isinstance(self.runtime, SelectiveRuntime) or self.runtime.reads(artifact, self.device)


@dataclass(frozen=True)
class Measurement:
    """Measures artifacts on N texts against the oracle's vectors of the same texts.

    Attributes:
        corpus: the texts.
        reference: the vectors.
        threads: the number of threads that each runtime may use.
        load_tokenizer: folder and longest input -> tokenizer.
        verify: called when a session is open and when it has embedded all texts; raises if the artifact's files are
            not those of its digest. By default nothing is verified.
        swept: digests of artifacts in which an earlier measurement swept every token id; a sample is enough for them.

    Raises:
        ReportError: the reference belongs to other texts, or its fields do not fit together.
    """

    corpus: Corpus
    reference: ReferenceVectors
    threads: int
    load_tokenizer: LoadTokenizer = TextTokenizer.load
    verify: Callable[[Artifact], None] = lambda _: None
    swept: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Reject vectors of other texts: nothing may be measured against them."""
        _refuse_other_reference(self.corpus, self.reference)

    @property
    def steps(self) -> int:
        """Return the progress of one artifact in one runtime on one device; less is counted if it fails."""
        return steps(len(self.corpus.texts)) + sweep_steps(self.reference.sweep, rows=False)

    @property
    def row_steps(self) -> int:
        """Return the progress of sweeping every token id, once for each artifact."""
        return sweep_steps(self.reference.sweep, rows=True) - sweep_steps(self.reference.sweep, rows=False)

    def report(
        self,
        artifacts: Sequence[Artifact],
        devices: Sequence[RuntimeDevice],
        *,
        other_token_ids: Sequence[str] | None = None,
        other_files: Sequence[str] = (),
        facts: Mapping[str, FileFacts] = MappingProxyType({}),
    ) -> ParityReport:
        """Measure every artifact in every runtime and device that can load it; return the sealed report.

        Args:
            artifacts: the artifacts to measure.
            devices: the runtimes and devices to measure on.
            other_token_ids: the result of `auto_tokens` for the folder, stored in the report.
            other_files: files of the folder that are not the checkpoint's, stored in the report.
            facts: artifact digest -> what was read from its file, stored in the report.

        Raises:
            ReportError: an artifact has other dimensions than the reference.
            RuntimeContractError: a runtime did not return exactly one embedding per text.
        """
        corpus, reference = self.corpus, self.reference

        lanes: list[Lane] = []
        for artifact in artifacts:
            known, swept = facts.get(artifact.digest, FileFacts()), artifact.digest in self.swept

            # The bytes are the same everywhere: every id is swept in the first runtime that can run them.
            for device in devices:
                if not device.reads(artifact):
                    continue

                with timed(f"{artifact.target} in {device.runtime.name}:{device.device}"):
                    measured = self.lanes(artifact, device, known, rows=not swept)
                swept = swept or any(lane.measured for lane in measured)
                lanes += measured

        run = RunRecord(
            environment=describe_environment(device.runtime.library for device in devices),
            reference=ReferenceRecord(
                kind=reference.kind,
                versions=dict(reference.versions),
                texts_digest=reference.texts_digest,
                vectors_digest=reference.digest,
                token_rows=reference.sweep.facts.rows,
                token_types=reference.sweep.facts.token_types,
            ),
            other_token_ids=None if other_token_ids is None else tuple(other_token_ids),
            other_files=tuple(other_files),
            files=dict(reference.files),
        )

        return ParityReport(
            schema=SCHEMA,
            checkpoint=CheckpointRecord(
                source=reference.source, revision=reference.revision, digest=reference.checkpoint_digest
            ),
            spec=SpecRecord.of(reference.spec),
            texts=TextsRecord(name=corpus.name, digest=corpus.digest, count=len(corpus.texts)),
            runs={"": run},
            requested=tuple(f"{one.runtime.name}:{one.device}" for one in devices if one.requested),
            targets=tuple(sorted({str(artifact.target) for artifact in artifacts})),
            lanes=tuple(lanes),
            digest="",
        ).sealed()

    def lanes(
        self, artifact: Artifact, device: RuntimeDevice, facts: FileFacts | None = None, *, rows: bool = True
    ) -> list[Lane]:
        """Return one lane for each output of the artifact's graph.

        Args:
            artifact: the artifact to measure, with its tokenizer files.
            device: the runtime that opens it, and the device to run it on.
            facts: what was read from its file, stored in the report.
            rows: whether to sweep every token id, or a sample alone.

        Raises:
            ReportError: the artifact has other dimensions than the reference.
            RuntimeContractError: the runtime did not return exactly one embedding per text.
        """
        corpus, reference = self.corpus, self.reference
        _refuse_other_head(artifact, reference)

        lane = self._lane_of(artifact, device, facts or FileFacts())
        try:
            tokenizer = self.load_tokenizer(artifact.root, artifact.spec.inputs.max_tokens)
            kinds = kinds_for(tokenizer, corpus)
            with timed("opening"):
                session = device.runtime.open(artifact, device.device, self.threads)
        except (DeviceUnavailable, MissingLibrary) as error:
            return [lane(output=output, unavailable=str(error)) for output in artifact.outputs]
        except Exception as error:  # noqa: BLE001 - libraries raise any type; a broken file must be refused
            return [lane(output=output, failed=_reason("cannot be opened", error)) for output in artifact.outputs]

        try:
            checked = Checked(session, artifact, device.runtime.name)
            found = self._run(checked, tokenizer, rows=rows)
        except RuntimeContractError:
            raise
        except Exception as error:  # noqa: BLE001 - a crashed runtime must be a refusal, not a traceback
            return [lane(output=output, failed=_reason("crashed", error)) for output in artifact.outputs]

        measured = []
        for output in artifact.outputs:
            record = partial(lane, output=output, facts=found.facts, sweep=found.sweep[output])
            if reference.spec.is_reranker:
                scores = score_rows(corpus, kinds, found.token_ids, found.scores[output], reference)
                measured.append(record(scores=scores))
                continue

            if found.answers and (kind := reference.spec.head_of(output).kind) != "dense":
                rows_of = sparse_rows if kind == "sparse" else vectors_rows
                facts_of = rows_of(corpus, kinds, found.token_ids, found.answers[output], reference)
                measured.append(record(**{"weights" if kind == "sparse" else "vectors": facts_of}))
                continue

            embeddings = found.answers[output].embeddings() if found.answers else found.embeddings[output]
            rows_of_output = row_facts(corpus, kinds, found.token_ids, embeddings, reference, found.native)
            seen = seen_pooling(embeddings.alone, reference.vectors, text_key(reference.spec))
            measured.append(record(rows=rows_of_output, pooling_seen=seen))
        return measured

    def _run(self, checked: Checked, tokenizer: Tokenizer, *, rows: bool) -> "_Found":
        """Return what one session gives; close it."""
        try:
            self.verify(checked.artifact)  # the session may have opened other bytes than were digested before
            texts = [text.text for text in self.corpus.texts]
            token_ids = rows_of(tokenizer, self.corpus)
            tags = [text.tag for text in self.corpus.texts]
            batches = plan_batches([len(row) for row in token_ids], tags, checked.artifact.spec.inputs.max_tokens)

            embeddings: Mapping[str, Embeddings] = {}
            scores: Mapping[str, Scores] = {}
            answers: Mapping[str, Answers] = {}
            with timed("texts"):
                if self.reference.spec.has_token_heads:
                    answers = answer_batches(checked, token_ids, batches, tokenizer.pad)
                elif self.reference.spec.is_reranker:
                    scores = score_batches(checked, token_ids, batches, tokenizer.pad)
                else:
                    embeddings = embed_texts(checked, token_ids, batches, tokenizer.pad)

            with timed("sweep of token ids"):
                sweep = run_sweep(checked, self.reference.sweep, rows=rows)
            facts = {str(name): str(value) for name, value in checked.session.facts.items()}
            native = None if scores or answers else checked.native_result(texts)

            self.verify(checked.artifact)  # a session may read its file while it runs
            return _Found(token_ids, embeddings, scores, answers, sweep, native, facts)
        finally:
            checked.session.close()
            release()

    def _lane_of(self, artifact: Artifact, device: RuntimeDevice, facts: FileFacts) -> Callable[..., Lane]:
        """Return a function that records one output of an artifact in a runtime: its rows, or why it has none."""
        return partial(
            Lane,
            run="",
            target=str(artifact.target),
            runtime=device.runtime.name,
            device=device.device,
            threads=self.threads,
            model=artifact.model,
            artifact_digest=artifact.digest,
            spec=SpecRecord.of(artifact.spec),
            pairs=facts.pairs,
            operators=facts.operators,
            table=facts.table,
            requested=device.requested,
            facts={},
            unavailable=None,
            failed=None,
            pooling_seen=None,
            sweep=None,
            rows=(),
        )


@dataclass(frozen=True)
class _Found:
    """What one session gave: tokens, and embeddings, scores or answers by output, the sweep, a client's own result."""

    token_ids: Sequence[tuple[int, ...]]
    embeddings: Mapping[str, Embeddings]
    scores: Mapping[str, Scores]
    answers: Mapping[str, Answers]
    sweep: Mapping[str, SweepRecord]
    native: NativeResult | None
    facts: dict[str, str]


def _refuse_other_head(artifact: Artifact, reference: ReferenceVectors) -> None:
    """Raise ReportError unless an artifact gives what the reference holds: vectors of the same width, or scores."""
    if artifact.spec.has_token_heads or reference.spec.has_token_heads:
        if artifact.spec.heads != reference.spec.heads:
            raise ReportError(
                f"{artifact.model} promises other heads than the reference {reference.source}: they cannot be "
                "compared. Give the reference of the checkpoint that was exported."
            )
        return

    if artifact.spec.is_reranker != reference.spec.is_reranker:
        kinds = ["scores pairs" if one.is_reranker else "embeds texts" for one in (artifact.spec, reference.spec)]
        raise ReportError(
            f"{artifact.model} {kinds[0]}, the reference {reference.source} {kinds[1]}: they cannot be compared. "
            "Give the reference of the checkpoint that was exported."
        )
    if artifact.spec.is_reranker:
        return

    given, wanted = dense_head(artifact.spec), dense_head(reference.spec)
    if given.dim != wanted.dim:
        raise ReportError(
            f"{artifact.model} has {given.dim} dimensions, the reference vectors of {reference.source} "
            f"{wanted.dim}: they are of another checkpoint. Make them from the one that was exported."
        )


def _reason(what: str, error: Exception) -> str:
    return f"failed: {what}: {type(error).__name__}: {error}"


def _refuse_other_reference(corpus: Corpus, reference: ReferenceVectors) -> None:
    """Raise ReportError unless the reference vectors belong to these texts, row by row."""
    vectors, advice = f"The reference vectors of {reference.source}", "Make them again, with these texts."
    ids = tuple(text.id for text in corpus.texts)

    if reference.texts_digest != corpus.digest or reference.ids != ids:
        raise ReportError(f"{vectors} are of other texts than {corpus.name}. {advice}")

    try:
        reference.check()
    except ValueError as error:
        raise ReportError(f"{vectors} do not fit together: {error}. {advice}") from error

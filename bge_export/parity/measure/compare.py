"""Compare every artifact, in every runtime and on every device, with one reference directly, so drift cannot add up.

An artifact that crashes its runtime is a fact (`failed`), and so is a missing device (`unavailable`): the gate judges
both. Only a runtime that violates the runtime contract ends the measurement.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bge_export.capabilities import SelectiveRuntime
from bge_export.contracts import Artifact, Runtime, Session, TokenBatch
from bge_export.errors import DeviceUnavailable, MissingLibrary, ReportError, RuntimeContractError
from bge_export.memory import release
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.measure.batches import plan_batches
from bge_export.parity.measure.embedding import Checked, Embeddings, OwnWay, embed_texts, steps
from bge_export.parity.measure.environment import describe_environment
from bge_export.parity.measure.metrics import seen_pooling
from bge_export.parity.measure.rows import row_facts
from bge_export.parity.report import (
    SCHEMA,
    CheckpointRecord,
    Lane,
    PairsRecord,
    ParityReport,
    ReferenceRecord,
    RowParity,
    RunRecord,
    SpecRecord,
    TextsRecord,
)
from bge_export.saturation import PairFacts
from bge_export.texts.corpus import Corpus
from bge_export.texts.languages import kinds_for
from bge_export.texts.tokens import TextTokenizer


class Tokenizer(Protocol):
    """The interface of `tokens.TextTokenizer`."""

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text, unpadded."""

    def pad(self, rows: Sequence[Sequence[int]], length: int | None = None) -> TokenBatch:
        """Return [B, S] arrays, padded to the longest row or beyond it to `length`."""

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Return the share of unknown tokens among all tokens of the texts, from 0 to 1."""


LoadTokenizer = Callable[[Path, int], Tokenizer]


@dataclass(frozen=True)
class Place:
    """A runtime and a device to measure on; `requested` if the user named it."""

    runtime: Runtime
    device: str
    requested: bool

    def reads(self, artifact: Artifact) -> bool:
        """Return whether the runtime can load the artifact on the device."""
        if artifact.target.format not in self.runtime.formats:
            return False

        return not isinstance(self.runtime, SelectiveRuntime) or self.runtime.reads(artifact, self.device)


def measurement_steps(corpus: Corpus) -> int:
    """Return the progress that one complete `measure` reports. A measurement that fails reports less."""
    return steps(len(corpus.texts))


def compare(
    artifacts: Sequence[Artifact],
    places: Sequence[Place],
    corpus: Corpus,
    reference: ReferenceVectors,
    *,
    threads: int,
    other_token_ids: Sequence[str] | None = None,
    pairs: Mapping[str, PairFacts] = MappingProxyType({}),
    advance: Callable[[int], None] = lambda _: None,
    load_tokenizer: LoadTokenizer = TextTokenizer.load,
) -> ParityReport:
    """Measure every artifact in every runtime and device that can load it; return the sealed report.

    Args:
        artifacts: the artifacts to measure.
        places: the runtimes and devices to measure on.
        corpus: N texts.
        reference: the oracle's vectors of the same texts.
        threads: the number of threads that each runtime may use.
        other_token_ids: the result of `auto_tokens` for the folder, stored in the report.
        pairs: artifact digest -> result of `saturation`, stored in the report.
        advance: called with shares of `measurement_steps(corpus)`.
        load_tokenizer: folder and longest input -> tokenizer.

    Raises:
        ReportError: the reference belongs to other texts, or its fields or dimensions do not fit.
        RuntimeContractError: a runtime did not return exactly one embedding per text.
    """
    _refuse_other_reference(corpus, reference)

    lanes = [
        lane
        for artifact in artifacts
        for place in places
        if place.reads(artifact)
        for lane in measure(
            artifact,
            place.runtime,
            place.device,
            threads,
            corpus,
            reference,
            requested=place.requested,
            pairs=pairs.get(artifact.digest),
            advance=advance,
            load_tokenizer=load_tokenizer,
        )
    ]

    run = RunRecord(
        environment=describe_environment(place.runtime.library for place in places),
        reference=ReferenceRecord(
            kind=reference.kind,
            versions=dict(reference.versions),
            texts_digest=reference.texts_digest,
            vectors_digest=_digest(reference.vectors[reference.spec.pooling]),
        ),
        other_token_ids=None if other_token_ids is None else tuple(other_token_ids),
    )

    return ParityReport(
        schema=SCHEMA,
        checkpoint=CheckpointRecord(
            source=reference.source, revision=reference.revision, digest=reference.checkpoint_digest
        ),
        spec=SpecRecord.of(reference.spec),
        texts=TextsRecord(name=corpus.name, digest=corpus.digest, count=len(corpus.texts)),
        runs={"": run},
        requested=tuple(f"{place.runtime.name}:{place.device}" for place in places if place.requested),
        targets=tuple(sorted({str(artifact.target) for artifact in artifacts})),
        lanes=tuple(lanes),
        digest="",
    ).sealed()


def measure(
    artifact: Artifact,
    runtime: Runtime,
    device: str,
    threads: int,
    corpus: Corpus,
    reference: ReferenceVectors,
    *,
    requested: bool,
    pairs: PairFacts | None = None,
    advance: Callable[[int], None] = lambda _: None,
    load_tokenizer: LoadTokenizer = TextTokenizer.load,
) -> list[Lane]:
    """Return one lane for each output of the artifact's graph.

    Args:
        artifact: the artifact to measure, with its tokenizer files.
        runtime: the runtime that opens it.
        device: the device to run it on.
        threads: the number of threads that the runtime may use.
        corpus: N texts.
        reference: the oracle's vectors of the same texts.
        requested: whether the user asked for this runtime and device.
        pairs: counts of saturating pairs in the artifact's int8 weights, stored in the report.
        advance: called with shares of `measurement_steps(corpus)`.
        load_tokenizer: folder and longest input -> tokenizer.

    Raises:
        ReportError: the reference belongs to other texts, or its fields or dimensions do not fit.
        RuntimeContractError: the runtime did not return exactly one embedding per text.
    """
    _refuse_other_reference(corpus, reference)
    if artifact.spec.dim != reference.spec.dim:
        raise ReportError(
            f"{artifact.model} has {artifact.spec.dim} dimensions, the reference vectors of {reference.source} "
            f"{reference.spec.dim}: they are of another checkpoint. Make them from the one that was exported."
        )

    lane = partial(_lane, artifact, runtime, device, threads, requested, pairs)
    try:
        tokenizer = load_tokenizer(artifact.root, artifact.spec.max_tokens)
        kinds = kinds_for(tokenizer, corpus)
        session = runtime.open(artifact, device, threads)
    except (DeviceUnavailable, MissingLibrary) as error:
        return [lane(output, unavailable=str(error)) for output in artifact.outputs]
    except Exception as error:  # noqa: BLE001 - libraries raise any type; a broken file must be refused
        return [lane(output, failed=_reason("cannot be opened", error)) for output in artifact.outputs]

    try:
        token_ids, embeddings, own, facts = _run(session, tokenizer, artifact, runtime, corpus, advance)
    except RuntimeContractError:
        raise
    except Exception as error:  # noqa: BLE001 - a crashed runtime must be a refusal, not a traceback
        return [lane(output, failed=_reason("crashed", error)) for output in artifact.outputs]

    return [
        lane(
            output,
            facts=facts,
            rows=row_facts(corpus, kinds, token_ids, embeddings[output], reference, own),
            pooling_seen=seen_pooling(embeddings[output].alone, reference.vectors, reference.spec.pooling),
        )
        for output in artifact.outputs
    ]


def _run(
    session: Session,
    tokenizer: Tokenizer,
    artifact: Artifact,
    runtime: Runtime,
    corpus: Corpus,
    advance: Callable[[int], None],
) -> tuple[list[tuple[int, ...]], dict[str, Embeddings], OwnWay | None, dict[str, str]]:
    """Return the token ids, the embeddings by output, the native pipeline's result and the facts; close the session."""
    try:
        texts = [text.text for text in corpus.texts]
        token_ids = tokenizer.encode(texts)
        tags = [text.tag for text in corpus.texts]
        batches = plan_batches([len(row) for row in token_ids], tags, artifact.spec.max_tokens)

        checked = Checked(session, artifact, runtime.name)
        embeddings = embed_texts(checked, token_ids, batches, tokenizer.pad, advance)
        facts = {str(name): str(value) for name, value in session.facts.items()}
        return token_ids, embeddings, checked.own_way(texts), facts
    finally:
        session.close()
        release()


def _lane(
    artifact: Artifact,
    runtime: Runtime,
    device: str,
    threads: int,
    requested: bool,
    pairs: PairFacts | None,
    output: str,
    *,
    unavailable: str | None = None,
    failed: str | None = None,
    facts: Mapping[str, str] | None = None,
    pooling_seen: str | None = None,
    rows: tuple[RowParity, ...] = (),
) -> Lane:
    return Lane(
        run="",
        target=str(artifact.target),
        output=output,
        runtime=runtime.name,
        device=device,
        threads=threads,
        model=artifact.model,
        artifact_digest=artifact.digest,
        spec=SpecRecord.of(artifact.spec),
        pairs=None if pairs is None else PairsRecord.of(pairs),
        facts=dict(facts or {}),
        requested=requested,
        unavailable=unavailable,
        failed=failed,
        pooling_seen=pooling_seen,
        rows=rows,
    )


def _reason(what: str, error: Exception) -> str:
    return f"failed: {what}: {type(error).__name__}: {error}"


def _digest(rows: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<f4").tobytes()).hexdigest()


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

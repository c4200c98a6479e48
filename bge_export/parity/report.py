"""The parity report: records of what was measured, and the JSON file that holds them. Only `gate` judges these facts.

JSON has no NaN, so `null` stands for every undefined number; the gate refuses each one that it finds.
"""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from bge_export.errors import ReportError
from bge_export.files.reading import first_fault, reading
from bge_export.files.regular import REPORT_BYTES, read_regular
from bge_export.files.single import written_whole
from bge_export.files.spec import SpecRecord
from bge_export.saturation import PairFacts
from bge_export.texts.corpus import Kind

SCHEMA: Literal["bge_export.parity/1"] = "bge_export.parity/1"
FOREIGN_SCHEMA = "bge_export.foreign/1"
"""Schema of reports on files that others wrote (`foreign.report`), which prove no folder."""

OWN_REPORT = re.compile(rb'\A\s*{\s*"schema"\s*:\s*"bge_export\.parity/')
"""Matches the beginning of a file that `write_report` wrote."""


ReferenceKind = Literal["checkpoint", "file"]
"""Whether the checkpoint itself was run, or its vectors were read from a file."""


class Record(BaseModel):
    """Base of all report records. Validation rejects unknown fields, other types, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)


def _without_empty(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a record's fields, without one that holds nothing: files from before it keep their digest."""
    return {key: value for key, value in fields.items() if key != name or value not in (None, (), [])}


class ClientRow(Record):
    """Result of a client's native pipeline for one text: its own tokenizer and its own embedding call.

    Attributes:
        tokens: the number of tokens from the client's tokenizer.
        tokens_equal: whether the token ids equal the checkpoint's. If not, the vector embeds a different token sequence
            and says nothing about the artifact.
        finite: whether every value of the embedding is finite.
        cosine: the cosine of the embedding with the reference; None if it is undefined.
        norm: the norm of the embedding.
    """

    tokens: int
    tokens_equal: bool
    finite: bool
    cosine: float | None
    norm: float | None


class RowParity(Record):
    """One text in one lane.

    Attributes:
        id: the text's id.
        text: its first characters, unescaped.
        kind: selects the limit if weights are rounded: the text's own kind, or stress if the text is in a language
            that the artifact's tokenizer does not know.
        tokens: the number of tokens from the artifact's tokenizer.
        tokens_equal: whether the token ids equal the checkpoint's.
        finite: whether every value of the embedding is finite.
        cosine: the cosine with the reference; None if it is undefined (a non-finite or a zero row).
        max_abs: the largest absolute difference from the reference.
        norm: the norm of the embedding.
        reference_norm: the norm of the reference vector.
        batch_cosine: batch shape -> cosine between the text embedded alone and the text in a batch of that shape.
        batch_norm: batch shape -> norm of the embedding in that batch (a cosine does not detect a wrong norm).
        nearest: the id of the text whose reference vector is nearest.
        nearest_cosine: the cosine with that reference vector.
        client: the result of the client's native pipeline; None if the runtime has no tokenizer.
    """

    id: str
    text: str
    kind: Kind
    tokens: int
    tokens_equal: bool
    finite: bool
    cosine: float | None
    max_abs: float | None
    norm: float | None
    reference_norm: float
    batch_cosine: dict[str, float | None]
    batch_norm: dict[str, float | None]
    nearest: str | None
    nearest_cosine: float | None
    client: ClientRow | None = None


class ScoreRow(Record):
    """One pair in one lane of a reranker. What is compared (differences, orders) follows from the logits.

    Attributes:
        id: the pair's id.
        text: the beginning of both sides, unescaped.
        query: the id of the first pair of the corpus with the same query: those pairs are its candidates.
        kind: the pair's own kind, or stress if it is in a language that the artifact's tokenizer does not know.
        tokens: the number of tokens from the artifact's tokenizer.
        tokens_equal: whether the token ids, and the token types if the model has them, equal the checkpoint's.
        logit: the logit of the pair scored alone; None if it is not finite.
        reference: the checkpoint's logit.
        batch: batch shape -> the logit farthest from `logit` in batches of that shape; None if one is not finite.
    """

    id: str
    text: str
    query: str
    kind: Kind
    tokens: int
    tokens_equal: bool
    logit: float | None
    reference: float
    batch: dict[str, float | None]

    @property
    def difference(self) -> float | None:
        """Return the absolute difference of the logit from the checkpoint's; None if it is not finite."""
        return None if self.logit is None else abs(self.logit - self.reference)

    @property
    def batch_difference(self) -> float | None:
        """Return the largest change of the logit in a batch; None if any is not finite, or there are no batches."""
        if self.logit is None or not self.batch:
            return None
        values = [value for value in self.batch.values() if value is not None]
        return max(abs(value - self.logit) for value in values) if len(values) == len(self.batch) else None


class SparseRow(Record):
    """One text in one lane of token weights.

    Attributes:
        id, text, kind, tokens, tokens_equal: see `RowParity`.
        finite: whether every weight is finite.
        difference: the largest absolute difference of a weight from the checkpoint's; None if it is undefined.
        largest: the checkpoint's largest weight.
        score: the lexical score of the text's weights with the checkpoint's weights of the same text: the sum of the
            products of the weights of the tokens that both keep; None if it is undefined.
        reference_score: the checkpoint's weights with themselves.
        batch: batch shape -> largest difference of a weight, in batches of that shape, from the text alone; None if one
            is undefined.
    """

    id: str
    text: str
    kind: Kind
    tokens: int
    tokens_equal: bool
    finite: bool
    difference: float | None
    largest: float
    score: float | None
    reference_score: float
    batch: dict[str, float | None]

    @property
    def score_error(self) -> float | None:
        """Return the difference of the lexical score as a share of the checkpoint's; None if it is undefined."""
        if self.score is None:
            return None
        if self.reference_score <= 0:
            return 0.0 if self.score == 0 else None
        return abs(self.score / self.reference_score - 1)


class VectorsRow(Record):
    """One text in one lane of token vectors.

    Attributes:
        id, text, kind, tokens, tokens_equal: see `RowParity`.
        finite: whether every value is finite.
        vectors: the number of vectors.
        token_cosine: the smallest cosine of a token's vector with the checkpoint's; None if one is undefined.
        norm_error: the largest difference of a token vector's norm from the checkpoint's, relative to it; None if one
            is undefined. No cosine detects a wrong norm.
        max_sim: MaxSim of the text with the checkpoint's vectors of the corpus's next text, by the number of vectors.
        reference_max_sim: the same of the checkpoint's own vectors.
        batch: batch shape -> smallest cosine of a token's vector, in batches of that shape, with its vector where the
            text is alone; None if one is undefined.
        batch_norm_error: batch shape -> the same of the norms: the largest relative difference.
    """

    id: str
    text: str
    kind: Kind
    tokens: int
    tokens_equal: bool
    finite: bool
    vectors: int
    token_cosine: float | None
    norm_error: float | None
    max_sim: float | None
    reference_max_sim: float
    batch: dict[str, float | None]
    batch_norm_error: dict[str, float | None]

    @property
    def max_sim_error(self) -> float | None:
        """Return the absolute difference of MaxSim from the checkpoint's; None if it is undefined."""
        return None if self.max_sim is None else abs(self.max_sim - self.reference_max_sim)


class PairsRecord(Record):
    """`saturation.PairFacts` on disk: whether the int8 weights of one artifact meet the saturation constraint."""

    weights: int
    pairs: int
    saturating: int
    first: str | None
    first_saturating: int

    @classmethod
    def of(cls, facts: PairFacts) -> "PairsRecord":
        """Return the record of facts."""
        return cls(**asdict(facts))


class SweepPart(Record):
    """The token states of all batches of one kind (`sweep.plan`), or the vectors of an output that has no states.

    Attributes:
        kind: what the batches cover.
        sequences: the number of sequences.
        finite: whether every value is finite where the checkpoint's are, at masked tokens too.
        token_cosine: the smallest cosine of a token's state with the checkpoint's; None if one is undefined.
        token: the id of that token.
        sequence_cosine: the smallest mean of these cosines over a sequence; None if one is undefined.
        length: the length of that sequence.
        difference: in place of both cosines, the largest difference of a reranker's logit from the checkpoint's, or of
            a token's weight; None if one is not finite. Files of embedding models do not name it.
        norm_error: the largest difference of the norm of a state, or of a vector, from the checkpoint's, relative to
            it; None if one is undefined. Logits and token weights have none, and do not name it.
    """

    kind: str
    sequences: int
    finite: bool
    token_cosine: float | None
    token: int
    sequence_cosine: float | None
    length: int
    difference: float | None = None
    norm_error: float | None = None

    @model_serializer(mode="wrap")
    def _named(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields, without the difference and the norm error if there are none."""
        return _without_empty(_without_empty(serialize(self), "difference"), "norm_error")


class SweepRecord(Record):
    """The sweep of token ids in one lane: what it covered, and what it found.

    Attributes:
        ids: the number of different token ids that were run.
        lengths: the number of different lengths.
        longest: the longest sequence.
        positions: the number of positions that were looked at one by one or a few at a time: by the state of the token
            there, or where masks showed no others. 0 where only the sample was run of an output without states.
        token_types: the number of token types.
        sizes: the batch sizes, of every kind of batch.
        undefined: kinds of mask that the checkpoint itself does not define; they were not run.
        states: whether the output holds the states of all tokens. If not, the sentence's vector was compared.
        repeated: whether the same batch gave the same bytes twice.
        parts: one for each kind of batch that was run.
    """

    ids: int
    lengths: int
    longest: int
    positions: int = 0
    token_types: int
    sizes: tuple[int, ...]
    undefined: tuple[str, ...]
    states: bool
    repeated: bool
    parts: tuple[SweepPart, ...]


class TableRecord(Record):
    """The token table of a file, read by running its lookup, and held to the checkpoint's.

    Attributes:
        rows: the number of rows that were read.
        unread: why it could not be read; None if it was.
        worst: the largest error of a row, in units of the error that rounding to the precision's step may make; None
            if it was not read, or is not a number.
        token: the id of that row.
    """

    rows: int
    unread: str | None
    worst: float | None
    token: int


class Lane(Record):
    """One output of one artifact in one runtime on one device.

    Attributes:
        run: the key in `ParityReport.runs` of the run that measured the lane; "" for the report's only run.
        model: the file that was opened, relative to the bundle.
        artifact_digest: the digest of every file that affects the embeddings.
        spec: what the artifact reads and gives.
        pairs: counts of saturating pairs in the artifact's int8 weights; None if they were not inspected.
        operators: the kinds of operators in the artifact's file; None if they were not listed.
        facts: properties that the runtime reports about itself.
        requested: whether the user asked for this runtime and device; otherwise it was found on the machine.
        unavailable: why this machine cannot run the lane; None if it can. An unavailable lane has no rows.
        failed: how the artifact or the runtime failed; None if it did not. A failed lane has no rows.
        pooling_seen: the pooling whose reference vectors agree best with the rows; None if none agrees.
        sweep: the sweep of token ids; None if the lane did not run.
        table: the artifact's token table; None if it was not looked at.
        rows: the facts of each text; none of a reranker.
        scores: the facts of each pair of a reranker. Files of embedding models do not name them.
        weights: the facts of each text of an output that is token weights; `vectors` of one that is vectors of tokens.
            Files of other models do not name them.
    """

    run: str
    target: str
    output: str
    runtime: str
    device: str
    threads: int
    model: str
    artifact_digest: str
    spec: SpecRecord
    pairs: PairsRecord | None
    operators: tuple[str, ...] | None
    facts: dict[str, str]
    requested: bool
    unavailable: str | None
    failed: str | None
    pooling_seen: str | None
    sweep: SweepRecord | None
    table: TableRecord | None
    rows: tuple[RowParity, ...]
    scores: tuple[ScoreRow, ...] = ()
    weights: tuple[SparseRow, ...] = ()
    vectors: tuple[VectorsRow, ...] = ()

    @model_serializer(mode="wrap")
    def _named(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields, without facts of other heads if there are none."""
        fields: dict[str, Any] = serialize(self)
        for name in ("scores", "weights", "vectors"):
            fields = _without_empty(fields, name)
        return fields

    @property
    def facts_of_texts(self) -> "tuple[RowParity | ScoreRow | SparseRow | VectorsRow, ...]":
        """Return the facts of each text or pair."""
        return (*self.rows, *self.scores, *self.weights, *self.vectors)

    @property
    def name(self) -> str:
        """Return the name that refusals use: `onnx-fp32@onnxruntime:cpu last_hidden_state`, plus the run if merged."""
        run = f" (run {self.run[:12]})" if self.run else ""
        return f"{self.target}@{self.runtime}:{self.device} {self.output}{run}"

    @property
    def measured(self) -> bool:
        """Return whether the lane ran and has rows to judge."""
        return self.unavailable is None and self.failed is None and bool(self.facts_of_texts)


class CheckpointRecord(Record):
    """The checkpoint that the oracle ran."""

    source: str
    revision: str | None
    digest: str


class ReferenceRecord(Record):
    """The source of the reference vectors, a digest of the vectors themselves, and what a sweep of ids must cover.

    Attributes:
        kind: whether the checkpoint was run, or its vectors were read from a file.
        versions: the libraries that computed them.
        texts_digest: digest of the texts.
        vectors_digest: digest of the vectors.
        token_rows: rows of the checkpoint's token table.
        token_types: the number of token types; 0 if the model has no such input.
    """

    kind: ReferenceKind
    versions: dict[str, str]
    texts_digest: str
    vectors_digest: str
    token_rows: int
    token_types: int


class RunRecord(Record):
    """One run of the measurement: the machine and its reference vectors.

    Machines that run the checkpoint themselves get vectors that differ in the last bits, so each run has a record.

    Attributes:
        environment: the machine and its libraries.
        reference: the reference vectors.
        other_token_ids: ids of the texts for which transformers' `AutoTokenizer`, loaded from the folder, gives
            token ids that differ from the checkpoint's; None if this run did not check.
        other_files: small files and weights of the folder that are missing, or not those of the checkpoint.
        files: name -> sha256 of the small files that a folder of the checkpoint holds, and of the weights that it may
            hold: what the folder was compared with, and what the gate compares it with again.
    """

    environment: dict[str, str]
    reference: ReferenceRecord
    other_token_ids: tuple[str, ...] | None
    other_files: tuple[str, ...]
    files: dict[str, str]


class TextsRecord(Record):
    """The texts that were embedded."""

    name: str
    digest: str
    count: int


class ParityReport(Record):
    """All measurements of one bundle.

    Attributes:
        runs: the runs that measured the bundle. A report has one run, with the key ""; a merged report has one run for
            each report that it came from, with that report's digest as its key.
        requested: each `runtime:device` that the user asked for, so that the gate notices one that ran nothing.
        targets: every target found in the bundle, measured or not.
        digest: SHA-256 of all other fields, which reveals an edited report. It is not a signature.
    """

    schema_: Literal["bge_export.parity/1"] = Field(alias="schema")
    checkpoint: CheckpointRecord
    spec: SpecRecord
    texts: TextsRecord
    runs: dict[str, RunRecord]
    requested: tuple[str, ...]
    targets: tuple[str, ...]
    lanes: tuple[Lane, ...]
    digest: str

    @property
    def references(self) -> tuple[ReferenceKind, ...]:
        """Return the kinds of reference that its runs were measured against, each once."""
        return tuple(sorted({run.reference.kind for run in self.runs.values()}))

    @property
    def computed_digest(self) -> str:
        """Return the digest computed from the facts, regardless of `digest`."""
        facts = self.model_dump(mode="json", exclude={"digest"})
        canonical = json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def sealed(self) -> "ParityReport":
        """Return a copy of the report whose digest matches its facts."""
        return self.model_copy(update={"digest": self.computed_digest})


def write_report(report: ParityReport, path: Path) -> ParityReport:
    """Seal a report, write it through a temporary sibling, and return it as written.

    Raises:
        ReportError: the file cannot be written.
    """
    sealed = report.sealed()
    text = json.dumps(sealed.model_dump(mode="json"), ensure_ascii=False, indent=1, allow_nan=False)

    try:
        with written_whole(path) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror}. Choose another path.") from error

    return sealed


def read_report(path: Path) -> ParityReport:
    """Read a report back. The digest is not checked here: the gate refuses an edited report.

    Raises:
        ReportError: the file is missing, not JSON or of another schema, or a field is missing, unknown or invalid.
    """
    advice = "Measure again with: bge-export parity FOLDER --reference MODEL"

    try:
        with reading(path, ReportError, advice=advice):
            if path.is_dir():
                raise ReportError(f"{path} is a folder, not a report. Give {path / 'parity.json'}.")
            return ParityReport.model_validate_json(read_regular(path, REPORT_BYTES))
    except ValidationError as error:
        if any(one["loc"] == ("schema",) and one["input"] == FOREIGN_SCHEMA for one in error.errors()):
            raise ReportError(
                f"{path} is about files that bge-export did not write, so it proves no folder and the gate refuses it. "
                "Give the parity.json of a folder that bge-export wrote."
            ) from error
        raise ReportError(f"{path} is not a report of schema {SCHEMA}: {first_fault(error)}. {advice}") from error

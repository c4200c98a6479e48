"""What was measured, as a file: facts only. Whether they are good enough is said nowhere but in `gate`.

JSON knows no NaN, so `null` stands for every number that does not exist; the gate refuses each one it meets.
"""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bge_export.contracts import EmbeddingSpec
from bge_export.errors import ReportError
from bge_export.files.regular import REPORT_BYTES, read_regular
from bge_export.files.single import written_whole
from bge_export.saturation import PairFacts
from bge_export.texts.corpus import Kind

SCHEMA: Literal["bge_export.parity/1"] = "bge_export.parity/1"
OWN_REPORT = re.compile(rb'\A\s*{\s*"schema"\s*:\s*"bge_export\.parity/')
"""How a file begins that `write_report` wrote."""


class Record(BaseModel):
    """A part of the report: unknown fields, other types and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)


class ClientRow(Record):
    """What a client made of a text by itself: its own tokenizer, its own pipeline.

    Attributes:
        tokens: how many tokens its tokenizer made.
        tokens_equal: whether they are the checkpoint's. Where not, its vector is another text's, and no measure of
            the artifact.
        finite: whether every value of its embedding is.
        cosine: of its embedding with the reference; None where there is none.
        norm: of its embedding.
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
        text: its first characters, as they are.
        kind: which limit it has where weights are rounded: the text's own kind, but stress where it is in a language
            that the artifact's tokenizer does not know.
        tokens: how many tokens the artifact's tokenizer made of it.
        tokens_equal: whether they are the checkpoint's.
        finite: whether every value of its embedding is.
        cosine: with the reference; None where there is none (a non-finite or a zero row).
        max_abs: the largest absolute difference from the reference.
        norm: of its embedding.
        reference_norm: of the reference's.
        batch_cosine: shape of a batch -> cosine of the text alone with itself in such a batch.
        batch_norm: shape of a batch -> norm of its embedding there (a cosine does not see a wrong length).
        nearest: id of the text whose reference it is nearest to.
        nearest_cosine: the cosine with that reference.
        client: what the client made of the text by itself; None of a runtime that has no tokenizer of its own.
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


class SpecRecord(Record):
    """`contracts.EmbeddingSpec` on disk."""

    dim: int
    max_tokens: int
    pooling: Literal["cls", "mean", "last"]
    normalize: bool
    query_prefix: str

    @classmethod
    def of(cls, spec: EmbeddingSpec) -> "SpecRecord":
        """Return the record of a spec."""
        return cls(**asdict(spec))


class PairsRecord(Record):
    """`saturation.PairFacts` on disk: how the int8 weights of one artifact keep the pair rule."""

    weights: int
    pairs: int
    broken: int
    first: str | None
    first_broken: int

    @classmethod
    def of(cls, facts: PairFacts) -> "PairsRecord":
        """Return the record of facts."""
        return cls(**asdict(facts))


class Lane(Record):
    """One output of one artifact in one runtime on one device.

    Attributes:
        run: the key in `ParityReport.runs` of the run that measured it; "" for the report's own.
        model: the file that was opened, relative to the bundle.
        artifact_digest: of every file that decides the embeddings.
        spec: what the artifact promises.
        pairs: how the artifact's int8 weights keep the pair rule; None where nobody looked.
        facts: what the runtime says of itself.
        requested: whether the user asked for this runtime and device, rather than it being there.
        unavailable: why this machine cannot run the lane, if so; there are no rows then.
        failed: how the artifact or the runtime broke, if so; there are no rows then.
        pooling_seen: the pooling whose reference the rows agree with best, if any.
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
    facts: dict[str, str]
    requested: bool
    unavailable: str | None
    failed: str | None
    pooling_seen: str | None
    rows: tuple[RowParity, ...]

    @property
    def name(self) -> str:
        """Return the lane as refusals write it: `onnx-fp32@onnxruntime:cpu last_hidden_state`; if merged, its run."""
        run = f" (run {self.run[:12]})" if self.run else ""
        return f"{self.target}@{self.runtime}:{self.device} {self.output}{run}"

    @property
    def measured(self) -> bool:
        """Return whether there is anything to judge."""
        return self.unavailable is None and self.failed is None and bool(self.rows)


class CheckpointRecord(Record):
    """The checkpoint that the oracle ran."""

    source: str
    revision: str | None
    digest: str


class ReferenceRecord(Record):
    """Where the reference vectors came from, and a digest of the vectors themselves."""

    kind: Literal["checkpoint", "file"]
    versions: dict[str, str]
    texts_digest: str
    vectors_digest: str


class RunRecord(Record):
    """One run of the measurement: the machine, and the reference vectors that it had.

    Machines that run the checkpoint themselves get vectors that differ in the last bits: each run keeps its own record.

    Attributes:
        environment: the machine and its libraries.
        reference: the reference vectors.
        other_token_ids: ids of the texts to which transformers' `AutoTokenizer`, loaded from the folder, gives other
            tokens than the checkpoint's; None where this run did not look.
    """

    environment: dict[str, str]
    reference: ReferenceRecord
    other_token_ids: tuple[str, ...] | None


class TextsRecord(Record):
    """The texts that were embedded."""

    name: str
    digest: str
    count: int


class ParityReport(Record):
    """Everything measured of one bundle.

    Attributes:
        runs: where it was measured. A report has one run, whose key is ""; one that `merge` made has several, each
            under the digest of the report that it came from.
        requested: each `runtime:device` that the user asked for; one that ran nothing is seen by that.
        targets: every target found in the bundle, measured or not.
        digest: sha256 of all the rest, so that an edited report is seen. It is no signature.
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
    def computed_digest(self) -> str:
        """Return the digest that belongs to the facts, whatever `digest` says."""
        facts = self.model_dump(mode="json", exclude={"digest"})
        canonical = json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def sealed(self) -> "ParityReport":
        """Return the report with the digest of its facts."""
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
        raise ReportError(f"{path} cannot be written: {error.strerror}. Choose another place.") from error
    return sealed


def read_report(path: Path) -> ParityReport:
    """Read a report back. That its digest fits is not asked here: the gate refuses an edited report.

    Raises:
        ReportError: the file is missing, no JSON, of another schema, or a field is missing, unknown or no such value.
    """
    advice = "Measure again with: bge-export parity FOLDER --reference MODEL"
    try:
        return ParityReport.model_validate_json(read_regular(path, REPORT_BYTES))
    except FileNotFoundError as error:
        raise ReportError(f"{path} does not exist. {advice}") from error
    except IsADirectoryError as error:
        raise ReportError(f"{path} is a folder, not a report. Give {path / 'parity.json'}.") from error
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    except ValidationError as error:
        first = next((e for e in error.errors() if e["loc"] == ("schema",)), error.errors()[0])
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ReportError(f"{path} is no report of schema {SCHEMA}: {field}: {first['msg']}. {advice}") from error

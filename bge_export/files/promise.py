"""A promise as it stands in files: one record for manifests, reports and reference vectors."""

from dataclasses import asdict
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from bge_export.contracts import Pooling, Promise
from bge_export.errors import UsageError
from bge_export.heads import promise_of
from bge_export.heads.dense import NO_EMBEDDINGS


class _Record(BaseModel):
    """Validation rejects unknown fields and other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ReadsRecord(_Record):
    """`contracts.Reads` in a file."""

    max_tokens: int = Field(gt=0)
    prompts: dict[str, str]


class DenseRecord(_Record):
    """`heads.dense.Dense` in a file."""

    dim: int = Field(gt=0)
    pooling: Pooling
    normalize: bool


class ScoreRecord(_Record):
    """`heads.score.Score` in a file."""

    labels: Literal[1]


class HeadsRecord(_Record):
    """The heads of a promise in a file, each under its kind: exactly one today. A file names no head that is absent."""

    dense: DenseRecord | None = None
    score: ScoreRecord | None = None

    @model_validator(mode="after")
    def _one_head(self) -> Self:
        """Raise ValueError unless there is exactly one head."""
        if (self.dense is None) == (self.score is None):
            raise ValueError("exactly one head is needed: dense or score")
        return self

    @model_serializer(mode="wrap")
    def _present(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the heads that are there."""
        fields: dict[str, Any] = serialize(self)
        return {kind: head for kind, head in fields.items() if head is not None}


class PromiseRecord(_Record):
    """`contracts.Promise` in a file."""

    reads: ReadsRecord
    heads: HeadsRecord

    @property
    def of_pairs(self) -> bool:
        """Return whether the model reads pairs of texts."""
        return self.heads.score is not None

    @property
    def dense(self) -> DenseRecord:
        """Return the dense head; ask `of_pairs` first where the model may be a reranker."""
        if self.heads.dense is None:
            raise UsageError(NO_EMBEDDINGS)
        return self.heads.dense

    @classmethod
    def of(cls, promise: Promise) -> "PromiseRecord":
        """Return the record of a promise."""
        return cls.model_validate(asdict(promise))

    def promise(self) -> Promise:
        """Return the promise of a record."""
        return promise_of(self.model_dump())

"""A promise as it stands in files: one record for manifests, reports and reference vectors."""

from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from bge_export.contracts import Pooling, Promise
from bge_export.heads import promise_of


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


class HeadsRecord(_Record):
    """The heads of a promise in a file, each under its kind."""

    dense: DenseRecord


class PromiseRecord(_Record):
    """`contracts.Promise` in a file."""

    reads: ReadsRecord
    heads: HeadsRecord

    @classmethod
    def of(cls, promise: Promise) -> "PromiseRecord":
        """Return the record of a promise."""
        return cls.model_validate(asdict(promise))

    def promise(self) -> Promise:
        """Return the promise of a record."""
        return promise_of(self.model_dump())

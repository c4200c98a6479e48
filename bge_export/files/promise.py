"""The promise of an embedding as it stands in files: one record for manifests, reports and reference vectors."""

from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from bge_export.contracts import EmbeddingSpec, Pooling


class PromiseRecord(BaseModel):
    """`contracts.EmbeddingSpec` in a file. Validation rejects unknown fields and other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dim: int = Field(gt=0)
    max_tokens: int = Field(gt=0)
    pooling: Pooling
    normalize: bool
    query_prefix: str

    @classmethod
    def of(cls, spec: EmbeddingSpec) -> "PromiseRecord":
        """Return the record of a spec."""
        return cls(**asdict(spec))

    def spec(self) -> EmbeddingSpec:
        """Return the spec of a record."""
        return EmbeddingSpec(**self.model_dump())

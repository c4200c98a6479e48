"""A spec as it stands in files: one record for manifests, reports and reference vectors."""

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from bge_export.contracts import OUTPUTS, ModelSpec, Pooling
from bge_export.errors import UsageError
from bge_export.heads import spec_of
from bge_export.heads.dense import without_embeddings
from bge_export.heads.layers import Activation, LayerKind


class _Record(BaseModel):
    """Validation rejects unknown fields and other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputRecord(_Record):
    """`contracts.Reads` in a file."""

    max_tokens: int = Field(gt=0)
    prompts: dict[str, str]


class LayerRecord(_Record):
    """`heads.layers.Layer` in a file."""

    kind: LayerKind
    reads: int = Field(gt=0)
    dim: int = Field(gt=0)
    activation: Activation


class DenseRecord(_Record):
    """`heads.dense.Dense` in a file, which names no layers where none follow pooling."""

    dim: int = Field(gt=0)
    pooling: Pooling
    normalize: bool
    layers: Annotated[tuple[LayerRecord, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _widths(self) -> Self:
        """Raise ValueError unless each layer reads what the one before it gives, and the last gives the vector."""
        read = [layer.reads for layer in self.layers[1:]]
        if self.layers and [layer.dim for layer in self.layers] != [*read, self.dim]:
            raise ValueError("the widths of the layers do not fit together")
        return self

    @model_serializer(mode="wrap")
    def _with_layers(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields, with layers only where there are any."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if name != "layers" or value}


class ScoreRecord(_Record):
    """`heads.score.Score` in a file."""

    labels: Literal[1]


class SparseRecord(_Record):
    """`heads.sparse.Sparse` in a file."""

    per: Literal["token", "vocabulary"]
    vocabulary: int = Field(gt=0)
    unused: Annotated[tuple[int, ...], Field(strict=False)]
    pooling: Literal["max", "sum"]
    log_twice: bool


class MultiVectorRecord(_Record):
    """`heads.multi_vector.MultiVector` in a file."""

    dim: int = Field(gt=0)
    skipped: int = Field(ge=0, le=1)
    normalize: bool


class HeadsRecord(_Record):
    """The heads of a spec in a file, each under its kind. A file names no head that is absent."""

    dense: DenseRecord | None = None
    score: ScoreRecord | None = None
    sparse: SparseRecord | None = None
    multi_vector: MultiVectorRecord | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """Return the kinds of the heads that are there."""
        return frozenset(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _known_heads(self) -> Self:
        """Raise ValueError unless the heads are those of a kind of model."""
        if self.kinds != {"dense"} and self.kinds not in OUTPUTS:
            raise ValueError(f"{' and '.join(sorted(self.kinds)) or 'none'}: no kind of model has these heads")
        return self

    @model_serializer(mode="wrap")
    def _present(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the heads that are there."""
        fields: dict[str, Any] = serialize(self)
        return {kind: head for kind, head in fields.items() if head is not None}


class SpecRecord(_Record):
    """`contracts.ModelSpec` in a file."""

    inputs: InputRecord
    heads: HeadsRecord

    @property
    def is_reranker(self) -> bool:
        """Return whether the model reads pairs of texts."""
        return self.heads.score is not None

    @property
    def only_dense(self) -> bool:
        """Return whether one vector a text is all that the model gives."""
        return self.heads.kinds == {"dense"}

    @property
    def has_token_heads(self) -> bool:
        """Return whether the model gives token weights or vectors of tokens, alone or beside a vector."""
        return not (self.is_reranker or self.only_dense)

    @property
    def dense(self) -> DenseRecord:
        """Return the dense head of a model that gives nothing else; ask `only_dense` first where it may."""
        if self.heads.dense is None or not self.only_dense:
            raise UsageError(without_embeddings(sorted(self.heads.kinds)))
        return self.heads.dense

    @classmethod
    def of(cls, spec: ModelSpec) -> "SpecRecord":
        """Return the record of a spec."""
        return cls.model_validate(asdict(spec))

    def to_spec(self) -> ModelSpec:
        """Return the spec of a record."""
        return spec_of(self.model_dump())

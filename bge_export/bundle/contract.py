"""The contract of a bundle, `embedding.json`: all that a program in any language needs to give the same embeddings.

It is derived from the manifest and the tokenizer alone. A folder whose contract says anything else is refused, however
well it is sealed. The manifest's spec is in turn held to the checkpoint, and so is the tokenizer.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
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

from bge_export.checkpoint.module_files import WEIGHTS
from bge_export.checkpoint.tokenizer_settings import SETTINGS, TOKENIZER
from bge_export.contracts import SENTENCE_EMBEDDING, Pooling
from bge_export.errors import ArtifactError
from bge_export.files.reading import first_fault, reading
from bge_export.files.regular import SETTINGS_BYTES, read_regular
from bge_export.files.spec import SpecRecord
from bge_export.heads.dense import dense_head
from bge_export.heads.layers import Activation, LayerKind, module_folders
from bge_export.texts.golden import GOLDEN, USES
from bge_export.texts.tokens import TextTokenizer

CONTRACT = "embedding.json"
SCHEMA: Literal["bge_export.embedding/1"] = "bge_export.embedding/1"
SCHEMA_FILE = Path(__file__).with_name("embedding.schema.json")
"""The JSON schema of a contract, which is made from `Contract`."""

ADVICE = "Export the folder again."


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Model(_Record):
    """The checkpoint that all files were exported from."""

    id: str
    """Its Hub id, or the name of its folder."""
    revision: str | None
    """The Hub commit; null for a folder."""
    digest: str
    """sha256 over its files."""


class Layer(_Record):
    """One step from a pooled vector to the embedding. Files that give an embedding have taken it already."""

    kind: LayerKind
    """A matrix with an activation, a layer normalisation, a division by the L2 norm, or the first components alone."""
    reads: int = Field(gt=0)
    """The width that it reads."""
    dim: int = Field(gt=0)
    """The width that it gives."""
    activation: Activation
    """What is applied at last, `gelu` in its exact form."""
    file: str | None
    """Its weights in the folder, named as torch's modules name them; null if it has none."""


class Embedding(_Record):
    """How token states become the vector of a text."""

    width: int = Field(gt=0)
    """The number of components of a vector."""
    pooling: Pooling
    """Which token states form it: the first (cls), the last, or all but padding.

    Of all it is the mean, the largest values (max), the sum by the root of their number (mean_sqrt_len), or the mean
    with weights that rise by one from token to token (weightedmean).
    """
    normalize: bool
    """Whether it is divided by its L2 norm at last."""
    layers: list[Layer] = Field(default_factory=list)
    """What lies between pooling and that division, in this order; absent if nothing does."""

    @model_serializer(mode="wrap")
    def _with_layers(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields, with layers only where there are any."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if name != "layers" or value}


class Text(_Record):
    """What precedes a text, and how much of it is read."""

    max_tokens: int = Field(gt=0)
    """The longest input in tokens, with special tokens; longer texts are cut."""
    truncation_side: Literal["right"]
    """The end at which they are cut; the special tokens stay."""
    prompts: dict[Literal["query", "document"], str]
    """What is put before texts of each use, "" for nothing."""


class SpecialToken(_Record):
    """One token by its name and its id."""

    token: str
    id: int


class Tokens(_Record):
    """How a text becomes the model's input."""

    tokenizer: Literal["tokenizer.json"]
    """The file of the tokenizer, for the Hugging Face tokenizers library."""
    sha256: str
    """The digest of that file."""
    before: list[SpecialToken]
    """Special tokens before the tokens of a text, which the tokenizer adds."""
    after: list[SpecialToken]
    """Special tokens after them."""
    padding: SpecialToken
    """What fills a batch; its attention mask is 0."""
    padding_side: Literal["right"]
    """The end at which a batch is filled."""
    token_type_ids: int | None
    """The type that every token has; null if no file takes types."""


class File(_Record):
    """One exported model."""

    target: str
    """Its format and precision."""
    file: str
    """The file that a runtime opens."""
    sha256: dict[str, str]
    """The digest of each of its files."""
    inputs: list[str]
    """The names of its inputs, int64 [texts, tokens]."""
    outputs: dict[str, Literal["token states", "embedding"]]
    """The names of its outputs: states of all tokens, to be pooled; or embeddings [texts, width], ready."""


class Golden(_Record):
    """Texts with token ids and vectors, by which a program is checked."""

    file: Literal["golden.jsonl"]
    sha256: str


class Contract(_Record):
    """All that a program in any language needs to give the same embeddings as the checkpoint."""

    schema_: Literal["bge_export.embedding/1"] = Field(alias="schema")
    """The version of this form."""
    model: Model
    embedding: Embedding
    text: Text
    tokens: Tokens
    files: list[File]
    golden: Golden | None
    """null in a folder that was written without them."""

    def as_bytes(self) -> bytes:
        """Return the content of `embedding.json`."""
        text = json.dumps(self.model_dump(by_alias=True), indent=2, ensure_ascii=False)
        return f"{text}\n".encode()


def contract_of(
    root: Path, model: Model, spec: SpecRecord, files: Sequence[File], digests: Mapping[str, str]
) -> Contract:
    """Return the contract of a folder.

    Args:
        root: the folder, which holds the tokenizer.
        model: the checkpoint.
        spec: what the model reads and gives.
        files: the exported models.
        digests: name -> sha256 of the folder's files.

    Raises:
        ArtifactError: the folder has no tokenizer that can be read.
    """
    inputs = spec.inputs
    if TOKENIZER not in digests:
        raise ArtifactError(f"{root / TOKENIZER} is missing. {ADVICE}")

    known = tuple(digests.get(name, "") for name in (TOKENIZER, SETTINGS, "special_tokens_map.json"))
    before, after, padding = _special_tokens(root, known, inputs.max_tokens)
    typed = any("token_type_ids" in one.inputs for one in files)
    return Contract(
        schema=SCHEMA,
        model=model,
        embedding=_embedding(spec),
        text=Text(
            max_tokens=inputs.max_tokens,
            truncation_side="right",
            prompts={use: inputs.prompts.get(use, "") for use in USES},
        ),
        tokens=Tokens(
            tokenizer=TOKENIZER,
            sha256=digests[TOKENIZER],
            before=list(before),
            after=list(after),
            padding=padding,
            padding_side="right",
            token_type_ids=0 if typed else None,
        ),
        files=list(files),
        golden=Golden(file=GOLDEN, sha256=digests[GOLDEN]) if GOLDEN in digests else None,
    )


def _embedding(spec: SpecRecord) -> Embedding:
    """Return how token states become a vector."""
    head = dense_head(spec.to_spec())

    layers = [
        Layer(
            kind=layer.kind,
            reads=layer.reads,
            dim=layer.dim,
            activation=layer.activation,
            file=f"{folder}/{WEIGHTS}" if layer.weighted else None,
        )
        for layer, folder in zip(head.layers, module_folders(head.layers), strict=True)
    ]

    return Embedding(width=head.dim, pooling=head.pooling, normalize=head.normalize, layers=layers)


def outputs_of(names: Sequence[str]) -> dict[str, Literal["token states", "embedding"]]:
    """Return output -> what it is."""
    return {name: "embedding" if name == SENTENCE_EMBEDDING else "token states" for name in names}


@lru_cache(maxsize=8)
def _special_tokens(
    root: Path,
    digests: tuple[str, ...],  # noqa: ARG001 - a part of the cache's key
    max_tokens: int,
) -> tuple[tuple[SpecialToken, ...], tuple[SpecialToken, ...], SpecialToken]:
    """Return the tokens before and after a text, and the padding token; read once for files of the same digests."""
    tokenizer = TextTokenizer.load(root, max_tokens)
    before, after = tokenizer.around()

    def named(number: int) -> SpecialToken:
        return SpecialToken(token=tokenizer.name(number), id=number)

    return tuple(map(named, before)), tuple(map(named, after)), named(tokenizer.pad_id)


def read_contract(root: Path) -> Contract:
    """Read and validate `embedding.json`.

    Raises:
        ArtifactError: the file is missing, or is not a valid contract.
    """
    path = root / CONTRACT
    try:
        return Contract.model_validate_json(_read(path))
    except ValidationError as error:
        raise ArtifactError(f"{path}: {first_fault(error)}. {ADVICE}") from error


def refuse_other_contract(root: Path, expected: Contract | None) -> None:
    """Raise ArtifactError unless a folder's contract is what its manifest and tokenizer say; None for a reranker's."""
    path = root / CONTRACT
    if expected is None:
        if path.exists():
            raise ArtifactError(f"{path} speaks of embeddings, but the folder is a reranker's. {ADVICE}")
        return

    if _read(path) != expected.as_bytes():
        raise ArtifactError(
            f"{path} says other things than the folder's manifest and tokenizer: whoever follows it would compute "
            f"another embedding. {ADVICE}"
        )


def _read(path: Path) -> bytes:
    with reading(path, ArtifactError, advice=ADVICE, missing=f"{path} is missing. {ADVICE}"):
        return read_regular(path, SETTINGS_BYTES)

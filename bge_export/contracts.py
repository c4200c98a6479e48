"""The page to read first: the package's data types and its extension points: exporters, runtimes and heads.

Shape letters, used in every docstring: B texts in a batch, N texts in a corpus, S tokens, D dimensions.

    checkpoint ──▶ exporters ──▶ Artifact + manifest ──▶ runtimes ──┐
         │                                                          ├──▶ compare ──▶ report ──▶ gate
         └───────▶ reference (the oracle) ──────────────────────────┘

Formats and runtimes meet only through an `Artifact` on disk. A format is three files of its name: `exporters/` writes
it, `formats/` reads it, `runtimes/` runs it; a precision is one file of `precision/`, a kind of answer one of `heads/`.
All are found by their names, and each target needs a table of limits (docs/how-to/add-a-format.md). This module loads
only the standard library and numpy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["cls", "mean", "last", "max", "mean_sqrt_len", "weightedmean"]
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "last", "max", "mean_sqrt_len", "weightedmean")
COMMON_POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "last")
"""Those that clients have, which make a vector of token states by themselves."""

Side = Literal["left", "right"]
"""Where a tokenizer pads."""

PromptOrigin = Literal["checkpoint", "published", "given"]
"""Where prompts come from: the checkpoint's own files, what its authors publish for the model, or the user."""

LAST_HIDDEN_STATE = "last_hidden_state"
SENTENCE_EMBEDDING = "sentence_embedding"
LOGITS = "logits"
DENSE_VECS, SPARSE_WEIGHTS, COLBERT_VECS = "dense_vecs", "sparse_weights", "colbert_vecs"
"""Outputs of a model with three heads; the names are FlagEmbedding's, but for the weights of single tokens."""
SPARSE_EMBEDDING = "sparse_embedding"
TOKEN_EMBEDDINGS = "token_embeddings"  # noqa: S105 - an output

HEADS_OF: Mapping[str, str] = {
    LOGITS: "score",
    DENSE_VECS: "dense",
    SPARSE_WEIGHTS: "sparse",
    SPARSE_EMBEDDING: "sparse",
    COLBERT_VECS: "multi_vector",
    TOKEN_EMBEDDINGS: "multi_vector",
}
"""Output -> the kind of its head; every other output is read by the dense head."""

OUTPUTS: Mapping[frozenset[str], tuple[str, ...]] = {
    frozenset({"score"}): (LOGITS,),
    frozenset({"sparse"}): (SPARSE_EMBEDDING,),
    frozenset({"multi_vector"}): (TOKEN_EMBEDDINGS,),
    frozenset({"dense", "sparse", "multi_vector"}): (DENSE_VECS, SPARSE_WEIGHTS, COLBERT_VECS),
}
"""Kinds of a spec -> the outputs of its files. Files of embedding models give states, and perhaps a vector."""


@dataclass(frozen=True)
class InputSpec:
    """What a model reads: one text, or a pair of texts as one row of tokens.

    Attributes:
        max_tokens: the longest input in tokens, including special tokens; longer texts are truncated.
        prompts: `query` and `document` -> the instruction that precedes texts of that use, "" for none; empty if no
            text has one.
    """

    max_tokens: int
    prompts: Mapping[str, str] = field(hash=False)


class Head(Protocol):
    """One kind of answer that a model gives, such as one dense vector a text.

    A module `heads/<kind>.py` holds a frozen dataclass whose fields are what a model promises of that answer, and
    that class as the constant `HEAD`.
    """

    kind: ClassVar[str]
    """Its name in a spec, in files and among the modules of `heads`."""
    reads: ClassVar[Literal["text", "pair"]]
    """Whether it answers for one text, or for a query and a text that are read together."""

    def shapes(self, output: str, texts: int, tokens: int) -> Sequence[tuple[int, ...]]:
        """Return the shapes that an output of the graph may have for B texts, padded to S tokens."""

    def rows(
        self, outputs: Mapping[str, NDArray[np.float32]], attention_mask: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> its answers, [B, D] float32, from a graph's outputs and the mask [B, S] of its input."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model reads, and each kind of answer that it gives: `heads` maps a kind to its head."""

    inputs: InputSpec
    heads: Mapping[str, Head] = field(hash=False)

    @property
    def is_reranker(self) -> bool:
        """Return whether the model reads pairs of texts."""
        return any(head.reads == "pair" for head in self.heads.values())

    @property
    def only_dense(self) -> bool:
        """Return whether one vector a text is all that the model gives."""
        return set(self.heads) == {"dense"}

    @property
    def has_token_heads(self) -> bool:
        """Return whether the model gives token weights or vectors of tokens, alone or beside a vector."""
        return not (self.is_reranker or self.only_dense)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the outputs of its files, in their order; none of an embedding model, whose files decide."""
        return OUTPUTS.get(frozenset(self.heads), ())

    def head_of(self, output: str) -> Head:
        """Return the head that reads an output of a file."""
        return self.heads[HEADS_OF.get(output, "dense") if len(self.heads) > 1 else next(iter(self.heads))]


@dataclass(frozen=True)
class Checkpoint:
    """A PyTorch checkpoint in a local folder; its files are checked, its weights are not loaded.

    Attributes:
        source: the Hub id, or the name of the local folder (never a path on this machine).
        revision: the Hub commit; None for a local folder.
        root: the folder that holds the files.
        digest: sha256 over the names and digests of every file that affects the embedding.
        model_type: the architecture, as named in `config.json`.
        spec: what the model reads and gives.
        weights: the safetensors files, relative to `root`.
        token_types: whether the model distinguishes token types; if so, its artifacts have that input.
        prompts_from: where the spec's prompts come from; `checkpoint` too if there are none.
        padding_side: where its own tokenizer pads. A folder pads on the right, unless the last token is pooled.
        head_weights: kind of head -> the safetensors files of its own layers, in their order, relative to `root`.
        pickles: the pickles that its weights came from, by their names; `weights` then are what was read from them.
        adapter: which adapter was merged into its weights; None if it has none.
        notes: what the user should know of it, one sentence each.
    """

    source: str
    revision: str | None
    root: Path
    digest: str
    model_type: str
    spec: ModelSpec
    weights: tuple[str, ...]
    token_types: bool
    prompts_from: PromptOrigin = "checkpoint"
    padding_side: Side = "right"
    head_weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    pickles: tuple[str, ...] = ()
    adapter: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Target:
    """A format and a precision, written like `onnx-fp32`."""

    format: str
    precision: str

    def __str__(self) -> str:
        """Return the written name, the key in the file of limits."""
        return f"{self.format}-{self.precision}"


@dataclass(frozen=True)
class Artifact:
    """One exported model on disk.

    Attributes:
        target: its format and precision.
        root: the folder that holds it (a bundle: all artifacts of one checkpoint).
        model: the file that a runtime opens, relative to `root`.
        files: every file that affects its embeddings (model, data, tokenizer, pooling), relative to `root`.
        digest: sha256 over the names and digests of `files`.
        spec: what it must produce.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs; `last_hidden_state` first.
    """

    target: Target
    root: Path
    model: str
    files: tuple[str, ...]
    digest: str
    spec: ModelSpec
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of B texts, right-padded to the longest: three arrays, each [B, S] int64."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]

    @property
    def position_ids(self) -> NDArray[np.int64]:
        """Return positions counted from 0, [B, S] int64, for graphs with that input."""
        rows, length = self.input_ids.shape
        return np.tile(np.arange(length, dtype=np.int64), (rows, 1))

    def feed(self, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Return the arrays for a graph's inputs, by name."""
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ExportedModel:
    """One exported precision, as the exporter reports it.

    Attributes:
        precision: the precision.
        files: relative to the folder, the model file first.
        inputs, outputs: names of the graph's inputs and outputs.
        facts: findings of the export, recorded in the manifest.
    """

    precision: str
    files: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: Mapping[str, object] = field(default_factory=dict)


Attempts = Iterator[ExportedModel]
"""One precision: the first `next` writes it, each further one overwrites it with a more accurate variant."""


class Exporter(Protocol):
    """Writes artifacts of one format. It never loads them to check them: the parity check does.

    A module `exporters/<format>.py` holds a frozen dataclass whose fields are its options, with the defaults of
    the command line, and that class as the constant `EXPORTER`.
    """

    format: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    tools: ClassVar[tuple[str, ...]]
    """Distributions whose versions affect the written bytes; the manifest records them."""

    @property
    def options(self) -> Mapping[str, object]:
        """Return the exporter's options, which are its fields; the manifest records them."""

    def export(self, checkpoint: Checkpoint, root: Path, precisions: Sequence[str]) -> Sequence[Attempts]:
        """Write one model per precision below `root`; the first `next` of each describes it."""


class Session(Protocol):
    """One artifact, opened on one device."""

    facts: Mapping[str, str]
    """The runtime's own report: versions, the provider actually in use, precision hints."""

    def run(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the graph's outputs by name, as they are: states [B, S, D] or embeddings [B, D], float32."""

    def close(self) -> None:
        """Free the model."""


class Runtime(Protocol):
    """Opens artifacts. It never exports and never chooses a device itself.

    A module `runtimes/<name>.py` holds an instance as the constant `RUNTIME`.
    """

    name: str
    formats: frozenset[str]
    known: tuple[str, ...]
    """The names of all its devices, whether or not this machine has them."""
    library: str
    extra: str

    def devices(self) -> Mapping[str, str | None]:
        """Return each known device -> None if it is usable, else the reason why it is not."""

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact.

        Raises:
            DeviceUnavailable: the device is missing, or the runtime would silently use another.
            ArtifactError: the file cannot be loaded.
        """

"""The page to read first: the package's data types and its two extension points, exporters and runtimes.

Shape letters, used in every docstring: B texts in a batch, N texts in a corpus, S tokens, D dimensions.

    checkpoint ──▶ exporters ──▶ Artifact + manifest ──▶ runtimes ──┐
         │                                                          ├──▶ compare ──▶ report ──▶ gate
         └───────▶ reference (the oracle) ──────────────────────────┘

Formats and runtimes meet only through an `Artifact` on disk. A format is three files of its name: `exporters/` writes
it, `formats/` reads it, `runtimes/` runs it; a precision is one file of `precision/`. All are found by their names, and
each target needs a table of limits (docs/how-to/add-a-format.md). This module imports only the standard library and
numpy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["cls", "mean", "last"]
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "last")

LAST_HIDDEN_STATE = "last_hidden_state"
SENTENCE_EMBEDDING = "sentence_embedding"


@dataclass(frozen=True)
class EmbeddingSpec:
    """How token states become the embedding that a model promises.

    Attributes:
        dim: D, the width of the embedding.
        max_tokens: the longest input in tokens, including special tokens; longer texts are truncated.
        pooling: which token states form the embedding. A value, not a subclass.
        normalize: whether the embedding is divided by its L2 norm.
        query_prefix: the instruction that precedes retrieval queries; empty if the model declares none.
    """

    dim: int
    max_tokens: int
    pooling: Pooling
    normalize: bool
    query_prefix: str


@dataclass(frozen=True)
class Checkpoint:
    """A PyTorch checkpoint in a local folder; its files are checked, its weights are not loaded.

    Attributes:
        source: the Hub id, or the name of the local folder (never a path on this machine).
        revision: the Hub commit; None for a local folder.
        root: the folder that holds the files.
        digest: sha256 over the names and digests of every file that affects the embedding.
        model_type: the architecture, as named in `config.json`.
        spec: the embedding that the model promises.
        weights: the safetensors files, relative to `root`.
        token_types: whether the model distinguishes token types; if so, its artifacts have that input.
    """

    source: str
    revision: str | None
    root: Path
    digest: str
    model_type: str
    spec: EmbeddingSpec
    weights: tuple[str, ...]
    token_types: bool


@dataclass(frozen=True, order=True)
class Target:
    """A format and a precision, written like `onnx-fp32`."""

    format: str
    precision: str

    def __str__(self) -> str:
        """Return the written form, the key in the file of limits."""
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
        spec: the embedding that it must produce.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs; `last_hidden_state` first.
    """

    target: Target
    root: Path
    model: str
    files: tuple[str, ...]
    digest: str
    spec: EmbeddingSpec
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

    def embed(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return output name -> its embeddings, [B, D] float32, for each output of the graph."""

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

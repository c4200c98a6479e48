"""The page to read first: the nouns of the package and its two seams.

Shape letters, used in every docstring: B texts in a batch, N texts in a corpus, S tokens, D dimensions.

    checkpoint ──▶ exporters ──▶ Artifact + manifest ──▶ runtimes ──┐
         │                                                          ├──▶ compare ──▶ report ──▶ gate
         └───────▶ reference (the oracle) ──────────────────────────┘

Formats and runtimes meet only through an `Artifact` on disk. Adding either is one new file in `exporters/`
or `runtimes/`, found by its name. This module needs nothing but the standard library and numpy.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["cls", "mean", "last"]
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "last")

LAST_HIDDEN_STATE = "last_hidden_state"
SENTENCE_EMBEDDING = "sentence_embedding"

Track = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a stage of known length: `with track("embedding", 120) as advance: advance(1)`. Stages follow one another."""


@contextmanager
def untracked(_name: str, _total: int) -> Generator[Callable[[int], None]]:
    """Show no progress."""
    yield lambda _count: None


@dataclass(frozen=True)
class EmbeddingSpec:
    """What turns token states into the embedding a model promises.

    Attributes:
        dim: D, the width of the embedding.
        max_tokens: the longest input, special tokens included; longer texts are truncated to it.
        pooling: which token states become the embedding. Data, not a subclass.
        normalize: whether the embedding is divided by its L2 norm.
        query_prefix: the instruction that retrieval queries carry; empty where the model declares none.
    """

    dim: int
    max_tokens: int
    pooling: Pooling
    normalize: bool
    query_prefix: str


@dataclass(frozen=True)
class Checkpoint:
    """A PyTorch checkpoint in a local folder, checked but with no weights loaded.

    Attributes:
        source: the Hub id, or the name of the local folder (never a machine's path).
        revision: the Hub commit; None for a local folder.
        root: the folder that holds the files.
        digest: sha256 over the names and digests of every file that decides the embedding.
        model_type: the architecture, as `config.json` names it.
        spec: what the model promises.
        weights: the safetensors files, relative to `root`.
        token_types: whether the model distinguishes token types (an input of its artifacts).
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
    """A format and a precision, written `onnx-fp32`."""

    format: str
    precision: str

    def __str__(self) -> str:
        """Return the written form, which keys the file of limits."""
        return f"{self.format}-{self.precision}"


@dataclass(frozen=True)
class Artifact:
    """One exported model on disk.

    Attributes:
        target: its format and precision.
        root: the folder (a bundle of one checkpoint) that holds it.
        model: the file a runtime opens, relative to `root`.
        files: every file that decides its embeddings (model, data, tokenizer, pooling), relative to `root`.
        digest: sha256 over the names and digests of `files`.
        spec: the promise it must keep.
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
    """Tokens of B texts, padded on the right to the longest: three arrays, each [B, S] int64."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]

    @property
    def position_ids(self) -> NDArray[np.int64]:
        """Return the positions from 0, [B, S] int64, for graphs that ask for them."""
        rows, length = self.input_ids.shape
        return np.tile(np.arange(length, dtype=np.int64), (rows, 1))

    def feed(self, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Return the arrays that a graph's inputs ask for, by name."""
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ExportedModel:
    """What an exporter wrote in one precision.

    Attributes:
        precision: the precision.
        files: relative to the folder, the model file first.
        inputs, outputs: names of the graph's ends.
        facts: what was found out on the way, for the manifest.
        finer: writes the same more exactly in its place, should the gate refuse it; None where nothing does.
    """

    precision: str
    files: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: Mapping[str, object] = field(default_factory=dict)
    finer: "Callable[[Track], ExportedModel] | None" = None


class Exporter(Protocol):
    """Writes artifacts of one format. It never loads what it wrote to check it: parity does.

    A module `exporters/<format>.py` holds a frozen dataclass whose fields are its options, with the defaults that
    the command line has, and that class as the constant `EXPORTER`.
    """

    format: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    tools: ClassVar[tuple[str, ...]]
    """Distributions whose versions decide the bytes; the manifest records them."""

    @property
    def options(self) -> Mapping[str, object]:
        """Return the exporter's own options, which are fields of it; the manifest records them."""

    def export(
        self, checkpoint: Checkpoint, root: Path, precisions: Sequence[str], track: Track = untracked
    ) -> Sequence[ExportedModel]:
        """Write one model a precision below `root` and say what was written; `track` shows what takes time."""


class Session(Protocol):
    """One artifact, opened on one device."""

    facts: Mapping[str, str]
    """What the runtime says of itself: versions, provider really in use, precision hints."""

    def embed(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return for each output of the graph the embeddings it yields, [B, D] float32."""

    def close(self) -> None:
        """Free the model."""


class Runtime(Protocol):
    """Opens artifacts. It never exports and never picks a device itself.

    A module `runtimes/<name>.py` holds one as the constant `RUNTIME`.
    """

    name: str
    formats: frozenset[str]
    known: tuple[str, ...]
    """The names of all its devices, whatever is installed."""
    library: str
    extra: str

    def devices(self) -> Mapping[str, str | None]:
        """Return each device the runtime knows -> None where it can be used, else the reason why not."""

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact.

        Raises:
            DeviceUnavailable: the device is not there, or another would silently take its place.
            ArtifactError: the file cannot be loaded.
        """

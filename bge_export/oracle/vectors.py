"""The oracle's vectors as a value and as a file, so that machines without torch or the checkpoint can check."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bge_export.contracts import POOLINGS, ModelSpec
from bge_export.errors import ReportError
from bge_export.files.npz import read_arrays
from bge_export.files.reading import first_fault
from bge_export.files.regular import VECTORS_BYTES, open_regular
from bge_export.files.single import written_whole
from bge_export.files.spec import SpecRecord
from bge_export.heads.dense import dense_head
from bge_export.sweep.packing import text_key, text_width, token_columns, token_width
from bge_export.sweep.plan import TokenFacts
from bge_export.sweep.states import ARRAYS as SWEEP_ARRAYS
from bge_export.sweep.states import Sweep, from_arrays

SCHEMA: Literal["bge_export.reference/1"] = "bge_export.reference/1"
SCORES = "score"
"""Key of a reranker's logits among the vectors."""

KINDS = (*POOLINGS, SCORES, "sparse", "multi_vector")
ARRAYS = frozenset(
    {
        *("facts", "golden", "token_ids", "token_counts", "token_types", "tokens"),
        *(f"vectors_{name}" for name in KINDS),
        *SWEEP_ARRAYS,
    }
)

MOST_SPECIAL = 16
"""Most special tokens before or after a text."""

MOST_ROWS = 2**24
"""Largest vocabulary that a file may declare."""

MOST_TYPES = 2**10
"""Most token types that a file may declare; a sequence is made for each."""

MOST_TOKENS = 2**17
"""Longest input that a file may declare, since sequences of that length are made from it."""


class _Tokens(BaseModel):
    """`sweep.plan.TokenFacts` in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rows: int = Field(gt=0, le=MOST_ROWS)
    token_types: int = Field(ge=0, le=MOST_TYPES)
    prefix: list[Annotated[int, Field(ge=0)]] = Field(max_length=MOST_SPECIAL)
    suffix: list[Annotated[int, Field(ge=0)]] = Field(max_length=MOST_SPECIAL)
    pad: int = Field(ge=0)
    max_tokens: int = Field(gt=0, le=MOST_TOKENS)

    def facts(self) -> TokenFacts:
        """Return them as the plan takes them."""
        fields = self.model_dump()
        return TokenFacts(**{**fields, "prefix": tuple(self.prefix), "suffix": tuple(self.suffix)})


class _Facts(BaseModel):
    """The metadata that the file stores beside its arrays."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Literal["bge_export.reference/1"] = Field(alias="schema")
    source: str
    revision: str | None
    spec: SpecRecord
    checkpoint_digest: str
    texts_digest: str
    ids: list[str]
    versions: dict[str, str]
    files: dict[str, str]
    tokens: _Tokens


@dataclass(frozen=True)
class ReferenceVectors:
    """The oracle's embeddings of N texts.

    Attributes:
        source: the checkpoint's Hub id or folder name.
        revision: its Hub commit, if any.
        checkpoint_digest: digest of the checkpoint.
        texts_digest: digest of the texts.
        spec: what the checkpoint reads and gives.
        ids: the N text ids.
        token_ids: the N rows of token ids, by the checkpoint's own tokenizer.
        vectors: pooling -> [N, D] float32. `truth` holds those of the promised pooling; the others only serve to
            recognise an artifact that pools differently. Of a reranker, `SCORES` -> the logits [N, 1]; of SPLADE,
            `sparse` -> the weights [N, V].
        versions: the libraries that computed them.
        kind: whether the checkpoint was run here, or the vectors were read from a file.
        files: name -> sha256 of the small files and weights that a folder of the checkpoint holds.
        sweep: the checkpoint's states of token ids that no text need hold; a file holds the sample alone.
        golden: the content of the `golden.jsonl` that a folder of the checkpoint holds; empty if it was not made.
        token_types: the N rows of token types; None if the model has none, or reads single texts, which are of type 0.
        tokens: what heads give for each token of all texts, one text after the other, [T, W] (`sweep.packing`); None if
            no head gives anything for a token.
    """

    source: str
    revision: str | None
    checkpoint_digest: str
    texts_digest: str
    spec: ModelSpec
    ids: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    vectors: Mapping[str, NDArray[np.float32]]
    versions: Mapping[str, str]
    kind: Literal["checkpoint", "file"]
    sweep: Sweep
    files: Mapping[str, str] = field(default_factory=dict)
    golden: bytes = b""
    token_types: tuple[tuple[int, ...], ...] | None = None
    tokens: NDArray[np.float32] | None = None

    @property
    def truth(self) -> NDArray[np.float32]:
        """Return the vectors of the promised pooling, [N, D] float32: what every artifact is compared with."""
        return self.vectors[text_key(self.spec)]

    @property
    def digest(self) -> str:
        """Return the sha256 of what every artifact is compared with."""
        found = hashlib.sha256(np.ascontiguousarray(self.truth, dtype="<f4").tobytes())
        if self.tokens is not None:
            found.update(np.ascontiguousarray(self.tokens, dtype="<f4").tobytes())
        return found.hexdigest()

    def tokens_of(self, text: int, kind: str) -> NDArray[np.float32]:
        """Return what a head gives for each token of a text, [S, …]; the text is given by its number."""
        if self.tokens is None:
            return np.zeros((len(self.token_ids[text]), 0), dtype=np.float32)
        start = sum(len(row) for row in self.token_ids[:text])
        return self.tokens[start : start + len(self.token_ids[text]), token_columns(self.spec, kind)]

    @property
    def width(self) -> int:
        """Return the number of values of each vector: D, 1 of a reranker, or V of SPLADE."""
        return 1 if self.spec.is_reranker else text_width(self.spec)

    def write(self, path: Path) -> None:
        """Write the vectors as `.npz`, through a temporary sibling. Equal vectors give equal bytes."""
        facts = {
            "schema": SCHEMA,
            "source": self.source,
            "revision": self.revision,
            "spec": SpecRecord.of(self.spec).model_dump(),
            "checkpoint_digest": self.checkpoint_digest,
            "texts_digest": self.texts_digest,
            "ids": list(self.ids),
            "versions": dict(self.versions),
            "files": dict(self.files),
            "tokens": asdict(self.sweep.facts),
        }

        arrays: dict[str, NDArray[np.generic]] = {f"vectors_{name}": rows for name, rows in self.vectors.items()}
        arrays["token_ids"] = np.asarray([i for row in self.token_ids for i in row], dtype=np.int64)
        arrays["token_counts"] = np.asarray([len(row) for row in self.token_ids], dtype=np.int64)
        if self.token_types is not None:
            arrays["token_types"] = np.asarray([i for row in self.token_types for i in row], dtype=np.int64)
        if self.tokens is not None:
            arrays["tokens"] = self.tokens
        arrays |= self.sweep.arrays()
        arrays["golden"] = np.frombuffer(self.golden, dtype=np.uint8)
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)

        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> "ReferenceVectors":
        """Read vectors from a file.

        Raises:
            ReportError: the file is missing, damaged, of another schema, or inconsistent.
        """
        try:
            with open_regular(path, VECTORS_BYTES) as file:
                arrays = read_arrays(file, ARRAYS)

            facts = _Facts.model_validate_json(_array(arrays, "facts", np.uint8).tobytes())
            counts = _array(arrays, "token_counts", np.int64)
            rows = _rows(_array(arrays, "token_ids", np.int64), counts)
            types = _rows(_array(arrays, "token_types", np.int64), counts) if "token_types" in arrays else None
            spec = facts.spec.to_spec()
            widths = _widths(spec)

            names = [name for name in KINDS if f"vectors_{name}" in arrays]
            reference = cls(
                source=facts.source,
                revision=facts.revision,
                checkpoint_digest=facts.checkpoint_digest,
                texts_digest=facts.texts_digest,
                spec=spec,
                ids=tuple(facts.ids),
                token_ids=rows,
                vectors={name: arrays[f"vectors_{name}"].view(np.ndarray) for name in names},
                versions=facts.versions,
                kind="file",
                sweep=from_arrays(facts.tokens.facts(), arrays, widths),
                files=facts.files,
                golden=_array(arrays, "golden", np.uint8).tobytes(),
                token_types=types,
                tokens=arrays["tokens"].view(np.ndarray) if "tokens" in arrays else None,
            )

            reference.check()
        except FileNotFoundError as error:
            raise ReportError(f"{path} does not exist. Write it with: bge-export reference MODEL -o {path}") from error
        except OSError as error:
            raise ReportError(f"{path} cannot be read: {error.strerror or error}. Give another file.") from error
        except ValidationError as error:
            raise ReportError(
                f"{path} is not a file of reference vectors of schema {SCHEMA}: {first_fault(error, 'facts')}. "
                f"Write one with: bge-export reference MODEL -o {path}"
            ) from error
        except Exception as error:  # zipfile and numpy raise a dozen types for damage
            raise ReportError(
                f"{path} is not a file of reference vectors: {error}. "
                f"Write one with: bge-export reference MODEL -o {path}"
            ) from error

        return reference

    def check(self) -> None:
        """Raise ValueError unless all parts describe the same N texts and every vector is finite."""
        count = len(self.ids)
        if len(self.token_ids) != count:
            raise ValueError(f"{len(self.token_ids)} rows of token ids for {count} texts")

        wanted = text_key(self.spec)
        if wanted not in self.vectors:
            raise ValueError(f"no vectors for the declared pooling {wanted!r}")

        self._check_tokens()
        if self.sweep.facts.max_tokens != self.spec.inputs.max_tokens:
            raise ValueError(f"a sweep up to {self.sweep.facts.max_tokens} tokens where the longest input is another")

        for name, rows in self.vectors.items():
            if rows.shape != (count, self.width) or rows.dtype != np.float32:
                raise ValueError(f"{name} vectors are {rows.dtype} {rows.shape}, not float32 {(count, self.width)}")
            if not np.isfinite(rows).all():
                raise ValueError(f"{name} vectors are not all finite")

    def _check_tokens(self) -> None:
        """Raise ValueError unless there is what the heads promise for each token, and nothing else."""
        width = token_width(self.spec) if self.spec.has_token_heads else 0
        if (self.tokens is not None) != (width > 0):
            raise ValueError("answers for tokens where none are promised, or none where they are")
        if self.tokens is None:
            return

        shape = (sum(map(len, self.token_ids)), width)
        if self.tokens.shape != shape or self.tokens.dtype != np.float32:
            raise ValueError(f"tokens are {self.tokens.dtype} {self.tokens.shape}, not float32 {shape}")
        if not np.isfinite(self.tokens).all():
            raise ValueError("answers for tokens are not all finite")


def _widths(spec: ModelSpec) -> tuple[int, int]:
    """Return how many values of a token, and of a sequence, the sweep holds."""
    if spec.is_reranker:
        return 0, 1
    if spec.only_dense:
        return dense_head(spec).state_dim, dense_head(spec).dim
    return token_width(spec), text_width(spec)


def _array(arrays: Mapping[str, NDArray[np.generic]], name: str, kind: type[np.generic]) -> NDArray[np.generic]:
    """Return an array, checked to be one-dimensional and of the given dtype."""
    if name not in arrays:
        raise ValueError(f"it holds no {name}")

    array = arrays[name]
    if array.ndim != 1 or array.dtype != kind:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not one row of {np.dtype(kind)}")
    return array


def _rows(ids: NDArray[np.generic], counts: NDArray[np.generic]) -> tuple[tuple[int, ...], ...]:
    """Return the rows of token ids, split by the lengths in `counts`."""
    lengths = counts.tolist()
    if any(length < 0 for length in lengths) or sum(lengths) != len(ids):
        raise ValueError(f"{len(ids)} token ids do not make {len(lengths)} rows of the lengths in token_counts")

    # The rows are stored as one flat array, since their lengths differ.
    flat, start = ids.tolist(), 0
    rows = []
    for length in lengths:
        rows.append(tuple(flat[start : start + length]))
        start += length

    return tuple(rows)
